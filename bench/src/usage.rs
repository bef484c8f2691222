//! CPU time and bytes written, of this process and of one it started, as Linux counts them.

use std::time::Duration;

/// Ticks of `/proc/*/stat` in a second. Linux has had 100 on every machine this runs on.
const TICKS_A_SECOND: u64 = 100;

/// What processes have used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) written_bytes: u64,
}

impl Usage {
    /// Of this process and of `others`.
    pub(crate) fn of(others: &[u32]) -> anyhow::Result<Self> {
        let mut usage = Self::default();
        for process in others.iter().map(u32::to_string).chain(["self".to_owned()]) {
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
            // The name in parentheses may hold spaces; fields count from behind it.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            usage.cpu += Duration::from_millis((ticks(11) + ticks(12)) * 1_000 / TICKS_A_SECOND);
            let io = std::fs::read_to_string(format!("/proc/{process}/io"))?;
            let written = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
            usage.written_bytes += written.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(usage)
    }

    /// What was used since.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
        }
    }
}
