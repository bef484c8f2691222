//! Revisions: what makes the pods of a function, as a name.

use serde_json::json;
use tandem_crds::resources::FunctionSpec;
use tandem_crds::resources::status::RevisionState;

use crate::child::digest;
use crate::names::WORKER_PORT;

/// How many hexadecimal digits a revision has.
const REVISION_DIGITS: usize = 8;
/// Longest name of a Service.
const NAME_BYTES_MAX: usize = 63;

/// The revision of a spec: other pods, another revision. The number of replicas makes none.
pub fn revision(spec: &FunctionSpec) -> Option<String> {
    let image = spec.image.as_ref()?;
    let pods = json!({
        "image": image,
        "args": spec.args,
        "env": spec.env,
        "resources": spec.resources,
        "podTemplate": spec.pod_template,
    });
    let mut name = digest(pods.to_string().as_bytes());
    name.truncate(REVISION_DIGITS);
    Some(name)
}

/// The name of the Deployment, the Service and the budget of a revision.
pub fn child_name(function: &str, revision: &str) -> String {
    let name = format!("{function}-{revision}");
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let mut mark = digest(function.as_bytes());
    mark.truncate(REVISION_DIGITS);
    let kept = NAME_BYTES_MAX - revision.len() - mark.len() - 2;
    format!("{}-{mark}-{revision}", function.get(..kept).unwrap_or_default().trim_end_matches('-'))
}

/// A name that stands for every worker of a revision.
pub fn url(namespace: &str, function: &str, revision: &str) -> String {
    format!("http://{}.{namespace}.svc:{WORKER_PORT}", child_name(function, revision))
}

/// Whether a revision has pods, and the runtimes know it.
pub fn is_alive(state: RevisionState) -> bool {
    match state {
        RevisionState::Starting | RevisionState::Ramping | RevisionState::Active | RevisionState::Draining => true,
        RevisionState::Failed => false,
    }
}

/// Whether a revision will be in another state by itself.
pub fn is_moving(state: RevisionState) -> bool {
    match state {
        RevisionState::Starting | RevisionState::Ramping | RevisionState::Draining => true,
        RevisionState::Active | RevisionState::Failed => false,
    }
}
