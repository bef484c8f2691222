//! What a failed call means for the resource that it was for.

use crate::conditions::Finding;
use crate::kubeapi::Error;
use crate::reasons;

/// The finding for an error of a write.
pub fn finding(error: &Error) -> Finding {
    let message = error.message();
    let reason = match error {
        Error::Transient { .. } | Error::Timeout { .. } | Error::Gone { .. } => &reasons::RETRYING,
        Error::Forbidden { .. } if message.contains("exceeded quota") => &reasons::QUOTA_EXCEEDED,
        Error::Forbidden { .. } if message.contains("violates PodSecurity") => &reasons::POD_SECURITY,
        Error::Forbidden { .. } => &reasons::FORBIDDEN,
        Error::Rejected { .. } => &reasons::REJECTED,
        Error::Taken { .. } => &reasons::NAME_TAKEN,
    };
    Finding::new(reason, message)
}
