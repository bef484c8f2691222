//! Somebody else who writes the same status: what was undone is written again, and each time later.
//!
//! Without the pauses two writers, each of whom is woken up by what the other one writes, would keep an API server busy for ever.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::key::ObjectKey;
use crate::world::Shared;

/// What is undone so often is written again at once: somebody cleared a status by hand.
const AT_ONCE: u32 = 2;
/// The first pause.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// After so many the pause grows no more; it is at its longest before.
const DOUBLINGS_MAX: u32 = 10;
/// Who has done nothing for so long is no rival any more.
const FORGIVEN_AFTER: Duration = Duration::from_mins(15);

/// What was written last.
#[derive(Clone, Copy, Debug)]
struct Written {
    digest: u64,
    at: Instant,
    /// How often the same was written before.
    again: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Rivals {
    written: Shared<HashMap<ObjectKey, Written>>,
}

impl Rivals {
    /// How long it has to wait until `status` may be written; nothing if it may be now.
    pub fn pause(&self, key: &ObjectKey, status: &Value) -> Option<Duration> {
        let last = self.written.lock().get(key).copied()?;
        if last.digest != digest(status) || last.again < AT_ONCE {
            return None;
        }
        let pause = (PAUSE_MIN * 2_u32.pow((last.again - AT_ONCE).min(DOUBLINGS_MAX))).min(PAUSE_MAX);
        pause.checked_sub(last.at.elapsed()).filter(|left| !left.is_zero())
    }

    /// `status` was written.
    pub fn note(&self, key: &ObjectKey, status: &Value) {
        let (digest, at) = (digest(status), Instant::now());
        let mut written = self.written.lock();
        let last = written.get(key).filter(|last| last.digest == digest && last.at.elapsed() < FORGIVEN_AFTER);
        let again = last.map_or(0, |last| last.again.saturating_add(1));
        written.insert(key.clone(), Written { digest, at, again });
    }

    /// The resource is gone.
    pub fn forget(&self, key: &ObjectKey) {
        self.written.lock().remove(key);
    }
}

/// Of everything but times: to undo a condition and to write it again changes when it was so last.
fn digest(status: &Value) -> u64 {
    fn add(value: &Value, hasher: &mut DefaultHasher) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields.iter().filter(|(name, _)| *name != "lastTransitionTime") {
                    name.hash(hasher);
                    add(value, hasher);
                }
            }
            Value::Array(items) => {
                items.len().hash(hasher);
                for item in items {
                    add(item, hasher);
                }
            }
            other => other.to_string().hash(hasher),
        }
    }
    let mut hasher = DefaultHasher::new();
    add(status, &mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tandem_crds::resources::Kind;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_undone_again_and_again_is_written_less_and_less() {
        let (rivals, key) = (Rivals::default(), ObjectKey::new(Kind::Function, "shop", "cart"));
        let status = |time: u64| json!({"conditions": [{"type": "Ready", "lastTransitionTime": time.to_string()}]});
        let begun = Instant::now();
        let mut writes = 0;
        while begun.elapsed() < Duration::from_hours(1) {
            if let Some(pause) = rivals.pause(&key, &status(writes)) {
                tokio::time::sleep(pause).await;
            } else {
                rivals.note(&key, &status(writes));
                writes += 1;
            }
        }
        assert!((15..=30).contains(&writes), "{writes} writes in an hour");
        let other = json!({"conditions": []});
        assert_eq!(rivals.pause(&key, &other), None, "what is new waits for nobody");
        rivals.note(&key, &other);
        assert_eq!(rivals.pause(&key, &status(0)), None);
        tokio::time::sleep(FORGIVEN_AFTER).await;
        rivals.note(&key, &other);
        assert_eq!(rivals.pause(&key, &other), None, "it is long ago");
    }
}
