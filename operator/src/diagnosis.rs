//! Why pods do not become ready: what their statuses and their controllers say, as one finding. Pure.
//!
//! **Invariant:** the message says nothing that differs from visit to visit, such as how long a node waits before it tries
//! again: a status that changes is written, and wakes up everybody who watches.

use crate::child::Workload;
use crate::conditions::Finding;
use crate::failure;
use crate::pods::Reports;
use crate::reasons::{self, Reason};
use crate::world::PodView;
use crate::world::pods::{ContainerView, Lack};

/// What a node says while it cannot get an image.
const NO_IMAGE: [&str; 6] = [
    "ErrImageNeverPull",
    "ErrImagePull",
    "ImageInspectError",
    "ImagePullBackOff",
    "InvalidImageName",
    "RegistryUnavailable",
];
/// What a node says when it cannot make a container from its specification.
const NO_CONTAINER: [&str; 3] = ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"];
/// What a node says while it waits before it starts a container again.
const BACK_OFF: &str = "CrashLoopBackOff";
/// What a runtime says last when it gives its store up.
const STORE_WORDS: [&str; 2] = ["failed to open the TiKV", "did not open within"];
/// What the scheduler says of a pod whose volume is not there.
const VOLUME_WORD: &str = "persistentvolumeclaim";

/// The most telling reason why not all pods are ready; nothing if they only need time.
pub fn diagnose(pods: &[PodView], workload: &Workload, reports: &Reports) -> Option<Finding> {
    let waiting: Vec<&PodView> = pods.iter().filter(|pod| !pod.is_ready && !pod.is_deleting).collect();
    let each = |look: fn(&PodView) -> Option<Finding>| waiting.iter().find_map(|pod| look(pod));
    let refused = workload
        .failure
        .as_deref()
        .map(|message| Finding::new(failure::of_forbidden(message, &reasons::REJECTED), message));
    refused.or_else(|| each(of_containers)).or_else(|| each(of_conditions)).or_else(|| of_store(&waiting, reports))
}

fn of_containers(pod: &PodView) -> Option<Finding> {
    pod.containers.iter().find_map(|container| of_container(pod, container))
}

fn of_container(pod: &PodView, container: &ContainerView) -> Option<Finding> {
    let ContainerView { name, waiting, message, .. } = container;
    let waiting = waiting.as_deref().unwrap_or_default();
    let finding =
        |reason: &'static Reason, text: String| Some(Finding::new(reason, format!("pod {}: {text}", pod.name)));
    if NO_IMAGE.contains(&waiting) {
        let text =
            format!("no node can get the image of container {name}; `kubectl describe pod {}` says why", pod.name);
        return finding(&reasons::IMAGE_UNAVAILABLE, text);
    }
    if NO_CONTAINER.contains(&waiting) {
        let message = message.as_deref().unwrap_or(waiting);
        return finding(&reasons::CONTAINER_REFUSED, format!("container {name} cannot be made: {message}"));
    }
    let exit_code = container.exit_code.filter(|code| *code != 0);
    if waiting != BACK_OFF && (exit_code.is_none() || container.restarts == 0) {
        return None;
    }
    let last_words = container.last_words.as_deref().unwrap_or_default();
    if let Some(words) = last_words.lines().rev().find(|line| STORE_WORDS.iter().any(|word| line.contains(word))) {
        return finding(&reasons::STORE_UNREACHABLE, words.trim().to_owned());
    }
    let how = match (container.ended.as_deref(), exit_code) {
        (Some("OOMKilled"), _) => "needs more memory than it may have".to_owned(),
        (_, Some(code)) => format!("ends again and again, with exit code {code}"),
        (_, None) => "ends again and again".to_owned(),
    };
    finding(&reasons::CRASHING, format!("container {name} {how}"))
}

fn of_conditions(pod: &PodView) -> Option<Finding> {
    let Lack { message, .. } = pod.missing.iter().find(|lack| &*lack.type_ == "PodScheduled")?;
    let is_volume = message.to_lowercase().contains(VOLUME_WORD);
    let reason = if is_volume { &reasons::VOLUME_PENDING } else { &reasons::UNSCHEDULABLE };
    Some(Finding::new(reason, format!("pod {}: {message}", pod.name)))
}

/// A runtime that runs and is not ready says itself what is missing.
fn of_store(waiting: &[&PodView], reports: &Reports) -> Option<Finding> {
    waiting.iter().find_map(|pod| {
        let store = &reports.pods.get(&pod.name)?.store;
        let problem = store.problem.as_deref().filter(|_| !store.ready)?;
        Some(Finding::new(&reasons::STORE_UNREACHABLE, format!("pod {}: {problem}", pod.name)))
    })
}

#[cfg(test)]
mod tests {
    use crate::pods::{Report, StoreReport};

    use super::*;

    fn pod(containers: Vec<ContainerView>, missing: Vec<Lack>) -> PodView {
        PodView { name: "shop-0".into(), containers, missing, ..PodView::default() }
    }

    fn waiting(reason: &str, message: &str) -> ContainerView {
        let (waiting, message) = (Some(reason.into()), Some(message.into()));
        ContainerView { name: "runtime".into(), waiting, message, ..ContainerView::default() }
    }

    fn found(pods: &[PodView], workload: &Workload) -> Option<(&'static str, String)> {
        diagnose(pods, workload, &Reports::default()).map(|finding| (finding.reason.name, finding.message))
    }

    fn alone(pod: PodView) -> (&'static str, String) {
        found(&[pod], &Workload::default()).expect("there is a reason")
    }

    #[test]
    fn pods_that_are_ready_or_only_need_time_have_no_reason() {
        let ready = PodView { is_ready: true, ..pod(vec![waiting("ImagePullBackOff", "")], Vec::new()) };
        let leaving = PodView { is_deleting: true, ..pod(vec![waiting("CrashLoopBackOff", "")], Vec::new()) };
        let new = pod(vec![waiting("ContainerCreating", ""), ContainerView::default()], Vec::new());
        assert_eq!(found(&[ready, leaving, new], &Workload::default()), None);
    }

    #[test]
    fn images_that_cannot_be_had_are_one_reason_whatever_the_node_calls_it_now() {
        let told = NO_IMAGE.map(|word| alone(pod(vec![waiting(word, "back-off 10s")], Vec::new())));
        assert!(told.windows(2).all(|pair| pair[0] == pair[1]), "{told:?}");
        assert_eq!(told[0].0, "ImageUnavailable");
        assert!(told[0].1.starts_with("pod shop-0: no node can get the image of container runtime"), "{}", told[0].1);
    }

    #[test]
    fn containers_that_cannot_be_made_say_why() {
        let told = alone(pod(vec![waiting("CreateContainerConfigError", "secret \"tls\" not found")], Vec::new()));
        let text = "pod shop-0: container runtime cannot be made: secret \"tls\" not found";
        assert_eq!(told, ("ContainerRefused", text.to_owned()));
    }

    #[test]
    fn containers_that_end_again_and_again_say_how() {
        let ended = |waiting: Option<&str>, ended: &str, code| ContainerView {
            name: "worker".into(),
            waiting: waiting.map(Into::into),
            ended: Some(ended.into()),
            exit_code: Some(code),
            restarts: 1,
            ..ContainerView::default()
        };
        let told = alone(pod(vec![ended(Some(BACK_OFF), "Error", 3)], Vec::new()));
        assert_eq!(
            told,
            ("Crashing", "pod shop-0: container worker ends again and again, with exit code 3".to_owned())
        );
        // The same while it runs once more for a moment.
        assert_eq!(alone(pod(vec![ended(None, "Error", 3)], Vec::new())), told);
        let told = alone(pod(vec![ended(Some(BACK_OFF), "OOMKilled", 137)], Vec::new()));
        assert!(told.1.contains("needs more memory"), "{}", told.1);
        assert_eq!(found(&[pod(vec![ended(None, "Completed", 0)], Vec::new())], &Workload::default()), None);
    }

    #[test]
    fn a_runtime_that_gives_its_store_up_names_it() {
        let words = "2026-11-22 INFO starting\nerror: failed to open the TiKV at pd:2379, prefix shop: no answer\n";
        let container = ContainerView {
            name: "runtime".into(),
            waiting: Some(BACK_OFF.into()),
            exit_code: Some(1),
            last_words: Some(words.into()),
            ..ContainerView::default()
        };
        let told = alone(pod(vec![container], Vec::new()));
        assert_eq!(told.0, "StoreUnreachable");
        assert!(told.1.ends_with("failed to open the TiKV at pd:2379, prefix shop: no answer"), "{}", told.1);
    }

    #[test]
    fn a_runtime_that_lost_its_store_says_so_itself() {
        let pods = [pod(Vec::new(), Vec::new())];
        let said = |ready| {
            let store = StoreReport { ready, problem: Some("no answer".to_owned()) };
            let report = Report { store, ..Report::default() };
            let reports = Reports { pods: [("shop-0".into(), report)].into() };
            diagnose(&pods, &Workload::default(), &reports).map(|finding| finding.reason.name)
        };
        assert_eq!((said(false), said(true)), (Some("StoreUnreachable"), None));
    }

    #[test]
    fn pods_without_a_node_say_what_the_scheduler_says() {
        let lack = |message: &str| Lack {
            type_: "PodScheduled".into(),
            reason: "Unschedulable".into(),
            message: message.into(),
        };
        let told = alone(pod(Vec::new(), vec![lack("0/1 nodes are available: 1 Insufficient cpu.")]));
        let text = "pod shop-0: 0/1 nodes are available: 1 Insufficient cpu.";
        assert_eq!(told, ("Unschedulable", text.to_owned()));
        let told = alone(pod(Vec::new(), vec![lack("pod has unbound immediate PersistentVolumeClaims")]));
        assert_eq!(told.0, "VolumePending");
    }

    #[test]
    fn pods_that_may_not_be_made_come_first() {
        let of = |message: &str| {
            let workload = Workload { failure: Some(message.into()), ..Workload::default() };
            found(&[pod(vec![waiting("ErrImagePull", "")], Vec::new())], &workload).map(|(reason, _)| reason)
        };
        assert_eq!(of("pods \"a\" is forbidden: exceeded quota: small"), Some("QuotaExceeded"));
        assert_eq!(of("pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\""), Some("PodSecurity"));
        assert_eq!(of("pods \"a\" is forbidden: error looking up service account"), Some("Rejected"));
        assert_eq!(of("admission webhook \"x\" denied the request"), Some("Rejected"));
    }
}
