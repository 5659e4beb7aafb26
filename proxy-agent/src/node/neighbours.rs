//! Next hops: whether one is at another address, and that those which flows use stay verified.
//!
//! Packets that go by a flow's hint do not pass the kernel's neighbour entry, which thereby never learns that nobody is
//! there any more. So the agent exercises the entry in their place: what is stale is probed, and what has failed is
//! resolved anew, in the time in which the kernel would do it for packets of its own.
//!
//! `NTF_USE` does that on every kernel and leaves nothing behind. A managed entry (`NTF_EXT_MANAGED`, Linux 5.16) would
//! stay after the flow and after the agent. The one rule: an entry that somebody else keeps, permanent, managed or learnt
//! from a control plane, is left alone. Since 5.16, `NTF_USE` takes "permanent" off an entry (`__neigh_update`).

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use proxy_common::abi::IfIndex;
use rtnetlink::{
    Handle,
    packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        neighbour::{
            NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags,
            NeighbourMessage, NeighbourState,
        },
    },
};
use tracing::debug;

/// The kernel's neighbours, by device and address.
#[derive(Debug, Default)]
pub struct Neighbours(HashMap<(IfIndex, IpAddr), Neighbour>);

#[derive(Clone, PartialEq, Eq, Debug)]
struct Neighbour {
    /// Its Ethernet address, where that is known.
    mac: Option<Vec<u8>>,
    /// Somebody else sees to it.
    kept: bool,
}

impl Neighbours {
    pub async fn read(handle: &Handle) -> Result<Self> {
        let all: Vec<NeighbourMessage> = handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing the neighbours")?;
        let known = |message| Some((key(message)?, Neighbour::of(message)));
        Ok(Self(all.iter().filter_map(known).collect()))
    }

    /// Takes in news of a neighbour: is it at another address than the one that hints may hold? (It changes its state all
    /// the time.)
    pub fn moved(&mut self, message: &NeighbourMessage) -> bool {
        let Some(key) = key(message) else {
            return false;
        };
        let now = Neighbour::of(message);
        let mac = now.mac.clone();
        match self.0.insert(key, now) {
            Some(Neighbour { mac: Some(old), .. }) => mac != Some(old),
            Some(Neighbour { mac: None, .. }) | None => false,
        }
    }

    /// Takes in that a neighbour is gone: may hints hold its address?
    pub fn gone(&mut self, message: &NeighbourMessage) -> bool {
        let known = key(message).and_then(|key| self.0.remove(&key));
        known.is_some_and(|neighbour| neighbour.mac.is_some())
    }

    /// Has the kernel verify those of these next hops that it has not verified lately.
    pub async fn keep_alive(&self, handle: &Handle, hops: &[(IfIndex, IpAddr)]) {
        for &(ifindex, addr) in hops {
            let known = self.0.get(&(ifindex, addr));
            if known.is_none_or(|neighbour| neighbour.kept) {
                continue;
            }
            if let Err(error) = exercise(handle.clone(), ifindex, addr).await {
                debug!("the neighbour {addr} on device {ifindex}: {error:#}");
            }
        }
    }
}

/// As a packet to it would.
async fn exercise(mut handle: Handle, ifindex: IfIndex, addr: IpAddr) -> Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = match addr {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.ifindex = ifindex.0;
    message.header.flags = NeighbourFlags::Use;
    let destination = match addr {
        IpAddr::V4(addr) => NeighbourAddress::Inet(addr),
        IpAddr::V6(addr) => NeighbourAddress::Inet6(addr),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewNeighbour(message));
    // Without NLM_F_CREATE: one that is gone is resolved by the packet that needs it.
    request.header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut answers = handle.request(request)?;
    while let Some(answer) = answers.next().await {
        if let NetlinkPayload::Error(error) = answer.payload
            && error.code.is_some()
        {
            anyhow::bail!(error.to_io());
        }
    }
    Ok(())
}

impl Neighbour {
    fn of(message: &NeighbourMessage) -> Self {
        let header = &message.header;
        let managed = |attribute: &NeighbourAttribute| match attribute {
            NeighbourAttribute::ExtFlags(flags) => flags.contains(NeighbourExtFlags::Managed),
            _ => false,
        };
        Self {
            mac: message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
                    _ => None,
                }),
            kept: matches!(
                header.state,
                NeighbourState::Permanent | NeighbourState::Noarp
            ) || header.flags.contains(NeighbourFlags::ExtLearned)
                || message.attributes.iter().any(managed),
        }
    }
}

/// `None` for what is no neighbour of IP: a bridge's table of addresses comes by the same messages.
fn key(message: &NeighbourMessage) -> Option<(IfIndex, IpAddr)> {
    let header = &message.header;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(addr)) => {
                Some(IpAddr::V4(*addr))
            }
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(addr)) => {
                Some(IpAddr::V6(*addr))
            }
            _ => None,
        })
        .map(|addr| (IfIndex(header.ifindex), addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(state: NeighbourState, mac: Option<u8>) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.ifindex = 2;
        message.header.state = state;
        let addr = NeighbourAddress::Inet([192, 0, 2, 1].into());
        message
            .attributes
            .push(NeighbourAttribute::Destination(addr));
        message.attributes.extend(
            mac.map(|last| NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, last])),
        );
        message
    }

    #[test]
    fn only_another_address_makes_hints_stale() {
        use NeighbourState::{Delay, Failed, Probe, Reachable, Stale};
        let mut neighbours = Neighbours::default();
        for (state, mac, moved) in [
            (Reachable, Some(1), false),
            (Stale, Some(1), false),
            (Delay, Some(1), false),
            (Probe, Some(1), false),
            (Reachable, Some(1), false),
            (Reachable, Some(2), true),
            (Failed, None, true),
            // Nobody has a hint to it.
            (Reachable, Some(2), false),
            (Stale, Some(3), true),
        ] {
            assert_eq!(neighbours.moved(&message(state, mac)), moved, "{state:?}");
        }
        assert!(neighbours.gone(&message(Stale, None)));
        assert!(!neighbours.gone(&message(Stale, None)));
        let mut of_a_bridge = message(Reachable, Some(1));
        of_a_bridge.header.family = AddressFamily::Bridge;
        assert!(!neighbours.moved(&of_a_bridge));
        of_a_bridge.attributes[1] = NeighbourAttribute::LinkLayerAddress(vec![9; 6]);
        assert!(!neighbours.moved(&of_a_bridge));
    }

    #[test]
    fn what_somebody_else_keeps_is_left_alone() {
        let kept = |message: &NeighbourMessage| Neighbour::of(message).kept;
        assert!(!kept(&message(NeighbourState::Stale, Some(1))));
        assert!(kept(&message(NeighbourState::Permanent, Some(1))));
        assert!(kept(&message(NeighbourState::Noarp, Some(1))));
        let mut learnt = message(NeighbourState::Stale, Some(1));
        learnt.header.flags = NeighbourFlags::ExtLearned;
        assert!(kept(&learnt));
        let mut managed = message(NeighbourState::Stale, Some(1));
        let flags = NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed);
        managed.attributes.push(flags);
        assert!(kept(&managed));
    }
}
