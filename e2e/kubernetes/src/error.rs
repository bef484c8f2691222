//! What can go wrong with a node.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tandem_e2e_tikv::go::GoError;

/// Why a node could not be had, or did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kubernetes could not be built.
    #[error(transparent)]
    Go(#[from] GoError),
    /// Programs of the operating system are missing.
    #[error(
        "a node needs programs that are missing here: {}; on Debian: apt-get install --no-install-recommends {}",
        programs.join(", "),
        packages.join(" ")
    )]
    Packages {
        /// What was not found.
        programs: Vec<&'static str>,
        /// The Debian packages that have it.
        packages: Vec<&'static str>,
    },
    /// Namespaces, mounts and bridges are for root.
    #[error("a node needs root: it makes a network namespace, mounts and containers; run it with sudo")]
    NotRoot,
    /// A program that was run said no.
    #[error("failed to {attempted}: {said}")]
    Command {
        /// What was tried.
        attempted: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A process ended that should run.
    #[error("{process} has ended; the end of {log}:\n{tail}", log = log.display())]
    Ended {
        /// Which one.
        process: String,
        /// All that it wrote.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
    /// It took too long.
    #[error("{what} is not ready after {} s; the last answer: {last}", waited.as_secs())]
    NotReady {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// What it said last.
        last: String,
    },
    /// Another checkout has a cluster of this name.
    #[error("the cluster {name} belongs to {directory}; choose another name with --name", directory = directory.display())]
    NameTaken {
        /// The name.
        name: String,
        /// Where the other one has its data.
        directory: PathBuf,
    },
    /// Not a name for a cluster.
    #[error("{0:?} is no name for a cluster: up to 20 of a-z, 0-9 and -, with a letter first")]
    Name(String),
    /// All addresses are taken.
    #[error("there are {0} clusters on this machine already; take one down with `tandem-cluster down --name NAME`")]
    TooMany(u8),
    /// There is no cluster of this name.
    #[error("there is no cluster {0}; `tandem-cluster up --name {0}` starts one")]
    NoCluster(String),
    /// A certificate could not be made.
    #[error("failed to make the certificate of {name}")]
    Certificate {
        /// Whose.
        name: String,
        /// Why not.
        #[source]
        source: rcgen::Error,
    },
    /// What is shared with the harness of TiKV failed: a process, PD, or a test store.
    #[error(transparent)]
    Tikv(#[from] tandem_e2e_tikv::Error),
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

impl Error {
    /// Wraps what the operating system said.
    pub(crate) fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        move |source| Self::Io { attempted, source }
    }

    /// Whether nothing is wrong but that this machine lacks a tool or a right: a reason to skip a test.
    pub fn is_missing_tool(&self) -> bool {
        match self {
            Self::Packages { .. } | Self::NotRoot => true,
            Self::Go(error) => error.is_missing_tool(),
            Self::Tikv(error) => error.is_missing_tool(),
            Self::Command { .. }
            | Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::NameTaken { .. }
            | Self::Name(_)
            | Self::TooMany(_)
            | Self::NoCluster(_)
            | Self::Certificate { .. }
            | Self::Io { .. } => false,
        }
    }
}
