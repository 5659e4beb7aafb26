//! What a Service asks of this proxy beyond what Kubernetes has a field for: its annotations, read.

use std::fmt;

/// The default asks for nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asks {
    /// Seconds for which first packets of a client wait for an endpoint while there is none; `None`: they are refused.
    pub hold: Option<u32>,
    /// What is not understood: the default holds in its place.
    pub ignored: Vec<Ignored>,
}

/// A field that says what is not understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ignored {
    /// As in `metadata.annotations[portside.io/hold-timeout]`.
    pub field: String,
    pub message: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}
