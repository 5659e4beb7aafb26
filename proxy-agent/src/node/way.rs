//! What the kernel's routing says of one packet, and whether a next hop answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use proxy_common::abi::IfIndex;
use rtnetlink::{
    Handle, RouteMessageBuilder, new_connection,
    packet_route::{
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType},
    },
};

/// A route for one packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    pub ifindex: IfIndex,
    /// Where it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// Is the destination this node?
    pub is_local: bool,
    /// What the kernel knows of the next hop's neighbour entry, in its own word; `None` for no entry.
    pub neighbour: Option<String>,
}

/// The routes from `src` (where it is this node's) to each of `to`; `None` where there is none that leads there.
pub fn ways(asked: &[(Option<IpAddr>, IpAddr)]) -> Result<Vec<Option<Way>>> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let (connection, handle, _) = new_connection().context("opening a netlink socket")?;
            let connection = tokio::spawn(connection);
            let neighbours: Vec<NeighbourMessage> = handle
                .neighbours()
                .get()
                .execute()
                .try_collect()
                .await
                .context("listing the neighbours")?;
            let mut ways = Vec::new();
            for (src, dst) in asked {
                ways.push(way(&handle, &neighbours, *src, *dst).await);
            }
            connection.abort();
            Ok(ways)
        })
}

async fn way(
    handle: &Handle,
    neighbours: &[NeighbourMessage],
    src: Option<IpAddr>,
    dst: IpAddr,
) -> Option<Way> {
    let message = request(src, dst);
    // The kernel answers an error where there is no route: ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL.
    let answer: RouteMessage = handle
        .route()
        .get(message)
        .execute()
        .try_next()
        .await
        .ok()??;
    let mut found = Way {
        ifindex: IfIndex::NONE,
        gateway: None,
        is_local: answer.header.kind == RouteType::Local,
        neighbour: None,
    };
    if !found.is_local && answer.header.kind != RouteType::Unicast {
        return None;
    }
    for attribute in &answer.attributes {
        match attribute {
            RouteAttribute::Oif(index) => found.ifindex = IfIndex(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => {
                found.gateway = Some((*addr).into());
            }
            RouteAttribute::Gateway(RouteAddress::Inet6(addr)) => {
                found.gateway = Some((*addr).into());
            }
            _ => {}
        }
    }
    let hop = found.gateway.unwrap_or(dst);
    found.neighbour = neighbours
        .iter()
        .find(|one| IfIndex(one.header.ifindex) == found.ifindex && is_of(one, hop))
        .map(|one| state(one.header.state).to_owned());
    Some(found)
}

fn request(src: Option<IpAddr>, dst: IpAddr) -> RouteMessage {
    match (dst, src) {
        (IpAddr::V4(dst), src) => {
            let asked = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(dst, 32);
            match src {
                Some(IpAddr::V4(src)) => asked.source_prefix(src, 32).build(),
                _ => asked.build(),
            }
        }
        (IpAddr::V6(dst), src) => {
            let asked = RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(dst, 128);
            match src {
                Some(IpAddr::V6(src)) => asked.source_prefix(src, 128).build(),
                _ => asked.build(),
            }
        }
    }
}

fn is_of(neighbour: &NeighbourMessage, addr: IpAddr) -> bool {
    neighbour.attributes.iter().any(|attribute| {
        matches!(
            (attribute, addr),
            (NeighbourAttribute::Destination(NeighbourAddress::Inet(found)), IpAddr::V4(addr)) if *found == addr
        ) || matches!(
            (attribute, addr),
            (NeighbourAttribute::Destination(NeighbourAddress::Inet6(found)), IpAddr::V6(addr)) if *found == addr
        )
    })
}

/// As ip-neighbour(8) has it.
const fn state(state: NeighbourState) -> &'static str {
    match state {
        NeighbourState::Incomplete => "INCOMPLETE",
        NeighbourState::Reachable => "REACHABLE",
        NeighbourState::Stale => "STALE",
        NeighbourState::Delay => "DELAY",
        NeighbourState::Probe => "PROBE",
        NeighbourState::Failed => "FAILED",
        NeighbourState::Noarp => "NOARP",
        NeighbourState::Permanent => "PERMANENT",
        _ => "NONE",
    }
}
