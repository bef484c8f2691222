//! The files change while the application runs: what makes sense takes effect, what does not changes nothing.

use std::path::Path;

use super::bank::{Transfer, accounts, bank, check_books, open_accounts};
use super::http::Request;
use super::process::{Dev, said, tandem};

const ACCOUNTS: usize = 3;
const RESOURCES: &str = "account.yaml";

/// Writes the resources with `from` replaced by `to`; gives what was there before.
fn replace(directory: &Path, from: &str, to: &str) -> String {
    let path = directory.join(RESOURCES);
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(before.contains(from), "{before}");
    std::fs::write(&path, before.replace(from, to)).unwrap();
    before
}

fn status(dev: &Dev, path: &str) -> u16 {
    Request::new("GET", path).send(&dev.http).unwrap().status
}

#[test]
fn new_route_serves_the_old_state_and_a_broken_file_changes_nothing() {
    let directory = bank();
    let mut dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let transfer = Transfer::number(1, ACCOUNTS);
    let answer = transfer.request.settle(&dev.http);
    let before = accounts(&dev);

    let original = replace(directory.path(), "\"/accounts/{account}\"", "\"/konten/{account}\"");
    dev.wait_for("reloaded");
    assert_eq!((status(&dev, "/konten/a-0"), status(&dev, "/accounts/a-0")), (200, 404));
    assert_eq!(accounts(&dev), before);
    // What has an outcome keeps it.
    assert_eq!(transfer.request.settle(&dev.http).outcome(), answer.outcome());

    let line = original.lines().position(|line| line.contains("key: request.path.account")).unwrap() + 1;
    for (from, to, place, problem) in [
        ("  key: request.path.account", "  key: request.path.acount", format!("{RESOURCES}:{line}:8"), "acount"),
        ("handler: transfer", "handler: transfr", format!("{RESOURCES}:"), "did you mean \"transfer\"?"),
        ("kind: FunctionRoute", "kind: [", format!("{RESOURCES}:"), "error"),
    ] {
        dev.mark();
        let good = replace(directory.path(), from, to);
        dev.wait_for("nothing applied");
        let said = dev.wait_for(&place);
        assert!(said.contains(problem), "{said}");
        assert_eq!(status(&dev, "/konten/a-0"), 200);
        std::fs::write(directory.path().join(RESOURCES), good).unwrap();
    }

    dev.mark();
    std::fs::write(directory.path().join(RESOURCES), original).unwrap();
    dev.wait_for("reloaded");
    assert_eq!((status(&dev, "/konten/a-0"), status(&dev, "/accounts/a-0")), (404, 200));
    check_books(&dev, &[(transfer, answer)]);
    dev.stop();
}

#[test]
fn state_keeps_its_type_while_it_runs_and_after_a_restart() {
    let directory = bank();
    let mut dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    let before = accounts(&dev);
    dev.mark();
    let original =
        replace(directory.path(), "name: sent, kind: Value, type: Integer", "name: sent, kind: Value, type: String");
    dev.wait_for("nothing applied");
    let line = dev.wait_for("E120");
    assert!(line.contains("account.yaml:") && line.contains("\"sent\""), "{line}");
    assert_eq!(accounts(&dev), before);
    dev.stop();

    let path = directory.path().display().to_string();
    let ended = tandem(&["dev", &path, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let said = said(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("E120"), "{said}");
    std::fs::write(directory.path().join(RESOURCES), original).unwrap();
    let dev = Dev::start(directory.path());
    assert_eq!(accounts(&dev), before);
    dev.stop();
}

/// A worker that is replaced finishes what it has begun, and the next one goes on from there.
#[test]
fn worker_is_replaced_under_requests() {
    const TRANSFERS: usize = 60;
    let directory = bank();
    let mut dev = Dev::start(directory.path());
    open_accounts(&dev, ACCOUNTS);
    dev.mark();
    let (first, second) = (0..TRANSFERS / 2, TRANSFERS / 2..TRANSFERS);
    let send = |numbers: std::ops::Range<usize>| -> Vec<_> {
        let transfers = numbers.map(|number| Transfer::number(number, ACCOUNTS));
        transfers.map(|transfer| (transfer.request.settle(&dev.http), transfer)).collect()
    };
    let mut answered = send(first);
    let file = directory.path().join("Tandemfile");
    let workers = std::fs::read_to_string(&file).unwrap();
    let changed = workers.replace("\"instances\":2", "\"instances\":1,\"environment\":{\"NEW\":\"1\"}");
    assert_ne!(changed, workers);
    std::fs::write(&file, changed).unwrap();
    answered.extend(send(second));
    dev.wait_for("reloaded");
    answered.extend(send(TRANSFERS..TRANSFERS + 1));
    let answered: Vec<_> = answered.into_iter().map(|(answer, transfer)| (transfer, answer)).collect();
    check_books(&dev, &answered);
    dev.stop();
}
