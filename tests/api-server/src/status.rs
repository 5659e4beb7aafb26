//! Errors as the API server words them: `Status` objects.

use serde_json::{Value, json};

/// A refused request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub code: u16,
    pub message: String,
    /// For the header `Retry-After`, in seconds.
    pub retry_after: Option<u64>,
}

impl Refusal {
    pub fn new(code: u16, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A version that the history does not reach back to.
    pub fn expired(version: u64, oldest: u64) -> Self {
        Self::new(
            410,
            format!("too old resource version: {version} ({oldest})"),
        )
    }

    /// The `Status` object, its reason as in `metav1.StatusReason`.
    pub fn status(&self) -> Value {
        let reason = match self.code {
            400 => "BadRequest",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 if self.message.ends_with("already exists") => "AlreadyExists",
            409 => "Conflict",
            410 => "Expired",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            _ => "",
        };
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": reason, "code": self.code,
        })
    }
}
