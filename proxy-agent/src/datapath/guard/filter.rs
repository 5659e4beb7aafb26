//! Asks the kernel by RTM_GETTFILTER which program a TC filter has. It needs no right.

use anyhow::{Context, Result, bail};
use aya::programs::tc::{TcAttachType, TcHandle};
use nix::libc;
use proxy_common::abi::IfIndex;

use crate::netlink::{Conversation, Error, NETLINK_ROUTE, find};

const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// `struct tcmsg`.
const TC_HEADER: usize = 20;
/// Of linux/rtnetlink.h and linux/pkt_cls.h.
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
const ETH_P_ALL: u16 = 3;

/// A conversation with the kernel.
pub struct Filters(Conversation);

impl Filters {
    pub fn open() -> Result<Self> {
        let route = Conversation::open(NETLINK_ROUTE).context("opening a netlink socket")?;
        Ok(Self(route))
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
        match self.0.ask(RTM_GETTFILTER, 0, &request) {
            Ok((RTM_NEWTFILTER, body)) => Ok(read(&body)),
            Ok((kind, _)) => bail!("the kernel answers with a message of kind {kind}"),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error).context("asking for a filter"),
        }
    }
}

/// No such filter; no such qdisc; no such device; a filter of another kind at that place.
fn is_absent(error: &Error) -> bool {
    let Error::Refused(error) = error else {
        return false;
    };
    let absent = [libc::ENOENT, libc::EINVAL, libc::ENODEV];
    error
        .raw_os_error()
        .is_some_and(|code| absent.contains(&code))
}

/// A `struct tcmsg`.
fn request(ifindex: IfIndex, direction: TcAttachType, priority: u16, handle: TcHandle) -> Vec<u8> {
    let parent: u32 = match direction {
        TcAttachType::Egress => 0xffff_fff3,
        _ => 0xffff_fff2,
    };
    let place = u32::from(priority) << 16 | u32::from(ETH_P_ALL.to_be());
    // No family, and padding.
    let words = [0, ifindex.0, u32::from(handle), parent, place];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// The program of the filter that a message tells of.
fn read(body: &[u8]) -> Option<u32> {
    let options = find(body.get(TC_HEADER..)?, TCA_OPTIONS)?;
    let id = find(options, TCA_BPF_ID)?;
    Some(u32::from_ne_bytes(id.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::netlink::{attribute, nested};

    #[test]
    fn a_filter_says_its_program_and_none_is_none() {
        let options = [
            attribute(7, b"tc_uplink_in\0"),
            attribute(TCA_BPF_ID, &9_u32.to_ne_bytes()),
        ];
        let body = |attributes: &[Vec<u8>]| [vec![0; TC_HEADER], attributes.concat()].concat();
        let filter = body(&[attribute(1, b"bpf\0"), nested(TCA_OPTIONS, &options)]);
        assert_eq!(read(&filter), Some(9));
        assert_eq!(read(&body(&[attribute(1, b"u32\0")])), None);
        assert_eq!(read(&[0; 10]), None);
    }

    #[test]
    fn what_is_absent_is_told_from_what_may_not_be_asked() {
        let refused = |code| Error::Refused(io::Error::from_raw_os_error(code));
        assert!(is_absent(&refused(libc::ENOENT)));
        assert!(!is_absent(&refused(libc::EPERM)));
        assert!(!is_absent(&Error::Short));
    }
}
