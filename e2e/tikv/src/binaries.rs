//! PD and the test store, built with Go ([`crate::go`]) in `$TANDEM_TIKV_CACHE`, or else in the cache of the user.

use std::path::PathBuf;

use crate::go::{BUILD_FLAGS, Builder, GoVersion, Module, Recipe};
use crate::{Error, slots};

/// Overrides where binaries are kept.
pub const CACHE_VARIABLE: &str = "TANDEM_TIKV_CACHE";

/// The version of PD that is built, as it calls itself.
const PD_RELEASE: &str = "v8.1.0";
/// How many bytes of the digest of the sources name a version.
const VERSION_BYTES: usize = 8;

const PD_SOURCES: [(&str, &str); 3] = [
    ("go.mod", include_str!("../pd/go.mod")),
    ("go.sum", include_str!("../pd/go.sum")),
    ("tools.go", include_str!("../pd/tools.go")),
];
const STORE_SOURCES: [(&str, &str); 15] = [
    ("go.mod", include_str!("../store/go.mod")),
    ("go.sum", include_str!("../store/go.sum")),
    ("backwards.go", include_str!("../store/backwards.go")),
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

static RECIPE: Recipe = Recipe {
    name: "tikv",
    what: "PD and the test stores",
    cache_variable: CACHE_VARIABLE,
    least: GoVersion::one(23, 6),
    otherwise: "set TANDEM_PD_ENDPOINTS to the PD endpoints of a TiKV cluster",
    variables: &[],
    modules: &[
        Module {
            name: "pd",
            minutes: 4,
            files: &PD_SOURCES,
            programs: &[("github.com/tikv/pd/cmd/pd-server", "pd-server")],
            flags: &[
                "-tags",
                "without_dashboard",
                "-ldflags",
                "-X github.com/tikv/pd/pkg/versioninfo.PDReleaseVersion=v8.1.0",
            ],
        },
        Module {
            name: "test-store",
            minutes: 4,
            files: &STORE_SOURCES,
            programs: &[(".", "tandem-test-store")],
            flags: &[],
        },
    ],
    version,
};

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    /// PD itself.
    pub pd: PathBuf,
    /// The test store.
    pub store: PathBuf,
}

impl Binaries {
    /// Where they are, built now if this version never was: that blocks for minutes, and is said on standard error.
    pub fn built_by(builder: &Builder) -> Result<Self, Error> {
        let directory = builder.build()?;
        Ok(Self { pd: directory.join("pd-server"), store: directory.join("tandem-test-store") })
    }
}

/// Builds them in the cache of the environment.
pub fn builder() -> Builder {
    Builder::of_environment(&RECIPE)
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::go::GoError;

    #[test]
    fn pd_calls_itself_what_its_version_says() {
        let flags: Vec<_> = RECIPE.modules.iter().flat_map(|module| module.flags).collect();
        assert!(flags.iter().any(|flag| flag.ends_with(&format!("PDReleaseVersion={PD_RELEASE}"))), "{flags:?}");
    }

    #[test]
    fn the_error_without_go_says_what_to_install_and_what_else_would_do() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::built_by(&builder().cache(empty.path()).path(empty.path())).unwrap_err();
        assert!(matches!(error, Error::Go(GoError::Missing { .. })), "{error:?}");
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
