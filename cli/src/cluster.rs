//! A cluster as people reach it: with their kubeconfig and their rights, through the API server.
//!
//! **Invariant:** nothing here changes an object of the cluster.

mod connect;
mod error;
pub(crate) mod forward;
mod objects;
mod pods;

use std::path::PathBuf;

pub(crate) use error::Error;
pub(crate) use objects::{Objects, is_true};
pub(crate) use pods::{Pod, RUNTIME_CONTAINER, WORKER_CONTAINER, function_pods, runtime_pods};

/// Which cluster, and where in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// Ask the cluster of the kubeconfig, not a runtime on this machine. The options below imply it, and so does `kubectl tandem`.
    #[arg(long, help_heading = "Cluster")]
    pub(crate) cluster: bool,
    /// The namespace; that of the context without it.
    #[arg(short, long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig; the current one without it.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(crate) context: Option<String>,
    /// The kubeconfig; without it those that KUBECONFIG names, or ~/.kube/config.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(crate) kubeconfig: Option<PathBuf>,
}

impl Options {
    /// Whether a cluster was asked for.
    pub(crate) fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// These options, and where they say nothing, those in front of the command.
    pub(crate) fn or(&mut self, outer: &Self) {
        self.cluster |= outer.cluster;
        self.namespace = self.namespace.take().or_else(|| outer.namespace.clone());
        self.context = self.context.take().or_else(|| outer.context.clone());
        self.kubeconfig = self.kubeconfig.take().or_else(|| outer.kubeconfig.clone());
    }

    /// The same as text, to be typed again behind a command that is suggested.
    pub(crate) fn again(&self, namespace: &str) -> String {
        let mut text = format!(" -n {namespace}");
        if let Some(context) = &self.context {
            text.push_str(&format!(" --context {context}"));
        }
        if let Some(kubeconfig) = &self.kubeconfig {
            text.push_str(&format!(" --kubeconfig {}", kubeconfig.display()));
        }
        text
    }
}

/// A connection to an API server, for one namespace.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: kube::Client,
    /// Where it is, for messages.
    url: String,
    /// The namespace that is meant.
    pub(crate) namespace: String,
    /// What to type behind a command to mean the same cluster and namespace.
    pub(crate) again: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_the_command_counts_more() {
        let outer = Options { namespace: Some("a".into()), context: Some("c".into()), ..Options::default() };
        let mut inner = Options { namespace: Some("b".into()), ..Options::default() };
        inner.or(&outer);
        assert_eq!((inner.namespace.as_deref(), inner.context.as_deref()), (Some("b"), Some("c")));
        assert!(inner.is_given() && !Options::default().is_given());
        assert_eq!(inner.again("b"), " -n b --context c");
    }
}
