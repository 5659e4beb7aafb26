//! Changes of the network, as they happen.

use std::net::IpAddr;

use anyhow::{Context, Result};
use futures_util::{FutureExt, StreamExt, stream::BoxStream};
use proxy_common::abi::IfIndex;
use rtnetlink::{
    Handle, MulticastGroup, new_connection, new_multicast_connection,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::RouteNetlinkMessage,
    proto::sys::SocketAddr,
};
use tokio::task::JoinHandle;

use super::{Lost, View, neighbours::Neighbours, routes::is_default};

/// What a change calls for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// It is time to look at what sends no event.
    Round,
    /// A qdisc or a filter: the programs may not be where they were.
    Hooks,
    /// A next hop is another one: egress hints are stale.
    Path,
    /// A route is another one: egress hints are stale, and the view may be.
    Route,
    /// Devices, addresses or default routes: read the view anew.
    Devices,
    /// A driver loses what XDP sends.
    XdpLost(Lost),
}

/// A conversation with the kernel, by two sockets. Where changes come faster than they are read, there is no room in the socket that they
/// come by, and the kernel refuses to list anything there (ENOBUFS of `netlink_dump`): so questions have a socket of their own.
pub struct Netlink {
    handle: Handle,
    messages: BoxStream<'static, (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    neighbours: Neighbours,
    connections: [JoinHandle<()>; 2],
}

impl Netlink {
    /// Begins to listen, in the network namespace of the calling thread.
    pub async fn open() -> Result<Self> {
        let (listening, _, messages) = new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
            MulticastGroup::Tc,
        ])
        .context("opening a netlink socket")?;
        let (asking, handle, _) = new_connection().context("opening a netlink socket")?;
        let mut netlink = Self {
            handle,
            messages: messages.boxed(),
            neighbours: Neighbours::default(),
            connections: [tokio::spawn(listening), tokio::spawn(asking)],
        };
        netlink.neighbours = Neighbours::read(&netlink.handle).await?;
        Ok(netlink)
    }

    pub async fn view(&self) -> Result<View> {
        View::read(&self.handle).await
    }

    /// Has the kernel verify these next hops, each by its device's index.
    pub async fn keep_alive(&self, hops: &[(IfIndex, IpAddr)]) {
        self.neighbours.keep_alive(&self.handle, hops).await;
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
                        Change::Route
                    })
                }
                Message::NewNeighbour(neighbour) => {
                    self.neighbours.moved(&neighbour).then_some(Change::Path)
                }
                Message::DelNeighbour(neighbour) => {
                    self.neighbours.gone(&neighbour).then_some(Change::Path)
                }
                Message::NewQueueDiscipline(_)
                | Message::DelQueueDiscipline(_)
                | Message::NewTrafficFilter(_)
                | Message::DelTrafficFilter(_) => Some(Change::Hooks),
                _ => None,
            },
            // Messages were lost.
            NetlinkPayload::Overrun(_) => Some(Change::Devices),
            _ => None,
        }
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connections.iter().for_each(JoinHandle::abort);
    }
}
