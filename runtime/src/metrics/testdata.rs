//! What tests of this crate share.

use std::path::Path;

use tandem_model::ids::{FlowId, Instance};
use tandem_model::outcome::{Cause, FlowRecord, Outcome};
use tandem_model::slot::Slot;

/// A record of `order/o-1 place` that ended with `outcome`.
pub(crate) fn record(outcome: Outcome) -> FlowRecord {
    let instance = Instance::parse("order", "o-1").unwrap();
    let request = "r-1".parse().unwrap();
    FlowRecord {
        flow: FlowId::derive(Slot::new(7), &instance, &request),
        request,
        instance,
        handler: "place".parse().unwrap(),
        digest: [0; 16],
        outcome,
        cause: (outcome != Outcome::Committed).then(|| Cause::new("some-reason", "some detail")),
        result: None,
        attempts: 2,
        accepted_unix_ms: 1_700_000_000_000,
        duration_us: 3_100,
        calls: Vec::new(),
    }
}

/// Compares a generated reference page with the one in the repository; `UPDATE_DOCS=1` writes it instead.
pub(crate) fn check_page(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference").join(name);
    let page = format!("{}\n", page.trim_end());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &page).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(stored, page, "docs/src/reference/{name} is out of date: run the test with UPDATE_DOCS=1");
}
