//! Lines of logs: split, cut where they are too long, and printed with the pod in front.

use std::io;

use futures_util::AsyncBufReadExt;
use futures_util::io::AsyncBufRead;
use jiff::Timestamp;

use crate::cluster::Pod;
use crate::output::{Format, Palette, print_line, printable};

/// Longest line that is kept, in bytes.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Widest column for the names of pods.
const POD_WIDTH_MAX: usize = 48;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pod: String,
    /// When it was printed, if the kubelet said so.
    pub(super) time: Option<Timestamp>,
    pub(super) text: String,
}

impl Line {
    fn new(pod: &str, bytes: &[u8], is_cut: bool) -> Self {
        let whole = String::from_utf8_lossy(bytes);
        let whole = whole.trim_end_matches('\r');
        let (time, text) = match whole.split_once(' ') {
            Some((first, rest)) => match first.parse() {
                Ok(time) => (Some(time), rest),
                Err(_) => (None, whole),
            },
            // An empty line is a time and nothing else.
            None => whole.parse().map_or((None, whole), |time| (Some(time), "")),
        };
        let end = if is_cut { " ... (cut)" } else { "" };
        Self { pod: pod.to_owned(), time, text: format!("{text}{end}") }
    }
}

/// The lines of one pod.
pub(super) struct Lines<R> {
    pod: String,
    reader: R,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub(super) fn new(pod: &str, reader: R) -> Self {
        Self { pod: pod.to_owned(), reader }
    }

    /// The next line; nothing at the end.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        let (mut line, mut is_cut, mut has_begun) = (Vec::new(), false, false);
        loop {
            let bytes = self.reader.fill_buf().await?;
            if bytes.is_empty() {
                return Ok(has_begun.then(|| Line::new(&self.pod, &line, is_cut)));
            }
            has_begun = true;
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let length = end.unwrap_or(bytes.len());
            let room = LINE_BYTES_MAX - line.len();
            line.extend_from_slice(&bytes[..length.min(room)]);
            is_cut |= length > room;
            self.reader.consume_unpin(end.map_or(length, |end| end + 1));
            if end.is_some() {
                return Ok(Some(Line::new(&self.pod, &line, is_cut)));
            }
        }
    }
}

/// Prints lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Printer {
    format: Format,
    palette: Palette,
    width: usize,
}

impl Printer {
    /// A printer for lines of `pods`, and of those that come later.
    pub(super) fn new(format: Format, palette: Palette, pods: &[Pod]) -> Self {
        let width = pods.iter().map(|pod| pod.name.chars().count()).max().unwrap_or(0);
        Self { format, palette, width: width.min(POD_WIDTH_MAX) }
    }

    /// Prints a line. Returns whether somebody still reads.
    pub(super) fn print(&self, line: &Line) -> bool {
        print_line(&self.render(line))
    }

    fn render(&self, line: &Line) -> String {
        match self.format {
            Format::Json => {
                let time = line.time.map(|time| time.to_string());
                serde_json::json!({"pod": line.pod, "time": time, "line": line.text}).to_string()
            }
            Format::Text => {
                let pod = format!("{:<width$}", line.pod, width = self.width);
                // A program may print tabs and mean them.
                let text = line.text.split('\t').map(printable).collect::<Vec<_>>().join("\t");
                format!("{}  {text}", self.palette.dim(&pod))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], capacity: usize) -> Vec<Line> {
        let reader = futures_util::io::BufReader::with_capacity(capacity, text);
        let mut lines = Lines::new("orders-0", reader);
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_are_split_wherever_they_come_apart() {
        let text = "2026-01-01T00:00:01.5Z one\r\n2026-01-01T00:00:02Z \nno time\nlast without an end".as_bytes();
        for capacity in [1, 3, 7, 4096] {
            let all = lines(text, capacity).await;
            let texts: Vec<&str> = all.iter().map(|line| line.text.as_str()).collect();
            assert_eq!(texts, ["one", "", "no time", "last without an end"], "{capacity}");
            assert_eq!(all[0].time, Some("2026-01-01T00:00:01.5Z".parse().unwrap()));
            assert_eq!(all[2].time, None);
        }
        assert!(lines(b"", 10).await.is_empty());
    }

    #[tokio::test]
    async fn a_line_without_an_end_takes_no_memory() {
        let text = [vec![b'x'; LINE_BYTES_MAX * 3], b"\nnext".to_vec()].concat();
        let all = lines(&text, 1000).await;
        assert!(all[0].text.len() < LINE_BYTES_MAX + 20 && all[0].text.ends_with("... (cut)"));
        assert_eq!(all[1].text, "next");
    }

    #[test]
    fn each_line_begins_with_its_pod_and_steers_no_terminal() {
        let pod = |name: &str| Pod {
            name: name.to_owned(),
            uid: name.to_owned(),
            is_ready: true,
            is_running: true,
            is_ending: false,
            restarts: 0,
            state: String::new(),
        };
        let line = Line::new("orders-0", b"2026-01-01T00:00:01Z a\tb\x1b[2J", false);
        let text = Printer::new(Format::Text, Palette::plain(), &[pod("orders-0"), pod("orders-10")]);
        assert_eq!(text.render(&line), "orders-0   a\tb\u{fffd}[2J");
        let json = Printer::new(Format::Json, Palette::plain(), &[]);
        assert_eq!(json.render(&line), r#"{"line":"a\tb\u001b[2J","pod":"orders-0","time":"2026-01-01T00:00:01Z"}"#);
    }
}
