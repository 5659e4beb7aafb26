//! Connections that the kernel's connection tracking translates, as rules of kube-proxy make it.
//!
//! In: a dump by netlink. The one rule: nothing is loaded by asking. Where connection tracking is not there, it holds no
//! connection.

use std::{fs, net::IpAddr};

use anyhow::{Context, Result, bail};
use rtnetlink::sys::{Socket, SocketAddr};

const NETLINK_NETFILTER: isize = 12;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NETLINK_HEADER: usize = 16;
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
/// What marks a nested attribute.
const NESTED: u16 = 0x8000;
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
    let mut socket = Socket::new(NETLINK_NETFILTER).context("opening a netfilter socket")?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    socket.send(&request(), 0)?;
    loop {
        let (answer, _) = socket.recv_from_full().context("listing connections")?;
        let mut rest = answer.as_slice();
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(false),
                NLMSG_ERROR => bail!("listing connections: {}", error(body)),
                _ => {
                    let entry = body.get(FAMILY_HEADER..).unwrap_or_default();
                    if translated(entry).is_some_and(&is_service) {
                        return Ok(true);
                    }
                }
            }
            rest = next;
        }
    }
}

/// A dump of both families.
fn request() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(((NETLINK_HEADER + FAMILY_HEADER) as u32).to_ne_bytes());
    message.extend(CT_GET.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence, port, family, version and resource.
    message.extend([0; 12]);
    message
}

/// The first message: its type, what is behind its header, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(NETLINK_HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, next))
}

fn error(body: &[u8]) -> std::io::Error {
    let code = body
        .first_chunk()
        .map_or(0, |code| i32::from_ne_bytes(*code));
    std::io::Error::from_raw_os_error(-code)
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

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn entry(status: u32, proto: u8, destination: IpAddr) -> Vec<u8> {
        let ip = match destination {
            IpAddr::V4(addr) => attribute(CTA_IP_V4_DST, &addr.octets()),
            IpAddr::V6(addr) => attribute(CTA_IP_V6_DST, &addr.octets()),
        };
        let tuple = [
            attribute(CTA_TUPLE_IP | NESTED, &ip),
            attribute(
                CTA_TUPLE_PROTO | NESTED,
                &attribute(CTA_PROTO_NUM, &[proto]),
            ),
        ];
        [
            attribute(CTA_TUPLE_ORIG | NESTED, &tuple.concat()),
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

    #[test]
    fn messages_are_told_apart() {
        let mut bytes = request();
        bytes.extend(request());
        let (kind, body, next) = message(&bytes).unwrap();
        assert_eq!((kind, body.len()), (CT_GET, FAMILY_HEADER));
        assert_eq!(message(next).unwrap().0, CT_GET);
        assert!(message(&bytes[..10]).is_none());
    }
}
