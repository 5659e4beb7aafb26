//! Links, addresses and default routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage},
        route::{RouteAttribute, RouteMessage, RouteType},
    },
};

/// What the network namespace has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct View {
    /// By interface index.
    pub links: BTreeMap<u32, Link>,
    /// The devices of default routes.
    pub default_routes: BTreeSet<u32>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    pub name: String,
    pub kind: Kind,
    pub up: bool,
    pub ethernet: bool,
    pub mac: [u8; 6],
    pub mtu: u32,
    /// Index of the bridge, bond or VRF that it is a part of.
    pub master: Option<u32>,
    /// Its other end is in another network namespace.
    pub peer_elsewhere: bool,
    /// In the kernel's order: the first of a family is the one that it would choose.
    pub addresses: Vec<IpAddr>,
}

/// What sort of device it is, as far as that matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Loopback,
    /// A NIC: no software behind it.
    Physical,
    Veth,
    Bridge,
    /// Encapsulates what goes out.
    Tunnel,
    /// Combines NICs (bond, team).
    Aggregate,
    Other,
}

impl View {
    /// Reads everything.
    pub async fn read(handle: &Handle) -> Result<Self> {
        let mut view = Self::default();
        let links: Vec<LinkMessage> = handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing the network devices")?;
        view.links.extend(
            links
                .iter()
                .map(|message| (message.header.index, link(message))),
        );
        let addresses: Vec<AddressMessage> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing the addresses")?;
        for message in &addresses {
            if let (Some(link), Some(addr)) =
                (view.links.get_mut(&message.header.index), address(message))
            {
                link.addresses.push(addr);
            }
        }
        view.read_default_routes(
            handle,
            RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        )
        .await?;
        view.read_default_routes(
            handle,
            RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
        )
        .await?;
        Ok(view)
    }

    async fn read_default_routes(&mut self, handle: &Handle, request: RouteMessage) -> Result<()> {
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(request)
            .execute()
            .try_collect()
            .await
            .context("listing the routes")?;
        for route in routes.iter().filter(|route| is_default(route)) {
            self.default_routes.extend(devices(route));
        }
        Ok(())
    }
}

/// Is it a default route that unicast traffic takes?
pub fn is_default(route: &RouteMessage) -> bool {
    route.header.destination_prefix_length == 0 && route.header.kind == RouteType::Unicast
}

fn devices(route: &RouteMessage) -> Vec<u32> {
    route
        .attributes
        .iter()
        .flat_map(|attribute| match attribute {
            RouteAttribute::Oif(index) => vec![*index],
            RouteAttribute::MultiPath(hops) => hops.iter().map(|hop| hop.interface_index).collect(),
            _ => Vec::new(),
        })
        .collect()
}

fn link(message: &LinkMessage) -> Link {
    let header = &message.header;
    let ethernet = header.link_layer_type == LinkLayerType::Ether;
    let mut link = Link {
        name: String::new(),
        kind: match header.link_layer_type {
            LinkLayerType::Loopback => Kind::Loopback,
            LinkLayerType::Ether => Kind::Physical,
            _ => Kind::Other,
        },
        up: header.flags.contains(LinkFlags::Up),
        ethernet,
        mac: [0; 6],
        mtu: 0,
        master: None,
        peer_elsewhere: false,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => {
                if let Ok(mac) = <[u8; 6]>::try_from(bytes.as_slice()) {
                    link.mac = mac;
                }
            }
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::LinkNetNsId(_) => link.peer_elsewhere = true,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = kind_of(kind);
                    }
                }
            }
            _ => {}
        }
    }
    link
}

fn kind_of(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::Veth | InfoKind::Netkit => Kind::Veth,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Bond | InfoKind::Team => Kind::Aggregate,
        InfoKind::Vxlan
        | InfoKind::Geneve
        | InfoKind::IpIp
        | InfoKind::Ip6Tnl
        | InfoKind::SitTun
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::Wireguard
        | InfoKind::Xfrm
        | InfoKind::Vti
        | InfoKind::Vti6 => Kind::Tunnel,
        _ => Kind::Other,
    }
}

/// The address itself, not that of a point-to-point peer; `None` for one that is in use elsewhere.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    if message.header.flags.contains(AddressHeaderFlags::Dadfailed) {
        return None;
    }
    let mut found = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(addr) => return Some(*addr),
            AddressAttribute::Address(addr) => found = Some(*addr),
            _ => {}
        }
    }
    found
}
