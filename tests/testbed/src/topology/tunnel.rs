//! Pods of different nodes joined by devices that have no Ethernet header: each kind as a CNI makes it.
//!
//! | kind | devices | as |
//! |---|---|---|
//! | tun | one for both families | flannel's UDP backend, WireGuard in user space; the test's process is what is between the ends |
//! | IPIP | `ipip` for IPv4 and `sit` for IPv6, with no remote end of their own: the route's next hop is it | Calico, kube-router |
//! | GRE | one for both families, to one remote end | |
//! | WireGuard | one for both families | flannel's `wireguard` backend |

use std::fmt::{self, Write as _};
use std::fs;

use anyhow::{Result, bail};

use super::{Host, tun, wireguard};
use crate::address::{self, Pair};
use crate::masquerade;
use crate::netns::Netns;
use crate::runner::CannotRun;

/// What fits into any of them on a 1500-byte link.
pub(super) const MTU: u16 = 1420;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tunnel {
    Tun,
    IpIp,
    Gre,
    WireGuard,
}

impl Tunnel {
    pub const ALL: [Self; 4] = [Self::Tun, Self::IpIp, Self::Gre, Self::WireGuard];

    /// The devices for IPv4 and for IPv6.
    fn devices(self) -> [&'static str; 2] {
        match self {
            Self::Tun => ["pods-tun"; 2],
            Self::IpIp => ["pods-ipip", "pods-sit"],
            Self::Gre => ["pods-gre"; 2],
            Self::WireGuard => ["pods-wg"; 2],
        }
    }

    pub(super) fn device_names(self) -> Vec<&'static str> {
        let mut names = self.devices().to_vec();
        names.dedup();
        names
    }

    /// Makes the end of a node; what is between two ends is made when both are there.
    pub(super) fn create(self, host: &Host, number: u8, mtu: u16) -> Result<()> {
        let [v4, v6] = self.devices();
        let (netns, outer, own) = (&host.netns, host.ip.v4, address::overlay(number));
        match self {
            Self::Tun => tun::create(netns, v4)?,
            Self::IpIp => {
                add(
                    netns,
                    &format!(
                        "link add {v4} type ipip local {outer} ttl 64\n\
                         link add {v6} type sit local {outer} ttl 64\n"
                    ),
                )?;
            }
            Self::Gre => {
                let remote = peer(host);
                add(
                    netns,
                    &format!("link add {v4} type gre local {outer} remote {remote} ttl 64\n"),
                )?;
            }
            Self::WireGuard => {
                add(netns, &format!("link add {v4} type wireguard\n"))?;
                wireguard::configure(netns, v4, number, peer(host))?;
            }
        }
        let mut lines = String::new();
        for name in self.device_names() {
            let _ = writeln!(lines, "link set {name} mtu {mtu} up");
        }
        let _ = write!(
            lines,
            "addr add {}/32 dev {v4}\naddr add {}/128 dev {v6} nodad\n",
            own.v4, own.v6
        );
        netns.ip(&lines)?;
        if masquerade::available() {
            masquerade::install(netns, number)?;
        }
        Ok(())
    }

    /// Makes `netns` reach the pods of the node `other`.
    pub(super) fn route_to_pods_of(self, netns: &Netns, other: &Host, number: u8) -> Result<()> {
        let [v4, v6] = self.devices();
        let pods = address::pod(number, 0);
        let (via4, via6) = match self {
            Self::IpIp => (
                format!("via {} onlink", other.ip.v4),
                format!("via ::{} onlink", other.ip.v4),
            ),
            Self::Tun | Self::Gre | Self::WireGuard => (String::new(), String::new()),
        };
        netns.ip(&format!(
            "route add {}/24 {via4} dev {v4}\nroute add {}/64 {via6} dev {v6}\n",
            pods.v4, pods.v6
        ))
    }

    /// Joins the ends of two nodes, where it is not the kernel that does.
    pub(super) fn join(self, ends: [&Netns; 2]) -> Result<Option<tun::Pump>> {
        match self {
            Self::Tun => tun::Pump::start(ends, self.devices()[0]).map(Some),
            Self::IpIp | Self::Gre | Self::WireGuard => Ok(None),
        }
    }
}

/// The other node of two.
fn peer(host: &Host) -> std::net::Ipv4Addr {
    let [first, second] = [11, 12].map(|number| address::on_segment(0, number));
    let Pair { v4, .. } = if host.ip == first { second } else { first };
    v4
}

/// Makes devices of a kind that the kernel may lack.
fn add(netns: &Netns, lines: &str) -> Result<()> {
    let Err(error) = netns.ip(lines) else {
        return Ok(());
    };
    if error.to_string().contains("not supported") || error.to_string().contains("Unknown device") {
        bail!(CannotRun(MISSING));
    }
    Err(error)
}

/// Why a row on such a topology cannot run here.
pub const MISSING: &str = "the kernel lacks this kind of tunnel";

impl Tunnel {
    /// Why no such devices can be made here, if so.
    pub fn missing(self) -> Option<&'static str> {
        let modules: &[&str] = match self {
            Self::Tun => &[],
            Self::IpIp => &["ipip", "sit"],
            Self::Gre => &["ip_gre"],
            Self::WireGuard => &["wireguard"],
        };
        let is_there = |module: &&str| fs::exists(format!("/sys/module/{module}")).unwrap_or(false);
        let found = modules.iter().all(is_there)
            && (self != Self::Tun || fs::exists("/dev/net/tun").unwrap_or(false));
        (!found).then_some(MISSING)
    }
}

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "tun",
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::WireGuard => "wireguard",
        })
    }
}
