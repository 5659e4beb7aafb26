//! Devices, addresses and routes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net,
};

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use proxy_common::abi::IfIndex;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::{address::AddressMessage, link::LinkMessage, route::RouteMessage},
};

use super::{
    ethtool::takes_tags_off,
    link::{Address, Kind, Link},
    routes::Route,
};

/// What the network namespace has.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct View {
    /// By interface index.
    pub links: BTreeMap<IfIndex, Link>,
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
                .map(|message| (IfIndex(message.header.index), Link::of(message))),
        );
        let addresses: Vec<AddressMessage> = handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .context("listing the addresses")?;
        for message in &addresses {
            if let (Some(link), Some(address)) = (
                view.links.get_mut(&IfIndex(message.header.index)),
                Address::of(message),
            ) {
                link.addresses.push(address);
            }
        }
        view.read_routes(handle, RouteMessageBuilder::<net::Ipv4Addr>::new().build())
            .await?;
        view.read_routes(handle, RouteMessageBuilder::<net::Ipv6Addr>::new().build())
            .await?;
        view.read_reverse_paths();
        view.read_tag_offloads();
        Ok(view)
    }

    /// Asks the devices that have VLANs, and their ports, what becomes of tags. The kernel tells of a change as of a link's.
    fn read_tag_offloads(&mut self) {
        let tagged: BTreeSet<IfIndex> = self
            .links
            .values()
            .filter(|link| link.is_vlan())
            .filter_map(|link| link.lower)
            .collect();
        for (index, link) in &mut self.links {
            let receives = |index: &IfIndex| tagged.contains(index);
            if receives(index) || link.master.as_ref().is_some_and(receives) {
                link.takes_tags_off = takes_tags_off(&link.name);
            }
        }
    }

    /// The VLANs of a device.
    pub fn vlans(&self, index: IfIndex) -> impl Iterator<Item = &Link> {
        self.links
            .values()
            .filter(move |link| link.is_vlan() && link.lower == Some(index))
    }

    async fn read_routes(&mut self, handle: &Handle, request: RouteMessage) -> Result<()> {
        let mut routes = handle.route().get(request).execute();
        while let Some(message) = routes.try_next().await.context("listing the routes")? {
            if let Some(route) = Route::of(&message) {
                self.add_route(&route);
            }
        }
        Ok(())
    }

    pub(super) fn add_route(&mut self, route: &Route) {
        for index in &route.devices {
            if let Some(link) = self.links.get_mut(index) {
                link.ways.add(route);
            }
        }
    }

    /// The devices of default routes.
    pub fn with_default_route(&self) -> impl Iterator<Item = (IfIndex, &Link)> {
        self.links
            .iter()
            .filter(|(_, link)| link.ways.default)
            .map(|(index, link)| (*index, link))
    }

    /// The bridge, bond or switch to which what comes by the device belongs. A VRF takes nothing from its ports.
    pub fn above(&self, index: IfIndex) -> Option<&Link> {
        self.master(self.links.get(&index)?)
            .filter(|master| master.kind != Kind::Vrf)
    }

    pub fn master(&self, link: &Link) -> Option<&Link> {
        self.links.get(&link.master?)
    }
}
