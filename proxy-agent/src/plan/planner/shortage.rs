//! What there is no room for.

use std::fmt;

use crate::model::ServicePortKey;

/// A service port that stays as it is because a map is full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    pub key: ServicePortKey,
    pub shortage: Shortage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shortage {
    Services,
    Backends,
    Slots,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "no room for another service port (--max-services)",
            Self::Backends => "no room for its endpoints (--max-backends)",
            Self::Slots => "no room for its lists of endpoints (--max-backends)",
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}", self.key, self.shortage)
    }
}
