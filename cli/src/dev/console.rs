//! Lines for the terminal from many tasks. A terminal that is slow or stopped loses lines; it never holds up a flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::output::{Palette, print, print_error, printable};

/// Lines that may wait to be printed.
const LINES_QUEUED_MAX: usize = 4_096;

enum Line {
    Out(String),
    Error(String),
}

/// A handle to the terminal. Cheap to clone.
#[derive(Clone)]
pub(super) struct Console {
    palette: Palette,
    lines: SyncSender<Line>,
    skipped: Arc<AtomicU64>,
}

impl Console {
    /// Starts the thread that prints. It ends with the last handle.
    pub(super) fn start(palette: Palette) -> Self {
        let (lines, queue) = sync_channel(LINES_QUEUED_MAX);
        let skipped = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&skipped);
        std::thread::spawn(move || print_all(&queue, &shared));
        Self { palette, lines, skipped }
    }

    /// The colours of this terminal.
    pub(super) fn palette(&self) -> Palette {
        self.palette
    }

    /// A line of ours.
    pub(super) fn line(&self, text: &str) {
        self.push(Line::Out(text.to_owned()));
    }

    /// A line of a worker, with its name in front.
    pub(super) fn worker(&self, name: &str, width: usize, text: &str) {
        let prefix = self.palette.dim(&format!("{name:<width$} |"));
        // Colours of the worker are kept; a line break or a bell is not what a line is for.
        let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\u{1b}')).collect();
        self.push(Line::Out(format!("{prefix} {text}")));
    }

    /// Something that is wrong.
    pub(super) fn error(&self, text: &str) {
        self.push(Line::Error(self.palette.red(&format!("error: {}", printable(text)))));
    }

    /// A problem of the resources, which brings its own word for how bad it is.
    pub(super) fn problem(&self, is_error: bool, text: &str) {
        let text = printable(text);
        self.push(Line::Error(if is_error { self.palette.red(&text) } else { self.palette.yellow(&text) }));
    }

    fn push(&self, line: Line) {
        if self.lines.try_send(line).is_err() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn print_all(queue: &Receiver<Line>, skipped: &AtomicU64) {
    while let Ok(line) = queue.recv() {
        match line {
            Line::Out(text) => print(&text),
            Line::Error(text) => print_error(&text),
        }
        let skipped = skipped.swap(0, Ordering::Relaxed);
        if skipped > 0 {
            print_error(&format!("({skipped} lines were skipped: they came faster than they can be printed)"));
        }
    }
}
