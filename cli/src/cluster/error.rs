//! Why a cluster does not say what was asked: each reason with what to do about it.

use kube::core::Status;

use super::connect::API_TIMEOUT;
use crate::program::Program;

/// What was asked of the API server, as a rule of a Role would say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// `list`
    pub(crate) verb: &'static str,
    /// `tandem.dev`; empty for the kinds of Kubernetes itself.
    pub(crate) group: String,
    /// `pods/log`
    pub(crate) resource: String,
    /// `orders-0`, if one object was meant.
    pub(crate) name: Option<String>,
}

impl Asked {
    /// One pod, or a part of it.
    pub(crate) fn of_pod(verb: &'static str, resource: &str, name: &str) -> Self {
        Self { verb, group: String::new(), resource: resource.to_owned(), name: Some(name.to_owned()) }
    }

    /// `list functions.tandem.dev`, `get pods/log of orders-0`
    pub(super) fn text(&self) -> String {
        let dot = if self.group.is_empty() { "" } else { "." };
        let name = self.name.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
        format!("{} {}{dot}{}{name}", self.verb, self.resource, self.group)
    }

    /// The rule that allows it.
    fn rule(&self) -> String {
        // Forwarding a port is asked for by GET, and counts as making something in newer clusters.
        let verbs = if self.resource == "pods/portforward" { "create, get" } else { self.verb };
        format!("{{apiGroups: [\"{}\"], resources: [{}], verbs: [{verbs}]}}", self.group, self.resource)
    }
}

/// See the module. All of these end the command with status 2.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// There is nothing that says where a cluster is.
    #[error("there is no kubeconfig: {0}; name one by --kubeconfig FILE or the variable KUBECONFIG")]
    NoKubeconfig(String),
    /// There is a kubeconfig that makes no sense.
    #[error("the kubeconfig cannot be used: {0}; `kubectl config view` shows it")]
    Kubeconfig(String),
    /// The context that was named, or is said to be the current one, does not exist.
    #[error("the kubeconfig has no context {wanted:?}; {}", contexts_text(known))]
    NoContext {
        /// Which one.
        wanted: String,
        /// Those that it has.
        known: Vec<String>,
    },
    /// Neither the user nor the kubeconfig chooses.
    #[error("the kubeconfig has no current context; name one by --context; {}", contexts_text(.0))]
    NoCurrentContext(Vec<String>),
    /// Nobody answers.
    #[error(
        "the API server at {url} cannot be reached: {why}; is the cluster up, and is the context the right one? (--context)"
    )]
    Unreachable {
        /// Where it should be.
        url: String,
        /// What the network said.
        why: String,
    },
    /// It takes too long.
    #[error("the API server at {url} did not answer within {} s when asked to {asked}", API_TIMEOUT.as_secs())]
    Timeout {
        /// Where it is.
        url: String,
        /// What was asked.
        asked: String,
    },
    /// It does not know who asks.
    #[error(
        "the API server at {url} does not accept the credentials of the kubeconfig: {why}; log in anew, or choose another --context"
    )]
    Unauthorized {
        /// Where it is.
        url: String,
        /// What it says.
        why: String,
    },
    /// It knows who asks, and says no.
    #[error("you may not {asked} in namespace {namespace}; a Role there needs the rule {rule}")]
    Forbidden {
        /// What was asked.
        asked: String,
        /// Where.
        namespace: String,
        /// The rule that allows it.
        rule: String,
    },
    /// Our kinds are not installed.
    #[error("the cluster does not know {0}.tandem.dev: install the chart tandem-crds, or choose another --context")]
    DefinitionMissing(String),
    /// There is nobody to ask.
    #[error(
        "namespace {namespace} has no FunctionRuntime, so nothing runs in it: apply one, or name another namespace by -n"
    )]
    NoRuntime {
        /// Where it was looked for.
        namespace: String,
    },
    /// There is somebody to ask, who cannot answer yet.
    #[error("no pod of FunctionRuntime {runtime} is ready ({pods}); `{} status{again}` tells why", Program::current().name())]
    NoPodReady {
        /// The runtime.
        runtime: String,
        /// How its pods are.
        pods: String,
        /// Where it is, to be typed again.
        again: String,
    },
    /// The way to a pod broke.
    #[error("pod {pod} cannot be reached through the API server: {why}")]
    Pod {
        /// Which one.
        pod: String,
        /// What broke.
        why: String,
    },
    /// The API server answers something that nobody expects.
    #[error("failed to {asked}: {why}")]
    Refused {
        /// What was asked.
        asked: String,
        /// What it says.
        why: String,
    },
}

fn contexts_text(contexts: &[String]) -> String {
    if contexts.is_empty() { "it has none".to_owned() } else { format!("it has {}", contexts.join(", ")) }
}

impl Error {
    /// Translates an error of the client.
    pub(super) fn new(asked: &Asked, url: &str, namespace: &str, error: kube::Error) -> Self {
        let (url, text) = (url.to_owned(), asked.text());
        match error {
            kube::Error::Api(status) => Self::answered(asked, url, namespace, &status),
            kube::Error::Auth(error) => Self::Unauthorized { url, why: root_cause(&error) },
            kube::Error::HyperError(error) => Self::Unreachable { url, why: root_cause(&error) },
            kube::Error::Service(error) => Self::Unreachable { url, why: root_cause(&*error) },
            error => Self::Refused { asked: text, why: root_cause(&error) },
        }
    }

    fn answered(asked: &Asked, url: String, namespace: &str, status: &Status) -> Self {
        let (text, why) = (asked.text(), status.message.clone());
        match status.code {
            401 => Self::Unauthorized { url, why },
            403 => Self::Forbidden { asked: text, namespace: namespace.to_owned(), rule: asked.rule() },
            404 if asked.name.is_none() && !asked.group.is_empty() => Self::DefinitionMissing(asked.resource.clone()),
            _ => Self::Refused { asked: text, why },
        }
    }
}

/// What began it.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
