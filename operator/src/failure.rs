//! What a failed call means for the resource that it was for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::conditions::Finding;
use crate::kubeapi::Error;
use crate::reasons;

/// The finding for an error of a write.
pub fn finding(error: &Error) -> Finding {
    let message = error.message();
    let reason = match error {
        Error::Transient { .. } | Error::Timeout { .. } | Error::Gone { .. } => &reasons::RETRYING,
        Error::Forbidden { .. } if message.contains("exceeded quota") => &reasons::QUOTA_EXCEEDED,
        Error::Forbidden { .. } if message.contains("denied the request") => &reasons::POD_SECURITY,
        Error::Forbidden { .. } => &reasons::FORBIDDEN,
        Error::Rejected { .. } => &reasons::REJECTED,
        Error::Taken { .. } => &reasons::NAME_TAKEN,
    };
    Finding::new(reason, message)
}

/// Whether an error is nobody's business yet: it may pass, and the object is ready as it was.
pub fn is_quiet(applied: &Result<(), Error>, known: &[Condition]) -> bool {
    let is_ready = known.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    is_ready && applied.as_ref().is_err_and(Error::is_transient)
}
