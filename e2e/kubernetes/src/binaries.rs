//! Builds Kubernetes, etcd, CoreDNS and Helm with Go from published modules, once for each version of what they are built
//! from.
//!
//! The module files are part of this program, so that it does not matter where it is run. What was built lies outside of the
//! checkout, in `$TANDEM_KUBERNETES_CACHE` or else `${XDG_CACHE_HOME:-$HOME/.cache}/tandem/kubernetes`, in a directory named
//! after what it was built from.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Error;
use crate::commands::tail;

/// What Go there has to be.
pub const GO_MIN: GoVersion = GoVersion { major: 1, minor: 26, patch: 0 };
/// Overrides where binaries are kept.
pub const CACHE_VARIABLE: &str = "TANDEM_KUBERNETES_CACHE";

/// How many bytes of the digest of the sources name a version.
const VERSION_BYTES: usize = 8;
/// Part of the version, too: how it is built.
const BUILD_FLAGS: [&str; 2] = ["-trimpath", "-mod=readonly"];

/// What is built together from one module.
struct Source {
    /// Its name in messages and in the cache.
    name: &'static str,
    /// How long it takes, for people who wait.
    minutes: u8,
    files: &'static [(&'static str, &'static str)],
    /// Packages, and the names of the programs that come of them.
    programs: &'static [(&'static str, &'static str)],
    linker_flags: &'static str,
}

const SOURCES: [Source; 5] = [
    Source {
        name: "servers",
        minutes: 12,
        files: &[
            ("go.mod", include_str!("../servers/go.mod")),
            ("go.sum", include_str!("../servers/go.sum")),
            ("tools.go", include_str!("../servers/tools.go")),
        ],
        programs: &[
            ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
            ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
            ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
            ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
            ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
            ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ],
        linker_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                       -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
    },
    Source {
        name: "etcd",
        minutes: 2,
        files: &[
            ("go.mod", include_str!("../etcd/go.mod")),
            ("go.sum", include_str!("../etcd/go.sum")),
            ("tools.go", include_str!("../etcd/tools.go")),
        ],
        programs: &[("go.etcd.io/etcd/server/v3", "etcd")],
        linker_flags: "-s -w",
    },
    Source {
        name: "coredns",
        minutes: 4,
        files: &[
            ("go.mod", include_str!("../coredns/go.mod")),
            ("go.sum", include_str!("../coredns/go.sum")),
            ("tools.go", include_str!("../coredns/tools.go")),
        ],
        programs: &[("github.com/coredns/coredns", "coredns")],
        linker_flags: "-s -w",
    },
    Source {
        name: "helm",
        minutes: 4,
        files: &[
            ("go.mod", include_str!("../helm/go.mod")),
            ("go.sum", include_str!("../helm/go.sum")),
            ("tools.go", include_str!("../helm/tools.go")),
        ],
        programs: &[("helm.sh/helm/v3/cmd/helm", "helm")],
        // Without a cluster it takes itself to be for a Kubernetes of long ago.
        linker_flags: "-s -w -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
                       -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36 \
                       -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
                       -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36",
    },
    Source {
        name: "pod",
        minutes: 1,
        files: &[("go.mod", include_str!("../pod/go.mod")), ("main.go", include_str!("../pod/main.go"))],
        programs: &[(".", "pod")],
        linker_flags: "-s -w",
    },
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

/// The directory that all programs were built into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// One of them, such as `kubectl`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// All their names.
    pub fn names() -> impl Iterator<Item = &'static str> {
        SOURCES.iter().flat_map(|source| source.programs).map(|(_, program)| *program)
    }
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

    /// Whether there is nothing to build.
    pub fn is_built(&self) -> bool {
        let directory = self.cache.join(version());
        Binaries::names().all(|name| directory.join(name).is_file())
    }

    /// The programs, built now if this version never was. Blocks for many minutes then, and says so on standard error.
    pub fn build(&self) -> Result<Binaries, Error> {
        let directory = self.cache.join(version());
        if self.is_built() {
            return Ok(Binaries(directory));
        }
        let missing = |source: &&Source| !source.programs.iter().all(|(_, name)| directory.join(name).is_file());
        let go = self.go_version()?;
        fs::create_dir_all(&directory).map_err(Error::io(format!("create {}", directory.display())))?;
        let lock = File::create(directory.join("lock")).map_err(Error::io("create the lock of the build"))?;
        // Others that begin at the same time wait for the one that builds.
        lock.lock().map_err(Error::io("lock the build"))?;
        let left: Vec<&Source> = SOURCES.iter().filter(missing).collect();
        for (number, source) in left.iter().enumerate() {
            let (number, count, name, minutes) = (number + 1, left.len(), source.name, source.minutes);
            let all = directory.display();
            say(&format!("[{number}/{count}] building {name} with Go {go} into {all} (up to {minutes} min, once)"));
            self.go_build(source, &directory)?;
        }
        Ok(Binaries(directory))
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
        // Linked statically: they run in images without a C library.
        command.env("CGO_ENABLED", "0");
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

    /// Builds in a directory of its own and renames: a program is there whole, or not at all.
    fn go_build(&self, source: &Source, directory: &Path) -> Result<(), Error> {
        let place = directory.join(format!("{}.source", source.name));
        fs::create_dir_all(&place).map_err(Error::io(format!("create {}", place.display())))?;
        for (name, text) in source.files {
            let file = place.join(name);
            fs::write(&file, text).map_err(Error::io(format!("write {}", file.display())))?;
        }
        let log = directory.join(format!("{}.log", source.name));
        let file = File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
        let errors = file.try_clone().map_err(Error::io("open the log twice"))?;
        // One build for each program of a module, except that they share what they compile.
        for (package, program) in source.programs {
            let unfinished = place.join(format!("{program}.unfinished"));
            let mut command = self.go();
            command.arg("build").args(BUILD_FLAGS).args(["-ldflags", source.linker_flags]).arg("-o").arg(&unfinished);
            command.arg(package).current_dir(&place);
            let (output, errors) = (file.try_clone(), errors.try_clone());
            let output = output.and_then(|output| Ok((output, errors?))).map_err(Error::io("open the log twice"))?;
            let status = command.stdout(output.0).stderr(output.1).status().map_err(Error::io("run go build"))?;
            if !status.success() {
                return Err(Error::Build { what: source.name, tail: tail(&log), log });
            }
            let program = directory.join(program);
            fs::rename(&unfinished, &program).map_err(Error::io(format!("rename {}", unfinished.display())))?;
        }
        Ok(())
    }
}

/// Names what is built from: another one if any source or flag is another.
pub fn version() -> String {
    let mut digest = blake3::Hasher::new();
    for source in &SOURCES {
        let files = source.files.iter().chain(source.programs);
        for (name, text) in files.chain(&[("linker flags", source.linker_flags)]) {
            digest.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
        }
    }
    for flag in BUILD_FLAGS {
        digest.update(flag.as_bytes()).update(&[0]);
    }
    digest.finalize().to_hex()[..2 * VERSION_BYTES].to_owned()
}

fn default_cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("tandem").join("kubernetes")
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
        assert_eq!(parse("gccgo"), None);
        assert!(GoVersion::parse("go1.25.9") < Some(GO_MIN));
    }

    #[test]
    fn the_error_without_go_says_what_to_install_and_what_else_would_do() {
        let empty = tempfile::tempdir().unwrap();
        let error = Builder::of_environment().cache(empty.path()).path(empty.path()).build().unwrap_err();
        assert!(matches!(error, Error::GoMissing), "{error:?}");
        assert!(error.is_missing_tool());
        let text = error.to_string();
        assert!(text.contains("install Go 1.26.0 or later") && text.contains("KUBECONFIG"), "{text}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn all_sources_are_part_of_the_version() {
        for source in &SOURCES {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(source.name);
            let all = fs::read_dir(directory).unwrap();
            let mut there: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
            let mut known: Vec<String> = source.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            there.sort();
            known.sort();
            assert_eq!(there, known, "{}", source.name);
        }
    }
}
