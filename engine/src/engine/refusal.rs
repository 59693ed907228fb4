//! Refusals that the engine gives, each made in one place so that the same reason has the same words.

use antiphon_wire::codes::ErrorCode;

use crate::{door::Refusal, error::StoreError, seams::FileError};

/// A refusal in the code's own words. What a stranger is told comes from here alone, so that it cannot differ.
pub(super) fn refuse(code: ErrorCode) -> Refusal {
    Refusal { code, text: code.text().into() }
}

/// A refusal with better words.
pub(super) fn refuse_because(code: ErrorCode, text: &str) -> Refusal {
    Refusal { code, text: text.into() }
}

/// What a reader is told when stored data cannot be read. The file and place are for the operator, who finds them in the status.
pub(super) fn unreadable(error: &StoreError) -> Refusal {
    match error {
        StoreError::File(FileError::Io { .. } | FileError::Full { .. } | FileError::NotFound { .. }) => {
            refuse_because(ErrorCode::StorageFailed, "stored data can't be read now")
        }
        _ => refuse(ErrorCode::Damaged),
    }
}
