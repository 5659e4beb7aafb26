//! What a Service asks of this proxy beyond what Kubernetes has a field for: its annotations, read.

use std::{fmt, str::FromStr};

/// By what a new connection gets its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Balancing {
    /// Any of them, as likely as its weight says.
    #[default]
    Random,
    /// By the client's address and port: every node gives the same answer, and few answers change when endpoints come and go.
    Maglev,
    /// The same by the client's address alone.
    SourceHash,
}

impl Balancing {
    pub const ALL: [Self; 3] = [Self::Random, Self::Maglev, Self::SourceHash];

    /// As annotations and flags have it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Maglev => "maglev",
            Self::SourceHash => "source-hash",
        }
    }
}

impl fmt::Display for Balancing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Balancing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.text() == text);
        found.ok_or_else(|| format!("is none of {}", Self::ALL.map(Self::text).join(", ")))
    }
}

/// The default asks for nothing.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Asks {
    /// `None`: as the agent's flag says.
    pub balancing: Option<Balancing>,
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
