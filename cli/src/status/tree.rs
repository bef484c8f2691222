//! Lines of a tree: a branch, a mark, a label, and what there is to say, each in its column.

use crate::output::{Palette, printable};

/// Widest column of labels. What is longer pushes only its own line.
const LABELS_MAX: usize = 60;

/// How something is, at a glance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Good,
    Bad,
    Moving,
    /// Nothing is known about it.
    Unknown,
    /// There is nothing to be known.
    None,
}

/// One line, and those below it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) label: String,
    pub(super) text: String,
    pub(super) children: Vec<Self>,
}

struct Line<'a> {
    branch: String,
    node: &'a Node,
}

impl Line<'_> {
    fn width(&self) -> usize {
        let mark = if self.node.mark == Mark::None { 0 } else { 2 };
        self.branch.chars().count() + mark + self.node.label.chars().count()
    }
}

/// All lines, for people.
pub(super) fn draw(roots: &[Node], palette: Palette) -> String {
    let mut lines = Vec::new();
    for root in roots {
        lines.push(Line { branch: String::new(), node: root });
        below(root, "", &mut lines);
    }
    let width = lines.iter().map(Line::width).filter(|width| *width <= LABELS_MAX).max().unwrap_or(0);
    let mut text = String::new();
    for line in &lines {
        let mark = match line.node.mark {
            Mark::Good => palette.green("✓") + " ",
            Mark::Bad => palette.red("✗") + " ",
            Mark::Moving => palette.yellow("…") + " ",
            Mark::Unknown => palette.yellow("?") + " ",
            Mark::None => String::new(),
        };
        let gap = " ".repeat(width.saturating_sub(line.width()));
        let (label, told) = (printable(&line.node.label), printable(&line.node.text));
        let whole = format!("{}{mark}{label}{gap}  {told}", palette.dim(&line.branch));
        text.push_str(whole.trim_end());
        text.push('\n');
    }
    text
}

fn below<'a>(node: &'a Node, indent: &str, lines: &mut Vec<Line<'a>>) {
    for (at, child) in node.children.iter().enumerate() {
        let is_last = at + 1 == node.children.len();
        let (branch, deeper) = if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(Line { branch: format!("{indent}{branch}"), node: child });
        below(child, &format!("{indent}{deeper}"), lines);
    }
}
