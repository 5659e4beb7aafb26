//! Faults of objects that were accepted: the rest of the object is in force. The caller reports them.

use std::{borrow::Cow, fmt, net::IpAddr};

use super::{Ignored, ObjectName, claims::ServiceAddress};

/// An address that no object may name, and why.
pub type RefusedAddress = (IpAddr, Cow<'static, str>);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// A slice names an endpoint that no slice may name.
    EndpointRefused {
        slice: ObjectName,
        addr: IpAddr,
        reason: Cow<'static, str>,
    },
    /// A service names an address that no service may have.
    AddressRefused {
        service: ObjectName,
        addr: IpAddr,
        reason: Cow<'static, str>,
    },
    /// An annotation of a Service or an EndpointSlice says what is not understood.
    FieldIgnored {
        kind: &'static str,
        object: ObjectName,
        what: Ignored,
    },
    /// Two services claim one address; the loser goes without it.
    FrontendConflict {
        address: ServiceAddress,
        winner: ObjectName,
        loser: ObjectName,
    },
}

impl Warning {
    pub fn field_ignored(kind: &'static str, object: &ObjectName, what: &Ignored) -> Self {
        Self::FieldIgnored {
            kind,
            object: object.clone(),
            what: what.clone(),
        }
    }

    /// The object that goes without something.
    pub const fn object(&self) -> &ObjectName {
        match self {
            Self::EndpointRefused { slice, .. } => slice,
            Self::AddressRefused { service, .. } => service,
            Self::FieldIgnored { object, .. } => object,
            Self::FrontendConflict { loser, .. } => loser,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndpointRefused {
                slice,
                addr,
                reason,
            } => write!(
                f,
                "EndpointSlice {slice}: endpoint {addr} is not used: {reason}"
            ),
            Self::AddressRefused {
                service,
                addr,
                reason,
            } => write!(f, "Service {service} is not served at {addr}: {reason}"),
            Self::FieldIgnored { kind, object, what } => {
                write!(f, "{kind} {object}: {what}; the default holds")
            }
            Self::FrontendConflict {
                address,
                winner,
                loser,
            } => write!(
                f,
                "Service {loser} is not served at {address}: Service {winner} claims it and comes first \
                 (by age, then by name)"
            ),
        }
    }
}
