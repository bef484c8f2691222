//! CPU time, bytes written and memory of processes, as Linux counts them.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Ticks of `/proc/*/stat` in a second. Linux has had 100 on every machine this runs on.
const TICKS_A_SECOND: u64 = 100;
const PARENT: usize = 1;
const USER_TIME: usize = 11;
const CHILDREN_SYSTEM_TIME: usize = 14;
const KIB: u64 = 1024;

/// A process whose use is counted.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// What it does: `runtime`, `worker`.
    pub(crate) role: &'static str,
    /// Its id.
    pub(crate) id: u32,
    /// Its children count as well, those that ended included.
    pub(crate) with_children: bool,
}

impl Process {
    /// A process without children.
    pub(crate) fn alone(role: &'static str, id: u32) -> Self {
        Self { role, id, with_children: false }
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Of all its threads.
    pub(crate) cpu: Duration,
    /// That went to storage.
    pub(crate) written_bytes: u64,
}

impl Usage {
    /// Of `process`.
    pub(crate) fn of(process: &Process) -> anyhow::Result<Self> {
        let mut usage = Self::of_one(process.id, process.with_children)?;
        if process.with_children {
            for child in children(process.id)? {
                // It may end between the two looks; then its parent has counted it.
                if let Ok(used) = Self::of_one(child, false) {
                    // Ticks are too coarse for hundreds of processes that take a few milliseconds each.
                    usage.cpu += precise_cpu(child).unwrap_or(used.cpu);
                    usage.written_bytes += used.written_bytes;
                }
            }
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

    /// Together with what another process has used.
    pub(crate) fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.written_bytes += other.written_bytes;
    }

    fn of_one(id: u32, with_ended_children: bool) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // User and system time of itself, then of the children that ended.
        let times = if with_ended_children { USER_TIME..=CHILDREN_SYSTEM_TIME } else { USER_TIME..=USER_TIME + 1 };
        let ticks: u64 = times.map(|index| field(&stat, index)).sum();
        let io = fs::read_to_string(format!("/proc/{id}/io"))?;
        Ok(Self {
            cpu: Duration::from_millis(ticks * 1_000 / TICKS_A_SECOND),
            written_bytes: named(&io, "write_bytes:"),
        })
    }
}

/// Memory that a process holds now. Of several processes, what they share is counted once.
///
/// Asking for it takes the kernel a while if there are many, so it is not asked while requests are counted.
pub(crate) fn memory_bytes(process: &Process) -> anyhow::Result<u64> {
    if process.with_children {
        let children = children(process.id)?;
        return Ok(children.into_iter().chain([process.id]).map(shared_memory).sum());
    }
    let status = fs::read_to_string(format!("/proc/{}/status", process.id))?;
    Ok(named(&status, "VmRSS:") * KIB)
}

/// What a block device has done so far, for whoever asked it: the only honest count of what reached it. The page cache
/// counts pages that became dirty, and a large folio counts as a whole whatever was written to it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Device {
    /// Written, whoever wrote them.
    pub(crate) written_bytes: u64,
    /// Times that its cache was flushed.
    pub(crate) flushes: u64,
}

impl Device {
    const SECTOR_BYTES: u64 = 512;
    const WRITTEN_SECTORS: usize = 6;
    const FLUSHES: usize = 15;

    /// The one that holds `path`. `None` if it is no block device, or says nothing.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let device = rustix::fs::stat(path).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        Some(Self {
            written_bytes: field(&stat, Self::WRITTEN_SECTORS) * Self::SECTOR_BYTES,
            flushes: field(&stat, Self::FLUSHES),
        })
    }
}

/// A field of `/proc/*/stat`, counted from behind the name, which may hold spaces and parentheses.
fn field(stat: &str, index: usize) -> u64 {
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().nth(index).and_then(|field| field.parse().ok()).unwrap_or(0)
}

fn named(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// CPU time of a process of one thread, in nanoseconds.
fn precise_cpu(id: u32) -> Option<Duration> {
    let schedule = fs::read_to_string(format!("/proc/{id}/schedstat")).ok()?;
    schedule.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Memory of a process, with its share of what others hold as well.
fn shared_memory(id: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
    named(&rollup, "Pss:") * KIB
}

fn children(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        if field(&stat, PARENT) == u64::from(parent) {
            children.push(id);
        }
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_count_from_behind_the_name() {
        let stat = "17 (a (b) c) S 3 17 17 0 -1 4194304 9 8 7 6 50 60 70 80 20 0 4";
        assert_eq!((field(stat, PARENT), field(stat, USER_TIME), field(stat, CHILDREN_SYSTEM_TIME)), (3, 50, 80));
        assert_eq!(named("rchar: 5\nwrite_bytes: 4096\n", "write_bytes:"), 4096);
        assert_eq!(named("Rss:   20 kB\nPss:        12 kB\n", "Pss:"), 12);
    }

    #[test]
    fn processes_with_one_role_add_up() {
        let mut all = Usage::default();
        for (milliseconds, written_bytes) in [(3, 10), (4, 20)] {
            all.add(Usage { cpu: Duration::from_millis(milliseconds), written_bytes });
        }
        assert_eq!((all.cpu, all.written_bytes), (Duration::from_millis(7), 30));
    }

    #[test]
    fn own_work_is_counted() {
        let own = Process::alone("test", std::process::id());
        let before = Usage::of(&own).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(20);
        let mut used = Usage::default();
        while used.cpu < Duration::from_millis(30) {
            assert!(std::time::Instant::now() < until, "{used:?}");
            used = Usage::of(&own).unwrap().since(before);
        }
        assert!(memory_bytes(&own).unwrap() > 1 << 20);
    }
}
