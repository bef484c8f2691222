//! What a failed call means for the resource that it was for.

use crate::conditions::Finding;
use crate::kubeapi::Error;
use crate::reasons::{self, Reason};

/// The finding for an error of a write.
pub fn finding(error: &Error) -> Finding {
    let message = error.message();
    let reason = match error {
        Error::Transient { .. } | Error::Timeout { .. } | Error::Gone { .. } => &reasons::RETRYING,
        Error::Forbidden { .. } => of_forbidden(&message, &reasons::FORBIDDEN),
        Error::Rejected { .. } => &reasons::REJECTED,
        Error::Taken { .. } => &reasons::NAME_TAKEN,
    };
    Finding::new(reason, message)
}

/// What it means that the API server forbids something, by what it says; `otherwise` where it says nothing known.
pub fn of_forbidden(message: &str, otherwise: &'static Reason) -> &'static Reason {
    if message.contains("exceeded quota") {
        &reasons::QUOTA_EXCEEDED
    } else if message.contains("violates PodSecurity") {
        &reasons::POD_SECURITY
    } else {
        otherwise
    }
}
