//! Asks the kernel by RTM_GETTFILTER which program a TC filter has. It needs no right.

use anyhow::{Context, Result, bail, ensure};
use aya::programs::tc::{TcAttachType, TcHandle};
use nix::libc;
use proxy_common::abi::IfIndex;
use rtnetlink::sys::{Socket, SocketAddr};

const NETLINK_ROUTE: isize = 0;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NETLINK_HEADER: usize = 16;
/// `struct tcmsg`.
const TC_HEADER: usize = 20;
/// Of linux/rtnetlink.h and linux/pkt_cls.h.
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
const ETH_P_ALL: u16 = 3;
/// The kind of an attribute, without its flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const KIND: u16 = 0x3fff;

/// A conversation with the kernel.
pub struct Filters(Socket);

impl Filters {
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("opening a netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// The id of the program at this place of a device; `None` where there is no filter, or one without a program.
    pub fn program_at(
        &self,
        ifindex: IfIndex,
        direction: TcAttachType,
        priority: u16,
        handle: TcHandle,
    ) -> Result<Option<u32>> {
        let request = request(ifindex, direction, priority, handle);
        self.0.send(&request, 0).context("asking for a filter")?;
        let (answer, _) = self.0.recv_from_full().context("asking for a filter")?;
        read(&answer)
    }
}

fn request(ifindex: IfIndex, direction: TcAttachType, priority: u16, handle: TcHandle) -> Vec<u8> {
    let parent: u32 = match direction {
        TcAttachType::Egress => 0xffff_fff3,
        _ => 0xffff_fff2,
    };
    let place = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    let length = (NETLINK_HEADER + TC_HEADER) as u32;
    let mut message = Vec::with_capacity(length as usize);
    message.extend(length.to_ne_bytes());
    message.extend(RTM_GETTFILTER.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence and port: one question is open at a time, and the kernel fills in the port.
    message.extend([0; 8]);
    // No family, and padding.
    message.extend([0; 4]);
    for word in [ifindex.0, u32::from(handle), parent, place] {
        message.extend(word.to_ne_bytes());
    }
    message
}

fn read(answer: &[u8]) -> Result<Option<u32>> {
    ensure!(
        answer.len() >= NETLINK_HEADER + 4,
        "the kernel's answer is cut short"
    );
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if kind == NLMSG_ERROR {
        let code = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
        return match -code {
            // No such filter; no such qdisc; no such device; a filter of another kind at that place.
            libc::ENOENT | libc::EINVAL | libc::ENODEV => Ok(None),
            code => Err(std::io::Error::from_raw_os_error(code)).context("asking for a filter"),
        };
    }
    if kind != RTM_NEWTFILTER {
        bail!("the kernel answers with a message of kind {kind}");
    }
    let attributes = answer.get(NETLINK_HEADER + TC_HEADER..).unwrap_or_default();
    let id = find(attributes, TCA_OPTIONS).and_then(|options| find(options, TCA_BPF_ID));
    Ok(id.and_then(|id| Some(u32::from_ne_bytes(id.try_into().ok()?))))
}

/// The value of the first attribute of this kind.
fn find(mut attributes: &[u8], kind: u16) -> Option<&[u8]> {
    loop {
        let (head, _) = attributes.split_at_checked(4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) & KIND == kind {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::from(((16 + body.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_filter_says_its_program_and_none_is_none() {
        let options = [
            attribute(7, b"tc_uplink_in\0"),
            attribute(11, &9_u32.to_ne_bytes()),
        ];
        let nested = TCA_OPTIONS | 0x8000;
        let attributes = [attribute(1, b"bpf\0"), attribute(nested, &options.concat())];
        let body = [vec![0; TC_HEADER], attributes.concat()].concat();
        assert_eq!(read(&message(RTM_NEWTFILTER, &body)).unwrap(), Some(9));
        let body = [vec![0; TC_HEADER], attribute(1, b"u32\0")].concat();
        assert_eq!(read(&message(RTM_NEWTFILTER, &body)).unwrap(), None);
        let error = |code: i32| message(NLMSG_ERROR, &(-code).to_ne_bytes());
        assert_eq!(read(&error(libc::ENOENT)).unwrap(), None);
        read(&error(libc::EPERM)).unwrap_err();
        read(&[0; 10]).unwrap_err();
    }
}
