//! Hears of panics and of logged errors in the thread of a world: nothing that a seed brings may cause one.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::program::AS_TOLD;

static HOOK: Once = Once::new();

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// What was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms(Arc<Mutex<Vec<String>>>);

impl Alarms {
    /// Runs something, and listens.
    pub(crate) fn watch<T>(&self, run: impl FnOnce() -> T) -> T {
        HOOK.call_once(listen_to_panics);
        PANICS.with_borrow_mut(Vec::clear);
        tracing::subscriber::with_default(self.clone(), run)
    }

    /// What was heard.
    pub(crate) fn take(&self) -> Vec<String> {
        let errors = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        errors.into_iter().chain(PANICS.with_borrow_mut(std::mem::take)).collect()
    }
}

/// Programs panic because they are told to, thousands of times: nobody wants to read that. Other panics are noted for
/// the world of their thread, and printed.
fn listen_to_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload_as_str() == Some(AS_TOLD) {
            return;
        }
        PANICS.with_borrow_mut(|panics| panics.push(format!("a panic: {panic}")));
        before(panic);
    }));
}

impl Subscriber for Alarms {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event()
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn new_span(&self, _span: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _span: &Id, _values: &Record<'_>) {}

    fn record_follows_from(&self, _span: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("an error was logged by {}:", event.metadata().target()));
        event.record(&mut text);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.0);
    }

    fn enter(&self, _span: &Id) {}

    fn exit(&self, _span: &Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
