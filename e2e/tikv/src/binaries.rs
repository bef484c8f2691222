//! Builds PD and the test store with Go, once for each version of their sources.
//!
//! The sources are part of this program, so that it does not matter where it is run. What was built lies outside of the
//! checkout, in `$TANDEM_TIKV_CACHE` or else `${XDG_CACHE_HOME:-$HOME/.cache}/tandem/tikv`, in a directory named after what
//! it was built from.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::processes::tail;
use crate::{Error, slots};

/// What Go there has to be.
pub const GO_MIN: GoVersion = GoVersion { major: 1, minor: 23, patch: 6 };
/// Overrides where binaries are kept.
pub const CACHE_VARIABLE: &str = "TANDEM_TIKV_CACHE";

/// The version of PD that is built, as it calls itself.
const PD_RELEASE: &str = "v8.1.0";
/// How many bytes of the digest of the sources name a version.
const VERSION_BYTES: usize = 8;
/// Part of the version, too: how it is built.
const BUILD_FLAGS: [&str; 2] = ["-trimpath", "-mod=readonly"];

const PD_SOURCES: [(&str, &str); 3] = [
    ("go.mod", include_str!("../pd/go.mod")),
    ("go.sum", include_str!("../pd/go.sum")),
    ("tools.go", include_str!("../pd/tools.go")),
];
const STORE_SOURCES: [(&str, &str); 14] = [
    ("go.mod", include_str!("../store/go.mod")),
    ("go.sum", include_str!("../store/go.sum")),
    ("batch.go", include_str!("../store/batch.go")),
    ("call.go", include_str!("../store/call.go")),
    ("certificates.go", include_str!("../store/certificates.go")),
    ("control.go", include_str!("../store/control.go")),
    ("faults.go", include_str!("../store/faults.go")),
    ("figures.go", include_str!("../store/figures.go")),
    ("locks.go", include_str!("../store/locks.go")),
    ("main.go", include_str!("../store/main.go")),
    ("placement.go", include_str!("../store/placement.go")),
    ("regions.go", include_str!("../store/regions.go")),
    ("service.go", include_str!("../store/service.go")),
    ("tls.go", include_str!("../store/tls.go")),
];

/// A version of Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

impl GoVersion {
    /// Reads what `go version` prints.
    fn parse(text: &str) -> Option<Self> {
        let version = text.split_whitespace().find_map(|word| word.strip_prefix("go1."))?;
        let mut numbers = version.split(|sign: char| !sign.is_ascii_digit());
        let minor = numbers.next()?.parse().ok()?;
        let patch = numbers.next().and_then(|patch| patch.parse().ok()).unwrap_or(0);
        Some(Self { major: 1, minor, patch })
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// PD itself.
    pub pd: PathBuf,
    /// The test store.
    pub store: PathBuf,
}

/// Where to build and where to find Go.
#[derive(Clone, Debug)]
pub struct Builder {
    cache: PathBuf,
    path: Option<std::ffi::OsString>,
}

impl Builder {
    /// The cache and the `PATH` of the environment.
    pub fn of_environment() -> Self {
        let cache = std::env::var_os(CACHE_VARIABLE).map(PathBuf::from);
        Self { cache: cache.unwrap_or_else(default_cache), path: std::env::var_os("PATH") }
    }

    /// Another cache.
    #[must_use]
    pub fn cache(mut self, cache: impl Into<PathBuf>) -> Self {
        self.cache = cache.into();
        self
    }

    /// Another `PATH` to look for Go in.
    #[must_use]
    pub fn path(mut self, path: impl Into<std::ffi::OsString>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// The directory that this version is in, or would be.
    pub fn directory(&self) -> PathBuf {
        self.cache.join(version())
    }

    /// The binaries, built now if this version never was. Blocks for minutes then, and says so on standard error.
    pub fn build(&self) -> Result<Binaries, Error> {
        let directory = self.directory();
        let built = Binaries { pd: directory.join("pd-server"), store: directory.join("tandem-test-store") };
        if built.pd.is_file() && built.store.is_file() {
            return Ok(built);
        }
        let go = self.go_version()?;
        fs::create_dir_all(&directory).map_err(Error::io(format!("create {}", directory.display())))?;
        let lock = File::create(directory.join("lock")).map_err(Error::io("create the lock of the build"))?;
        // Test binaries that run at the same time wait for the one that builds.
        lock.lock().map_err(Error::io("lock the build"))?;
        if !built.pd.is_file() {
            say(&format!("building PD {PD_RELEASE} with Go {go} into {} (a few minutes, once)", directory.display()));
            let release = format!("-X github.com/tikv/pd/pkg/versioninfo.PDReleaseVersion={PD_RELEASE}");
            let arguments = ["-tags", "without_dashboard", "-ldflags", &release, "github.com/tikv/pd/cmd/pd-server"];
            self.go_build("PD", &PD_SOURCES, &arguments, &built.pd)?;
        }
        if !built.store.is_file() {
            say(&format!("building the test store with Go {go} (a few minutes, once)"));
            self.go_build("the test store", &STORE_SOURCES, &["."], &built.store)?;
        }
        Ok(built)
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
        command
    }

    fn go_version(&self) -> Result<GoVersion, Error> {
        let output = match self.go().arg("version").output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::GoMissing),
            other => other.map_err(Error::io("run go version"))?,
        };
        let text = String::from_utf8_lossy(&output.stdout);
        match GoVersion::parse(&text) {
            Some(version) if version >= GO_MIN => Ok(version),
            _ => Err(Error::GoTooOld { found: text.trim().trim_start_matches("go version ").to_owned() }),
        }
    }

    /// Builds in a directory of its own and renames: a binary is there whole, or not at all.
    fn go_build(
        &self,
        what: &'static str,
        sources: &[(&str, &str)],
        arguments: &[&str],
        binary: &Path,
    ) -> Result<(), Error> {
        let source = binary.with_extension("source");
        fs::create_dir_all(&source).map_err(Error::io(format!("create {}", source.display())))?;
        for (name, text) in sources {
            let file = source.join(name);
            fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
        }
        let log = binary.with_extension("log");
        let unfinished = binary.with_extension("unfinished");
        let file = File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
        let errors = file.try_clone().map_err(Error::io("open the log twice"))?;
        let mut command = self.go();
        command.arg("build").args(BUILD_FLAGS).arg("-o").arg(&unfinished).args(arguments).current_dir(&source);
        let status = command.stdout(file).stderr(errors).status().map_err(Error::io("run go build"))?;
        if !status.success() {
            return Err(Error::Build { what, tail: tail(&log), log });
        }
        fs::rename(&unfinished, binary).map_err(Error::io(format!("rename {}", unfinished.display())))
    }
}

/// Names what is built from: another one if any source or flag is another.
pub fn version() -> String {
    let mut digest = blake3::Hasher::new();
    for (name, text) in PD_SOURCES.into_iter().chain(STORE_SOURCES) {
        digest.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    for flag in BUILD_FLAGS.into_iter().chain([PD_RELEASE]) {
        digest.update(flag.as_bytes()).update(&[0]);
    }
    slots::hex(&digest.finalize().as_bytes()[..VERSION_BYTES])
}

fn default_cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("tandem").join("tikv")
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
        assert!(GoVersion::parse("go1.22.9") < Some(GO_MIN));
    }

    #[test]
    fn the_error_without_go_says_what_to_install_and_what_else_would_do() {
        let empty = tempfile::tempdir().unwrap();
        let builder = Builder::of_environment().cache(empty.path()).path(empty.path());
        let error = builder.build().unwrap_err();
        assert!(matches!(error, Error::GoMissing), "{error:?}");
        assert!(error.is_missing_tool());
        let text = error.to_string();
        assert!(text.contains("install Go 1.23.6 or later") && text.contains("TANDEM_PD_ENDPOINTS"), "{text}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn all_sources_are_part_of_the_version() {
        let there = |directory: &str| {
            let all = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap();
            let mut names: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let known = |sources: &[(&str, &str)]| {
            let mut names: Vec<String> = sources.iter().map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(there("pd"), known(&PD_SOURCES));
        assert_eq!(there("store"), known(&STORE_SOURCES));
    }
}
