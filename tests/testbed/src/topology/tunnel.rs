//! Devices that have no Ethernet header, each kind as it is in use: between the pods of two nodes, or between a node and its router.
//!
//! | kind | devices | as |
//! |---|---|---|
//! | tun | one for both families | flannel's UDP backend, WireGuard in user space; the test's process is what is between the ends |
//! | IPIP | `ipip` for IPv4 and `sit` for IPv6; between pods with no remote end of their own: the route's next hop is it | Calico, kube-router |
//! | GRE | one for both families, to one remote end | |
//! | WireGuard | one for both families | flannel's `wireguard` backend |
//! | VTI | `vti` for IPv4, `vti6` for IPv6, in ESP of either family | IPsec by routes |
//! | XFRM | one interface for both families, in ESP over IPv4 | Cilium and Calico with strongSwan |

use std::fmt::{self, Write as _};
use std::fs;

use anyhow::{Result, bail};

use super::{ipsec, tun, wireguard};
use crate::address::Pair;
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
    Vti,
    Xfrm,
}

/// Where one end of a tunnel is.
pub(super) struct End<'a> {
    pub netns: &'a Netns,
    /// Begins the names of its devices.
    pub name: &'a str,
    /// What carries it: a device, and that one's addresses.
    pub below: &'a str,
    pub outer: Pair,
    pub mtu: u16,
}

/// How an end knows the other one, where the kind leaves the choice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// By its address.
    Fixed,
    /// By the next hop of each route.
    NextHop,
}

/// What a tunnel lives as long as.
pub(super) type Keeper = Box<dyn Send + Sync>;

impl Tunnel {
    pub const ALL: [Self; 6] = [
        Self::Tun,
        Self::IpIp,
        Self::Gre,
        Self::WireGuard,
        Self::Vti,
        Self::Xfrm,
    ];

    /// The devices for IPv4 and for IPv6 of an end of this name.
    pub(super) fn devices(self, name: &str) -> [String; 2] {
        let [v4, v6] = match self {
            Self::Tun => ["tun"; 2],
            Self::IpIp => ["ipip", "sit"],
            Self::Gre => ["gre"; 2],
            Self::WireGuard => ["wg"; 2],
            Self::Vti => ["vti", "vti6"],
            Self::Xfrm => ["xfrm"; 2],
        };
        [v4, v6].map(|kind| format!("{name}-{kind}"))
    }

    /// The same, each once.
    pub(super) fn device_names(self, name: &str) -> Vec<String> {
        let mut names = self.devices(name).to_vec();
        names.dedup();
        names
    }

    /// Makes the devices of both ends and sets them up; they have no addresses yet. The number tells the tunnels apart that end at
    /// one host.
    pub(super) fn lay(self, ends: &[End; 2], remote: Remote, number: u8) -> Result<Option<Keeper>> {
        let [a, b] = ends;
        for (own, other) in [(a, b), (b, a)] {
            self.make(own, other, remote, number)?;
        }
        let keeper: Option<Keeper> = match self {
            Self::Tun => {
                let ends = ends.each_ref().map(|end| {
                    let [name, _] = self.devices(end.name);
                    (end.netns, name)
                });
                Some(Box::new(tun::Pump::start(ends)?))
            }
            _ => None,
        };
        for end in ends {
            let mut lines = String::new();
            for name in self.device_names(end.name) {
                let _ = writeln!(lines, "link set {name} mtu {} up", end.mtu);
            }
            end.netns.ip(&lines)?;
        }
        Ok(keeper)
    }

    /// Makes the devices of an end, where the kernel has them without the other end.
    fn make(self, own: &End, other: &End, remote: Remote, number: u8) -> Result<()> {
        let [v4, v6] = self.devices(own.name);
        let (local, peer) = (own.outer, other.outer);
        let to = format!("local {} remote {}", local.v4, peer.v4);
        match self {
            Self::Tun => tun::create(own.netns, &v4),
            Self::IpIp => {
                let to = match remote {
                    Remote::Fixed => to,
                    Remote::NextHop => format!("local {}", local.v4),
                };
                add(
                    own.netns,
                    &format!(
                        "link add {v4} type ipip {to} ttl 64\n\
                         link add {v6} type sit {to} ttl 64\n"
                    ),
                )
            }
            Self::Gre => add(own.netns, &format!("link add {v4} type gre {to} ttl 64\n")),
            Self::WireGuard => {
                add(own.netns, &format!("link add {v4} type wireguard\n"))?;
                wireguard::configure(own.netns, &v4, [local.v4, peer.v4], number)
            }
            Self::Vti => {
                // The key is what policies are found by: one for each of the two.
                let [key4, key6] = [2 * number, 2 * number + 1];
                add(
                    own.netns,
                    &format!(
                        "link add {v4} type vti {to} key {key4}\n\
                         link add {v6} type vti6 local {} remote {} key {key6}\n",
                        local.v6, peer.v6
                    ),
                )?;
                let by = |key| format!("mark {key}");
                ipsec::protect(own.netns, local.v4.into(), peer.v4.into(), "", &by(key4))?;
                ipsec::protect(own.netns, local.v6.into(), peer.v6.into(), "", &by(key6))
            }
            Self::Xfrm => {
                let by_id = format!("if_id {number}");
                add(
                    own.netns,
                    &format!("link add {v4} type xfrm dev {} {by_id}\n", own.below),
                )?;
                ipsec::protect(own.netns, local.v4.into(), peer.v4.into(), &by_id, &by_id)
            }
        }
    }

    /// Why no such devices can be made here, if so.
    pub fn missing(self) -> Option<&'static str> {
        let modules: &[&str] = match self {
            Self::Tun => &[],
            Self::IpIp => &["ipip", "sit"],
            Self::Gre => &["ip_gre"],
            Self::WireGuard => &["wireguard"],
            Self::Vti => &["ip_vti", "ip6_vti", "esp4", "esp6"],
            Self::Xfrm => &["xfrm_interface", "esp4"],
        };
        let is_there = |module: &&str| fs::exists(format!("/sys/module/{module}")).unwrap_or(false);
        let found = modules.iter().all(is_there)
            && (self != Self::Tun || fs::exists("/dev/net/tun").unwrap_or(false));
        (!found).then_some(MISSING)
    }
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

impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Tun => "tun",
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::WireGuard => "wireguard",
            Self::Vti => "vti",
            Self::Xfrm => "xfrm",
        })
    }
}
