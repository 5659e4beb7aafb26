//! Connections that the kernel's connection tracking translates, as rules of kube-proxy make it.
//!
//! In: a dump by netlink. The one rule: nothing is loaded by asking. Where connection tracking is not there, it holds no
//! connection.

use std::{fs, net::IpAddr};

use anyhow::{Context, Result};

use crate::netlink::{Conversation, NETLINK_NETFILTER, NLM_F_DUMP, NLMSG_DONE, find, messages};

/// `struct nfgenmsg`.
const FAMILY_HEADER: usize = 4;
/// `NFNL_SUBSYS_CTNETLINK` and `IPCTNL_MSG_CT_GET` (include/uapi/linux/netfilter).
const CT_GET: u16 = 1 << 8 | 1;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_STATUS: u16 = 3;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const IPS_DST_NAT: u32 = 1 << 5;
const TCP: u8 = 6;

/// How many entries connection tracking has in this network namespace; the file is there only where it is.
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Does connection tracking hold a TCP connection that was opened to an address for which `is_service` is true, and that
/// it leads elsewhere? It takes as long as there are entries.
///
/// # Errors
/// Where the kernel cannot be asked.
pub fn holds(is_service: impl Fn(IpAddr) -> bool) -> Result<bool> {
    let Ok(count) = fs::read_to_string(COUNT) else {
        return Ok(false);
    };
    if count.trim() == "0" {
        return Ok(false);
    }
    let netfilter = Conversation::open(NETLINK_NETFILTER).context("opening a netfilter socket")?;
    // Of both families, of which the header of all zeroes is.
    netfilter.send(CT_GET, NLM_F_DUMP, &[0; FAMILY_HEADER])?;
    loop {
        let answer = netfilter.receive().context("listing connections")?;
        for message in messages(&answer) {
            message.accepted().context("listing connections")?;
            if message.kind == NLMSG_DONE {
                return Ok(false);
            }
            let entry = message.body.get(FAMILY_HEADER..).unwrap_or_default();
            if translated(entry).is_some_and(&is_service) {
                return Ok(true);
            }
        }
    }
}

/// To whom a TCP connection was opened, where it is led elsewhere.
fn translated(entry: &[u8]) -> Option<IpAddr> {
    let status = find(entry, CTA_STATUS)?;
    let status = u32::from_be_bytes(status.try_into().ok()?);
    let tuple = find(entry, CTA_TUPLE_ORIG)?;
    let proto = find(find(tuple, CTA_TUPLE_PROTO)?, CTA_PROTO_NUM)?;
    if status & IPS_DST_NAT == 0 || proto.first() != Some(&TCP) {
        return None;
    }
    let ip = find(tuple, CTA_TUPLE_IP)?;
    if let Some(v4) = find(ip, CTA_IP_V4_DST) {
        return Some(<[u8; 4]>::try_from(v4).ok()?.into());
    }
    let v6 = find(ip, CTA_IP_V6_DST)?;
    Some(<[u8; 16]>::try_from(v6).ok()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{attribute, nested};

    fn entry(status: u32, proto: u8, destination: IpAddr) -> Vec<u8> {
        let ip = match destination {
            IpAddr::V4(addr) => attribute(CTA_IP_V4_DST, &addr.octets()),
            IpAddr::V6(addr) => attribute(CTA_IP_V6_DST, &addr.octets()),
        };
        let tuple = [
            nested(CTA_TUPLE_IP, &[ip]),
            nested(CTA_TUPLE_PROTO, &[attribute(CTA_PROTO_NUM, &[proto])]),
        ];
        [
            nested(CTA_TUPLE_ORIG, &tuple),
            attribute(CTA_STATUS, &status.to_be_bytes()),
        ]
        .concat()
    }

    #[test]
    fn only_tcp_connections_that_are_led_elsewhere_count() {
        for addr in ["10.96.0.1", "fd00::1"] {
            let addr: IpAddr = addr.parse().unwrap();
            assert_eq!(translated(&entry(IPS_DST_NAT | 8, TCP, addr)), Some(addr));
            assert_eq!(translated(&entry(8, TCP, addr)), None, "not translated");
            assert_eq!(translated(&entry(IPS_DST_NAT, 17, addr)), None, "UDP");
        }
        let whole = entry(IPS_DST_NAT, TCP, [10, 96, 0, 1].into());
        for length in 0..whole.len() {
            assert_eq!(translated(&whole[..length]), None, "cut at {length}");
        }
    }
}
