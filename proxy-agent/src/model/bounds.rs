//! Bounds what one Service may ask for, and cuts a Service to that.
//!
//! A Service of a few KiB asks for a quarter of a million addresses: 520 externalIPs at each of 520 ports. What nobody can serve is
//! cut off where the object comes in, so that from here on everything that it costs is bounded: claims, comparisons, map entries.
//! The rule: whole ports count, from the first on; of endpoints, those that the slices name first.

use std::{fmt, str::FromStr};

use super::Service;

/// What one Service may have at most, over all its ports and families.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Ports, in each family for themselves.
    pub ports: u32,
    /// Addresses with a port: ClusterIPs, external and load-balancer IPs, node ports.
    pub addresses: u32,
    /// Source ranges, at each port for themselves.
    pub ranges: u32,
    /// Endpoints, of each port for themselves.
    pub endpoints: u32,
}

impl Default for Bounds {
    /// A Service of 10,000 pods with three ports in two families fits.
    fn default() -> Self {
        Self {
            ports: 4096,
            addresses: 16_384,
            ranges: 16_384,
            endpoints: 65_536,
        }
    }
}

impl Bounds {
    /// Cuts off the ports of `service` that are beyond the bounds; says how many (of each family).
    pub fn trim(&self, service: &mut Service) -> u32 {
        let Service {
            families,
            cluster_ips,
            external_ips,
            load_balancer_ips,
            source_ranges,
            ports,
            ..
        } = service;
        let families = families.len().max(1);
        let node_port = usize::from(ports.iter().any(|port| port.node_port.is_some()));
        let addresses =
            cluster_ips.len() + external_ips.len() + load_balancer_ips.len() + node_port * families;
        let fit = [
            (self.ports, families),
            (self.addresses, addresses),
            (self.ranges, source_ranges.len()),
        ]
        .map(|(bound, each)| bound as usize / each.max(1));
        let fit = fit.into_iter().min().unwrap_or(0).min(ports.len());
        let beyond = (ports.len() - fit) * families;
        ports.truncate(fit);
        beyond as u32
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ports,
            addresses,
            ranges,
            endpoints,
        } = self;
        write!(
            f,
            "ports={ports},addresses={addresses},ranges={ranges},endpoints={endpoints}"
        )
    }
}

impl FromStr for Bounds {
    type Err = String;

    /// Reads `NAME=N,...`; what is not named has its default.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bounds = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, number) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not NAME=N"))?;
            let bound = match name {
                "ports" => &mut bounds.ports,
                "addresses" => &mut bounds.addresses,
                "ranges" => &mut bounds.ranges,
                "endpoints" => &mut bounds.endpoints,
                _ => {
                    return Err(format!(
                        "{name:?} is none of ports, addresses, ranges and endpoints"
                    ));
                }
            };
            *bound = number
                .parse()
                .map_err(|_| format!("{number:?} is not a number"))?;
        }
        Ok(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Protocol, ServicePort, tests},
        *,
    };
    use crate::model::Family;

    fn service(ports: u16, external_ips: u32) -> Service {
        let port = |number: u16| ServicePort {
            name: number.to_string().into(),
            protocol: Protocol::Tcp,
            port: number,
            node_port: None,
        };
        let address = |n: u32| std::net::Ipv4Addr::from(0xcb00_7100 + n).into();
        Service {
            ports: (1..=ports).map(port).collect(),
            external_ips: (0..external_ips).map(address).collect(),
            ..tests::service("svc")
        }
    }

    #[test]
    fn whole_ports_are_cut_off_from_the_last_one() {
        let bounds = Bounds::default();
        for (ports, external_ips, fit) in [
            (1, 0, 1),
            (4096, 0, 4096),
            (65_535, 0, 4096),
            // With the ClusterIP these are 521 addresses at each port.
            (520, 520, 31),
            (1, 16_383, 1),
            (1, 16_384, 0),
        ] {
            let mut service = service(ports, external_ips);
            let beyond = bounds.trim(&mut service);
            assert_eq!(service.ports.len(), fit, "{ports} {external_ips}");
            assert_eq!(beyond as usize, usize::from(ports) - fit);
            let numbers = service.ports.iter().map(|port| usize::from(port.port));
            assert!(numbers.eq(1..=fit));
        }
    }

    #[test]
    fn ranges_count_at_each_port_and_ports_in_each_family() {
        let bounds = Bounds::default();
        let mut ranged = service(300, 0);
        ranged.source_ranges = (0..300u32)
            .map(|n| {
                let addr = std::net::Ipv4Addr::from(n << 16).into();
                crate::model::Cidr::new(addr, 16).unwrap()
            })
            .collect();
        assert_eq!(bounds.trim(&mut ranged), 300 - 54);
        let mut dual = service(3000, 0);
        dual.families = vec![Family::Ipv4, Family::Ipv6];
        assert_eq!(bounds.trim(&mut dual), 2 * (3000 - 2048));
    }

    #[test]
    fn bounds_are_read_by_name() {
        let default = Bounds::default();
        assert_eq!(default.to_string().parse(), Ok(default));
        let some = Bounds {
            ports: 7,
            endpoints: 9,
            ..default
        };
        assert_eq!("ports=7,endpoints=9".parse(), Ok(some));
        for text in ["7", "ports", "ports=", "ports=-1", "slots=1"] {
            assert!(text.parse::<Bounds>().is_err(), "{text}");
        }
    }
}
