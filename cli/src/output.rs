//! What goes to the terminal: text or JSON, with colour only where somebody looks.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Prints `text` to standard output. A reader that has gone away (`tandem flows list | head`) is not an error.
pub(crate) fn print(text: &str) {
    write_to(&mut io::stdout().lock(), text);
}

/// Prints one of many lines to standard output. Returns whether somebody still reads.
pub(crate) fn print_line(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
}

/// Prints `text` to standard error.
pub(crate) fn print_error(text: &str) {
    write_to(&mut io::stderr().lock(), text);
}

fn write_to(writer: &mut impl Write, text: &str) {
    // Nobody is left to be told.
    let _ = writeln!(writer, "{}", text.trim_end_matches('\n'));
    let _ = writer.flush();
}

/// Prints `value` as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => print(&text),
        Err(error) => print_error(&format!("error: {error}")),
    }
}

/// Colours of a terminal, or none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Palette {
    coloured: bool,
}

impl Palette {
    /// Colours if standard output is a terminal and `NO_COLOR` is not set.
    pub(crate) fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { coloured: io::stdout().is_terminal() && !refused }
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { coloured: false }
    }

    /// For what went well.
    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// For what went wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// For what deserves a look.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// For what is less important.
    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// An outcome in its colour.
    pub(crate) fn outcome(self, outcome: tandem_model::outcome::Outcome, text: &str) -> String {
        use tandem_model::outcome::Outcome;
        match outcome {
            Outcome::Committed => self.green(text),
            Outcome::Rejected | Outcome::Cancelled | Outcome::Conflict | Outcome::TimedOut => self.yellow(text),
            Outcome::Failed | Outcome::Poisoned | Outcome::Invalid => self.red(text),
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.coloured { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

/// Replaces control characters, so that stored text cannot steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Aligned columns under a header, without lines.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    table.lines().map(|line| line.trim().to_owned() + "\n").collect()
}

/// `3.1 ms`, `2.4 s`.
pub(crate) fn duration(ms: f64) -> String {
    const SECOND_MS: f64 = 1000.0;
    if ms >= SECOND_MS { format!("{:.1} s", ms / SECOND_MS) } else { format!("{ms:.1} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_aligned_and_harmless() {
        let rows = vec![vec!["a".into(), "1".into()], vec!["long\u{1b}[2J".into(), "2".into()]];
        let text = table(&["NAME", "N"], &rows);
        assert!(!text.contains('\u{1b}'), "{text}");
        let columns: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(columns[0], columns[2], "{text}");
    }

    #[test]
    fn durations_have_their_unit() {
        assert_eq!(duration(3.123), "3.1 ms");
        assert_eq!(duration(2_400.0), "2.4 s");
    }
}
