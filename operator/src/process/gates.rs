//! What is missing before the operator can work: a definition, a right. `/readyz` names it.

use std::collections::BTreeMap;

use tokio::sync::Notify;

use crate::world::Shared;

/// See the module.
#[derive(Debug, Default)]
pub struct Gates {
    /// What each gate waits for; nothing if it is open.
    gates: Shared<BTreeMap<String, Option<String>>>,
    opened: Notify,
}

impl Gates {
    /// The gate waits for something.
    pub fn wait(&self, gate: impl Into<String>, reason: impl Into<String>) {
        self.gates.lock().insert(gate.into(), Some(reason.into()));
    }

    /// The gate waits no more.
    pub fn open(&self, gate: &str) {
        self.gates.lock().insert(gate.to_owned(), None);
        self.opened.notify_waiters();
    }

    /// Whether it waits no more.
    pub fn is_open(&self, gate: &str) -> bool {
        self.gates.lock().get(gate).is_some_and(Option::is_none)
    }

    /// What is missing, a line each.
    pub fn missing(&self) -> Vec<String> {
        let gates = self.gates.lock();
        let waiting = gates.iter().filter_map(|(gate, reason)| Some(format!("{gate}: {}", reason.as_ref()?)));
        waiting.collect()
    }

    /// Returns once every gate that there is now is open.
    pub async fn all_open(&self) {
        loop {
            let opened = self.opened.notified();
            tokio::pin!(opened);
            opened.as_mut().enable();
            if self.missing().is_empty() {
                return;
            }
            opened.await;
        }
    }
}
