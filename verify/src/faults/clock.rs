//! A wall clock that can be made to jump under a process that runs: a small library that is loaded before all others
//! answers `clock_gettime` for it. The steady clock is left alone, as it is when an administrator sets the time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// Reads by how many seconds it is off from a file that both have mapped.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const long *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TANDEM_CLOCK_OFFSET");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) offset = mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset;
    return result;
}
"#;
/// Where the library finds the file.
const VARIABLE: &str = "TANDEM_CLOCK_OFFSET";

/// The clock of one process.
#[derive(Debug)]
pub(super) struct Clock {
    library: PathBuf,
    offset: PathBuf,
    file: File,
}

impl Clock {
    /// A clock that is right. Builds the library, for which there has to be a C compiler, as there is where Rust links.
    pub(super) fn new(directory: &Path, which: usize) -> anyhow::Result<Self> {
        let (source, library) = (directory.join("clock.c"), directory.join(format!("clock-{which}.so")));
        std::fs::write(&source, LIBRARY)?;
        let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output();
        let built = built.context("failed to start cc, which builds a clock that jumps")?;
        ensure!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
        let offset = directory.join(format!("clock-{which}"));
        let file = File::options().create(true).truncate(false).write(true).open(&offset)?;
        let clock = Self { library, offset, file };
        clock.jump(0)?;
        Ok(clock)
    }

    /// For the process.
    pub(super) fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), (VARIABLE, &self.offset)]
    }

    /// From now on it is off by so many seconds.
    pub(super) fn jump(&self, seconds: i64) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(&seconds.to_ne_bytes(), 0)?)
    }
}
