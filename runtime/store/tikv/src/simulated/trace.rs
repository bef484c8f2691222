//! What happened in a simulated cluster, in order: to be compared between two runs of one seed, counted, and read.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hasher};

/// Events, as a digest of all, counts by name, and lines if somebody wants to read them.
#[derive(Debug)]
pub(super) struct Trace {
    /// The same for the same content in every run of one build.
    hasher: DefaultHasher,
    events: u64,
    counts: BTreeMap<&'static str, u64>,
    lines: Option<Vec<String>>,
}

struct HashWriter<'a>(&'a mut DefaultHasher);

impl fmt::Write for HashWriter<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

impl Trace {
    pub(super) fn new() -> Self {
        Self { hasher: DefaultHasher::new(), events: 0, counts: BTreeMap::new(), lines: None }
    }

    pub(super) fn keep_lines(&mut self) {
        self.lines.get_or_insert_default();
    }

    pub(super) fn note(&mut self, now_ms: u64, what: fmt::Arguments<'_>) {
        self.events += 1;
        // A hasher takes everything.
        let _ = write!(HashWriter(&mut self.hasher), "{now_ms} {what}");
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now_ms:>8} ms  {what}"));
        }
    }

    pub(super) fn count(&mut self, name: &'static str) {
        self.count_many(name, 1);
    }

    pub(super) fn count_many(&mut self, name: &'static str, many: u64) {
        *self.counts.entry(name).or_default() += many;
    }

    pub(super) fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    pub(super) fn events(&self) -> u64 {
        self.events
    }

    pub(super) fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub(super) fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }
}
