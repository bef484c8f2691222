//! Why pods do not become ready: what their statuses and their controllers say, as one finding. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::child::Workload;
use crate::conditions::Finding;
use crate::pods::{Report, Reports};
use crate::reasons::{self, Reason};
use crate::world::PodView;
use crate::world::pods::ContainerView;

#[cfg(test)]
mod tests;

/// Volumes and the network of a pod are there by then, unless something is missing.
const PREPARED_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// The most telling reason why not all pods are ready; nothing if they only need time. Messages name no pod where all of them
/// are alike, so that they stay the same from visit to visit.
pub fn diagnose(pods: &[PodView], workload: &Workload, reports: &Reports, now: Timestamp) -> Option<Finding> {
    if let Some(failure) = &workload.failure {
        return Some(Finding::new(refusal(failure), &**failure));
    }
    let mut waiting: Vec<&PodView> = pods.iter().filter(|pod| !pod.is_ready && !pod.is_deleting).collect();
    waiting.sort_by(|a, b| a.name.cmp(&b.name));
    let containers = waiting.iter().flat_map(|pod| &pod.containers).filter_map(container);
    let scheduling = waiting.iter().filter_map(|pod| scheduling(pod));
    let stores = waiting.iter().filter_map(|pod| store(pod, reports));
    let topologies = waiting.iter().filter_map(|pod| reports.pods.get(&pod.name)).filter_map(refused_topology);
    let preparing = waiting.iter().filter_map(|pod| preparing(pod, now));
    containers.chain(scheduling).chain(preparing).chain(stores).chain(topologies).next()
}

/// Why a pod does not serve what it was told last.
pub fn refused_topology(report: &Report) -> Option<Finding> {
    report.problem.as_ref().map(|problem| Finding::new(&reasons::TOPOLOGY_REFUSED, problem))
}

/// Why the API server lets no pod in.
pub fn refusal(message: &str) -> &'static Reason {
    if message.contains("exceeded quota") {
        &reasons::QUOTA_EXCEEDED
    } else if message.contains("violates PodSecurity") || message.contains("denied the request") {
        &reasons::POD_SECURITY
    } else {
        &reasons::REJECTED
    }
}

fn container(container: &ContainerView) -> Option<Finding> {
    let waiting = container.waiting.as_deref()?;
    let message = container.message.as_deref().unwrap_or_default();
    let name = &container.name;
    match waiting {
        "ImagePullBackOff"
        | "ErrImagePull"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "RegistryUnavailable"
        | "ImageInspectError"
        | "SignatureValidationFailed" => {
            // The node alternates between the error and the pause after it: the words of both are left out.
            let image = container.image.as_deref().map(|image| format!(" {image}")).unwrap_or_default();
            let message = format!("the image{image} of container {name} cannot be got");
            Some(Finding::new(&reasons::IMAGE_UNAVAILABLE, message))
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "PreStartHookError" => {
            Some(Finding::new(&reasons::CONTAINER_REFUSED, format!("container {name}: {message}")))
        }
        "CrashLoopBackOff" => {
            let ended = container.ended.as_deref().unwrap_or("Error");
            let code = container.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
            let advice = if ended == "OOMKilled" { "; raise its memory limit" } else { "" };
            let message = format!("container {name} ends again and again ({ended}{code}){advice}");
            Some(Finding::new(&reasons::CRASHING, message))
        }
        _ => None,
    }
}

fn scheduling(pod: &PodView) -> Option<Finding> {
    let lack = pod.missing.iter().find(|lack| &*lack.type_ == "PodScheduled")?;
    let is_volume = lack.message.contains("ersistentVolumeClaim") || lack.message.contains("persistentvolumeclaim");
    let reason = if is_volume { &reasons::VOLUME_PENDING } else { &reasons::UNSCHEDULABLE };
    Some(Finding::new(reason, &*lack.message))
}

/// The operator may not read Secrets, and cannot look which one is missing: it says what there has to be.
fn preparing(pod: &PodView, now: Timestamp) -> Option<Finding> {
    let preparing = pod.preparing.as_ref()?;
    if now.duration_since(preparing.since) < PREPARED_WITHIN {
        return None;
    }
    let mounts = preparing.mounts.join(", ");
    let message =
        format!("a node has not been able to prepare a pod for {PREPARED_WITHIN:#}: check that these exist: {mounts}");
    Some(Finding::new(&reasons::MOUNT_PENDING, message))
}

fn store(pod: &PodView, reports: &Reports) -> Option<Finding> {
    let store = &reports.pods.get(&pod.name)?.store;
    let problem = store.problem.as_deref().filter(|_| !store.ready)?;
    Some(Finding::new(&reasons::STORE_UNREACHABLE, problem))
}
