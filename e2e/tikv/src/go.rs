//! Builds programs with Go from published modules, once for each version of what they are built from.
//!
//! The module files are part of the program that builds, so that it does not matter where it is run. What was built lies
//! outside of the checkout, in a cache, in a directory named after what it was built from.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::processes::tail;

/// Part of every version, too: how everything is built.
pub const BUILD_FLAGS: [&str; 2] = ["-trimpath", "-mod=readonly"];

/// A version of Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl GoVersion {
    /// Go 1.`minor`.`patch`.
    pub const fn one(minor: u32, patch: u32) -> Self {
        Self { major: 1, minor, patch }
    }

    /// Reads what `go version` prints.
    fn parse(text: &str) -> Option<Self> {
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
        let mut numbers = version.split(|sign: char| !sign.is_ascii_digit());
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next().and_then(|patch| patch.parse().ok()).unwrap_or(0);
        Some(Self::one(minor, patch))
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why something could not be built.
#[derive(Debug, thiserror::Error)]
pub enum GoError {
    /// There is no Go.
    #[error("Go is missing: {what} are built with it; install Go {least} or later (https://go.dev/dl), or {otherwise}")]
    Missing {
        /// What would be built.
        what: &'static str,
        /// What it has to be.
        least: GoVersion,
        /// What else would do.
        otherwise: &'static str,
    },
    /// It is too old.
    #[error("Go {found} is too old: {what} need Go {least} or later (https://go.dev/dl), or {otherwise}")]
    TooOld {
        /// What would be built.
        what: &'static str,
        /// What `go version` says.
        found: String,
        /// What it has to be.
        least: GoVersion,
        /// What else would do.
        otherwise: &'static str,
    },
    /// Go could not build it.
    #[error("failed to build {what} with Go; the end of {log}:\n{tail}", log = log.display())]
    Build {
        /// What of it.
        what: &'static str,
        /// All that Go said.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// The operating system refused something.
    #[error("failed to {attempted}")]
    Io {
        /// What was tried.
        attempted: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl GoError {
    fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        move |source| Self::Io { attempted, source }
    }

    /// Whether nothing is wrong but that this machine has no Go that would do: a reason to skip a test.
    pub fn is_missing_tool(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::TooOld { .. })
    }
}

/// What is built together from one module.
#[derive(Debug)]
pub struct Module {
    /// Its name in messages and in the cache.
    pub name: &'static str,
    /// How long it takes, for people who wait.
    pub minutes: u8,
    /// Names and texts of its files.
    pub files: &'static [(&'static str, &'static str)],
    /// Packages, and the names of the programs that come of them.
    pub programs: &'static [(&'static str, &'static str)],
    /// Arguments of `go build`, after [`BUILD_FLAGS`].
    pub flags: &'static [&'static str],
}

/// What is built for one harness.
#[derive(Debug)]
pub struct Recipe {
    /// The name of its cache.
    pub name: &'static str,
    /// All of it together, for people.
    pub what: &'static str,
    /// The variable that overrides where the cache is; otherwise it is in `${XDG_CACHE_HOME:-$HOME/.cache}/tandem`.
    pub cache_variable: &'static str,
    /// What Go has to be.
    pub least: GoVersion,
    /// What else would do where Go is missing.
    pub otherwise: &'static str,
    /// Variables of `go build`.
    pub variables: &'static [(&'static str, &'static str)],
    /// What is built.
    pub modules: &'static [Module],
    /// Names what is built from: another one if any source or flag is another.
    pub version: fn() -> String,
}

/// Where to build, and where to find Go.
#[derive(Clone, Debug)]
pub struct Builder {
    recipe: &'static Recipe,
    cache: PathBuf,
    path: Option<OsString>,
}

impl Builder {
    /// With the cache and the `PATH` of the environment.
    pub fn of_environment(recipe: &'static Recipe) -> Self {
        let cache = std::env::var_os(recipe.cache_variable).map(PathBuf::from);
        Self { recipe, cache: cache.unwrap_or_else(|| default_cache(recipe.name)), path: std::env::var_os("PATH") }
    }

    /// Another cache.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// Another `PATH` to look for Go in.
    #[must_use]
    pub fn path(mut self, path: impl Into<OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Whether there is nothing to build.
    pub fn is_built(&self) -> bool {
        let directory = self.directory();
        self.recipe.modules.iter().all(|module| module.is_in(&directory))
    }

    /// The directory of all programs, which are built now if this version never was. Blocks for many minutes then, and says
    /// so on standard error.
    pub fn build(&self) -> Result<PathBuf, GoError> {
        let directory = self.directory();
        if self.is_built() {
            return Ok(directory);
        }
        let go = self.go_version()?;
        fs::create_dir_all(&directory).map_err(GoError::io(format!("create {}", directory.display())))?;
        let lock = File::create(directory.join("lock")).map_err(GoError::io("create the lock of the build"))?;
        // Others that begin at the same time wait for the one that builds.
        lock.lock().map_err(GoError::io("lock the build"))?;
        let left: Vec<&Module> = self.recipe.modules.iter().filter(|module| !module.is_in(&directory)).collect();
        for (number, module) in left.iter().enumerate() {
            let (number, count, name, minutes) = (number + 1, left.len(), module.name, module.minutes);
            let all = directory.display();
            say(&format!("[{number}/{count}] building {name} with Go {go} into {all} (up to {minutes} min, once)"));
            self.build_module(module, &directory)?;
        }
        Ok(directory)
    }

    /// The directory that this version is in, or would be.
    fn directory(&self) -> PathBuf {
        self.cache.join((self.recipe.version)())
    }

    fn go(&self) -> Command {
        // Looked for by hand: whether `Command` uses the new or the old `PATH` depends on the platform.
        let mut all = self.path.iter().flat_map(std::env::split_paths).map(|directory| directory.join("go"));
        let mut command = Command::new(all.find(|go| go.is_file()).unwrap_or_else(|| "/nowhere/go".into()));
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        // Another Go is never downloaded on the quiet, and no workspace around the cache has a say.
        command.env("GOTOOLCHAIN", "local").env("GOWORK", "off").env_remove("GOFLAGS").stdin(Stdio::null());
        command.envs(self.recipe.variables.iter().copied());
        command
    }

    fn go_version(&self) -> Result<GoVersion, GoError> {
        let Recipe { what, least, otherwise, .. } = *self.recipe;
        let output = match self.go().arg("version").output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(GoError::Missing { what, least, otherwise });
            }
            other => other.map_err(GoError::io("run go version"))?,
        };
        let text = String::from_utf8_lossy(&output.stdout);
        match GoVersion::parse(&text) {
            Some(version) if version >= least => Ok(version),
            _ => {
                let found = text.trim().trim_start_matches("go version ").to_owned();
                Err(GoError::TooOld { what, found, least, otherwise })
            }
        }
    }

    /// Builds in a directory of its own and renames: a program is there whole, or not at all.
    fn build_module(&self, module: &Module, directory: &Path) -> Result<(), GoError> {
        let place = directory.join(format!("{}.source", module.name));
        fs::create_dir_all(&place).map_err(GoError::io(format!("create {}", place.display())))?;
        for (name, text) in module.files {
            let file = place.join(name);
            fs::write(&file, text).map_err(GoError::io(format!("write {}", file.display())))?;
        }
        let log = directory.join(format!("{}.log", module.name));
        let file = File::create(&log).map_err(GoError::io(format!("create {}", log.display())))?;
        // One build for each program of a module, except that they share what they compile.
        for (package, program) in module.programs {
            let unfinished = place.join(format!("{program}.unfinished"));
            let mut command = self.go();
            command.arg("build").args(BUILD_FLAGS).args(module.flags).arg("-o").arg(&unfinished);
            command.arg(package).current_dir(&place);
            let output = file.try_clone().and_then(|output| Ok((output, file.try_clone()?)));
            let (output, errors) = output.map_err(GoError::io("open the log twice"))?;
            let status = command.stdout(output).stderr(errors).status().map_err(GoError::io("run go build"))?;
            if !status.success() {
                return Err(GoError::Build { what: module.name, tail: tail(&log), log });
            }
            let built = fs::rename(&unfinished, directory.join(program));
            built.map_err(GoError::io(format!("rename {}", unfinished.display())))?;
        }
        Ok(())
    }
}

impl Module {
    fn is_in(&self, directory: &Path) -> bool {
        self.programs.iter().all(|(_, program)| directory.join(program).is_file())
    }
}

fn default_cache(name: &str) -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("tandem").join(name)
}

fn say(text: &str) {
    // Nobody is left to be told.
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_read_and_compared() {
        let parse = |text: &str| GoVersion::parse(text).map(|version| version.to_string());
        assert_eq!(parse("go version go1.26.8 linux/amd64").as_deref(), Some("1.26.8"));
        assert_eq!(parse("go version go1.27rc1 linux/amd64").as_deref(), Some("1.27.0"));
        assert_eq!(parse("go version go1.24 linux/arm64").as_deref(), Some("1.24.0"));
        assert_eq!(parse("gccgo"), None);
        assert!(GoVersion::parse("go1.22.9") < Some(GoVersion::one(23, 0)));
    }
}
