//! Changes of the network, as they happen.

use std::{collections::HashMap, net::IpAddr};

use anyhow::{Context, Result};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream::BoxStream};
use rtnetlink::{
    Handle, MulticastGroup, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
    proto::sys::SocketAddr,
};
use tokio::task::JoinHandle;

use super::{Lost, View, routes::is_default};

/// What a change calls for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// A next hop is another one: egress hints are stale.
    Path,
    /// Devices, addresses or default routes: read the view anew.
    Devices,
    /// A driver loses what XDP sends.
    XdpLost(Lost),
}

/// A conversation with the kernel.
pub struct Netlink {
    handle: Handle,
    messages: BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    neighbours: HashMap<(u32, IpAddr), Option<Vec<u8>>>,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Begins to listen, in the network namespace of the calling thread.
    pub async fn open() -> Result<Self> {
        let (connection, handle, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
        ])
        .context("opening a netlink socket")?;
        let mut netlink = Self {
            handle,
            messages: messages.boxed(),
            neighbours: HashMap::new(),
            connection: tokio::spawn(connection),
        };
        netlink.read_neighbours().await?;
        Ok(netlink)
    }

    pub async fn view(&self) -> Result<View> {
        View::read(&self.handle).await
    }

    /// The next change that calls for something. May be dropped before it is there.
    pub async fn changed(&mut self) -> Result<Change> {
        loop {
            let (message, _) = self
                .messages
                .next()
                .await
                .context("the netlink socket was closed")?;
            if let Some(change) = self.judge(message.payload) {
                return Ok(change);
            }
        }
    }

    /// All changes that are there already, as one.
    pub fn drain(&mut self) -> Option<Change> {
        let mut most = None;
        while let Some(Some((message, _))) = self.messages.next().now_or_never() {
            most = most.max(self.judge(message.payload));
        }
        most
    }

    fn judge(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<Change> {
        use RouteNetlinkMessage as Message;
        match payload {
            NetlinkPayload::InnerMessage(message) => match message {
                Message::NewLink(_)
                | Message::DelLink(_)
                | Message::NewAddress(_)
                | Message::DelAddress(_) => Some(Change::Devices),
                Message::NewRoute(route) | Message::DelRoute(route) => {
                    Some(if is_default(&route) {
                        Change::Devices
                    } else {
                        Change::Path
                    })
                }
                Message::NewNeighbour(neighbour) => {
                    self.resolved(&neighbour).then_some(Change::Path)
                }
                Message::DelNeighbour(neighbour) => {
                    let known = key(&neighbour).and_then(|key| self.neighbours.remove(&key));
                    known.flatten().map(|_| Change::Path)
                }
                _ => None,
            },
            // Messages were lost.
            NetlinkPayload::Overrun(_) => Some(Change::Devices),
            _ => None,
        }
    }

    /// Is a neighbour at another address than the one that hints may hold? (It changes its state all the time.)
    fn resolved(&mut self, neighbour: &NeighbourMessage) -> bool {
        let Some(key) = key(neighbour) else {
            return false;
        };
        let mac = mac(neighbour);
        match self.neighbours.insert(key, mac.clone()) {
            Some(Some(old)) => mac != Some(old),
            Some(None) | None => false,
        }
    }

    async fn read_neighbours(&mut self) -> Result<()> {
        let all: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing the neighbours")?;
        for neighbour in &all {
            self.neighbours
                .extend(key(neighbour).map(|key| (key, mac(neighbour))));
        }
        Ok(())
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn key(neighbour: &NeighbourMessage) -> Option<(u32, IpAddr)> {
    neighbour
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
        .map(|addr| (neighbour.header.ifindex, addr))
}

fn mac(neighbour: &NeighbourMessage) -> Option<Vec<u8>> {
    neighbour
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => Some(mac.clone()),
            _ => None,
        })
}
