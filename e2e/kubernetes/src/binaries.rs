//! Kubernetes, etcd, CoreDNS and Helm, built with Go ([`tandem_e2e_tikv::go`]) from published modules in
//! `$TANDEM_KUBERNETES_CACHE`, or else in the cache of the user.

use std::path::{Path, PathBuf};

use tandem_e2e_tikv::go::{BUILD_FLAGS, Builder, GoVersion, Module, Recipe};

use crate::Error;

/// Overrides where binaries are kept.
pub const CACHE_VARIABLE: &str = "TANDEM_KUBERNETES_CACHE";

/// How many bytes of the digest of the sources name a version.
const VERSION_BYTES: usize = 8;

static MODULES: [Module; 5] = [
    Module {
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
        flags: &[
            "-ldflags",
            "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
                       -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
        ],
    },
    Module {
        name: "etcd",
        minutes: 2,
        files: &[
            ("go.mod", include_str!("../etcd/go.mod")),
            ("go.sum", include_str!("../etcd/go.sum")),
            ("tools.go", include_str!("../etcd/tools.go")),
        ],
        programs: &[("go.etcd.io/etcd/server/v3", "etcd")],
        flags: &["-ldflags", "-s -w"],
    },
    Module {
        name: "coredns",
        minutes: 4,
        files: &[
            ("go.mod", include_str!("../coredns/go.mod")),
            ("go.sum", include_str!("../coredns/go.sum")),
            ("tools.go", include_str!("../coredns/tools.go")),
        ],
        programs: &[("github.com/coredns/coredns", "coredns")],
        flags: &["-ldflags", "-s -w"],
    },
    Module {
        name: "helm",
        minutes: 4,
        files: &[
            ("go.mod", include_str!("../helm/go.mod")),
            ("go.sum", include_str!("../helm/go.sum")),
            ("tools.go", include_str!("../helm/tools.go")),
        ],
        programs: &[("helm.sh/helm/v3/cmd/helm", "helm")],
        // Without a cluster it takes itself to be for a Kubernetes of long ago.
        flags: &[
            "-ldflags",
            "-s -w -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 \
                       -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36 \
                       -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 \
                       -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36",
        ],
    },
    Module {
        name: "pod",
        minutes: 1,
        files: &[("go.mod", include_str!("../pod/go.mod")), ("main.go", include_str!("../pod/main.go"))],
        programs: &[(".", "pod")],
        flags: &["-ldflags", "-s -w"],
    },
];

static RECIPE: Recipe = Recipe {
    name: "kubernetes",
    what: "Kubernetes and etcd",
    cache_variable: CACHE_VARIABLE,
    least: GoVersion::one(26, 0),
    otherwise: "set KUBECONFIG to run the tests on a cluster that exists",
    // Linked statically: they run in images without a C library.
    variables: &[("CGO_ENABLED", "0")],
    modules: &MODULES,
    version,
};

/// The directory that all programs were built into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries(PathBuf);

impl Binaries {
    /// Where they are, built now if this version never was: that blocks for many minutes, and is said on standard error.
    pub fn built_by(builder: &Builder) -> Result<Self, Error> {
        Ok(Self(builder.build()?))
    }

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
        MODULES.iter().flat_map(|module| module.programs).map(|(_, program)| *program)
    }
}

/// Builds them in the cache of the environment.
pub fn builder() -> Builder {
    Builder::of_environment(&RECIPE)
}

/// Names what is built from: another one if any source or flag is another.
pub fn version() -> String {
    let mut digest = blake3::Hasher::new();
    for module in &MODULES {
        let linker_flags = module.flags.last().copied().unwrap_or_default();
        let files = module.files.iter().chain(module.programs);
        for (name, text) in files.chain(&[("linker flags", linker_flags)]) {
            digest.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
        }
    }
    for flag in BUILD_FLAGS {
        digest.update(flag.as_bytes()).update(&[0]);
    }
    digest.finalize().to_hex()[..2 * VERSION_BYTES].to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tandem_e2e_tikv::go::GoError;

    use super::*;

    #[test]
    fn the_error_without_go_says_what_to_install_and_what_else_would_do() {
        let empty = tempfile::tempdir().unwrap();
        let error = Binaries::built_by(&builder().cache(empty.path()).path(empty.path())).unwrap_err();
        assert!(matches!(error, Error::Go(GoError::Missing { .. })), "{error:?}");
        assert!(error.is_missing_tool());
        let text = error.to_string();
        assert!(text.contains("install Go 1.26.0 or later") && text.contains("KUBECONFIG"), "{text}");
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn all_sources_are_part_of_the_version() {
        for module in &MODULES {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(module.name);
            let all = fs::read_dir(directory).unwrap();
            let mut there: Vec<String> = all.map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
            let mut known: Vec<String> = module.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            there.sort();
            known.sort();
            assert_eq!(there, known, "{}", module.name);
        }
    }
}
