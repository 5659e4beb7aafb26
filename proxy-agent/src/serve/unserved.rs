//! What of the services is left out for want of room, as others are told.

use std::fmt::{self, Write};

use serde::{Deserialize, Serialize};

use crate::{model::ObjectName, plan::LeftOut};

/// So many services are named where there is one line for all.
const NAMED: usize = 3;

/// What of one Service is not served.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unserved {
    pub namespace: String,
    pub service: String,
    /// Service ports, in each family for themselves.
    pub ports: u32,
    /// Of ports that are served.
    pub addresses: u32,
    pub ranges: u32,
    pub endpoints: u32,
    /// Ports whose lists of endpoints are shorter than weights or a consistent hash ask for.
    #[serde(default)]
    pub lists: u32,
    pub reason: String,
}

impl Unserved {
    pub fn name(&self) -> ObjectName {
        ObjectName::new(&*self.namespace, &*self.service)
    }

    pub fn new(name: &ObjectName, left_out: &LeftOut) -> Self {
        let &LeftOut {
            ports,
            addresses,
            ranges,
            endpoints,
            lists,
            why,
        } = left_out;
        Self {
            namespace: name.namespace.to_string(),
            service: name.name.to_string(),
            ports,
            addresses,
            ranges,
            endpoints,
            lists,
            reason: match why {
                Some(why) => why.to_string(),
                None => "it asks for more than one Service may have (--service-bounds)".to_owned(),
            },
        }
    }
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            service,
            ports,
            addresses,
            ranges,
            endpoints,
            lists,
            reason: _,
        } = self;
        let parts = [
            (ports, "ports"),
            (addresses, "addresses"),
            (ranges, "source ranges"),
            (endpoints, "endpoints"),
            (lists, "lists of full length"),
        ];
        let parts = parts.iter().filter(|(count, _)| **count > 0);
        let parts: Vec<_> = parts
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        write!(f, "{namespace}/{service} without {}", parts.join(", "))
    }
}

/// One line, however many there are. `None` where nothing is left out.
pub fn summary(all: &[Unserved]) -> Option<String> {
    let first = all.first()?;
    let mut line = format!("no room for all of {} Services: ", all.len());
    for (index, one) in all.iter().take(NAMED).enumerate() {
        let separator = if index > 0 { "; " } else { "" };
        // Writing to a String never fails.
        let _ = write!(line, "{separator}{one}");
    }
    let more = if all.len() > NAMED { "; ..." } else { "" };
    let _ = write!(line, "{more} (the first: {})", first.reason);
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_short_however_many_are_left_out() {
        let one = |n: usize| {
            let left_out = LeftOut {
                ports: 2,
                endpoints: 3,
                ..LeftOut::default()
            };
            Unserved::new(&ObjectName::new("ns", format!("svc-{n}")), &left_out)
        };
        let all: Vec<_> = (0..1000).map(one).collect();
        assert_eq!(summary(&[]), None);
        assert_eq!(
            summary(&all[..1]).unwrap(),
            "no room for all of 1 Services: ns/svc-0 without 2 ports, 3 endpoints (the first: it asks for more than one \
             Service may have (--service-bounds))"
        );
        let long = summary(&all).unwrap();
        assert!(long.contains("1000 Services"), "{long}");
        assert!(
            long.contains("ns/svc-2 without 2 ports, 3 endpoints; ... ("),
            "{long}"
        );
    }
}
