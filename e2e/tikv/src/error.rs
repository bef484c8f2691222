//! What can go wrong with a cluster.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::go::GoError;

/// Why a cluster could not be had, or did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// PD and the store could not be built.
    #[error(transparent)]
    Go(#[from] GoError),
    /// A process ended that should run.
    #[error("{process} has ended ({status}); the end of {log}:\n{tail}", log = log.display())]
    Ended {
        /// Which one.
        process: String,
        /// How.
        status: String,
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
    /// A store did not do what it was asked for over its control port.
    #[error("store {store} refused {request}: {answer}")]
    Refused {
        /// Its number.
        store: usize,
        /// Method and path.
        request: String,
        /// Why.
        answer: String,
    },
    /// The cluster was not started here.
    #[error("cannot {0}: the cluster of TANDEM_PD_ENDPOINTS was not started by us")]
    NotOurs(&'static str),
    /// There is no such store.
    #[error("there is no store {store}: the cluster has {count}, counted from 0")]
    NoSuchStore {
        /// What was asked for.
        store: usize,
        /// How many there are.
        count: usize,
    },
    /// A state file of another version.
    #[error("{path} has format {found}, this is for {expected}; remove the directory and start anew", path = path.display())]
    Format {
        /// The state file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        expected: u32,
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
    /// The cluster that all tests of this binary share could not be started.
    #[error(transparent)]
    Shared(Arc<Self>),
}

impl Error {
    /// Wraps what the operating system said.
    pub(crate) fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        move |source| Self::Io { attempted, source }
    }

    /// Whether nothing is wrong but that this machine has no Go: a reason to skip a test.
    pub fn is_missing_tool(&self) -> bool {
        match self {
            Self::Go(error) => error.is_missing_tool(),
            Self::Shared(error) => error.is_missing_tool(),
            Self::Ended { .. }
            | Self::NotReady { .. }
            | Self::Refused { .. }
            | Self::NotOurs(_)
            | Self::NoSuchStore { .. }
            | Self::Format { .. }
            | Self::Io { .. } => false,
        }
    }
}
