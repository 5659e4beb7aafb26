//! What a measurement asks of an address family.

use anyhow::Result;
use aya::Pod;
use proxy_agent::datapath::{Datapath, FamilyMaps, MapAddr};
use proxy_common::abi::{Backend, Flow, FlowKey, FrontendKey};
use proxy_common::addr::{Addr as _, Ip4, Ip6};

/// An address family's part of the measurement.
pub trait Family: MapAddr
where
    Backend<Self>: Pod,
{
    const NAME: &'static str;
    const IS_V6: bool;
    /// An address whose low half is `n`.
    fn numbered(net: u8, n: u16) -> Self;
    fn bytes(self) -> Vec<u8>;
    fn maps(datapath: &mut Datapath) -> &mut FamilyMaps<Self>;
    fn put_flow(maps: &mut FamilyMaps<Self>, key: FlowKey<Self>, flow: Flow<Self>) -> Result<()>;
    fn put_frontend(maps: &mut FamilyMaps<Self>, key: FrontendKey<Self>, to: u32) -> Result<()>;
    /// Entries of the tables of confirmed and of pending flows.
    fn count_flows(maps: &FamilyMaps<Self>) -> [usize; 2];
    /// Removes the flows whose keys are asked for; gives those that were confirmed, and how many were not.
    fn remove_flows(
        maps: &mut FamilyMaps<Self>,
        is_asked: &dyn Fn(&FlowKey<Self>) -> bool,
    ) -> Result<(Vec<Flow<Self>>, usize)>;
}

/// A family: its maps, and what its addresses look like. The bodies are one text, which a generic one is not: that an address's keys
/// are plain data is known of each family, and not of all.
macro_rules! family {
    ($addr:ty, $name:literal, $is_v6:literal, $maps:ident, |$net:ident, $a:ident, $b:ident| $numbered:expr) => {
        impl Family for $addr {
            const NAME: &'static str = $name;
            const IS_V6: bool = $is_v6;

            fn numbered($net: u8, n: u16) -> Self {
                let [$a, $b] = n.to_be_bytes();
                $numbered.into()
            }

            fn bytes(self) -> Vec<u8> {
                let words = (0..Self::WORDS).flat_map(|index| self.word(index).to_ne_bytes());
                words.collect()
            }

            fn maps(datapath: &mut Datapath) -> &mut FamilyMaps<Self> {
                &mut datapath.maps_mut().$maps
            }

            fn put_flow(
                maps: &mut FamilyMaps<Self>,
                key: FlowKey<Self>,
                flow: Flow<Self>,
            ) -> Result<()> {
                Ok(maps.confirmed(key.proto()).insert(key, flow, 0)?)
            }

            fn put_frontend(
                maps: &mut FamilyMaps<Self>,
                key: FrontendKey<Self>,
                to: u32,
            ) -> Result<()> {
                Ok(maps.frontends.insert(key, to, 0)?)
            }

            fn count_flows(maps: &FamilyMaps<Self>) -> [usize; 2] {
                count(maps)
            }

            fn remove_flows(
                maps: &mut FamilyMaps<Self>,
                is_asked: &dyn Fn(&FlowKey<Self>) -> bool,
            ) -> Result<(Vec<Flow<Self>>, usize)> {
                remove(maps, is_asked)
            }
        }
    };
}

family!(Ip4, "IPv4", false, v4, |net, a, b| [10, net, a, b]);
family!(Ip6, "IPv6", true, v6, |net, a, b| [
    0x20, 1, 0x0d, 0xb8, 0, net, 0, 0, 0, 0, 0, 0, 0, 0, a, b
]);

fn count<A: MapAddr>(maps: &FamilyMaps<A>) -> [usize; 2]
where
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let [connections, datagrams, pending] =
        [&maps.flows, &maps.datagrams, &maps.pending].map(|table| table.keys().count());
    [connections + datagrams, pending]
}

fn remove<A: MapAddr>(
    maps: &mut FamilyMaps<A>,
    is_asked: &dyn Fn(&FlowKey<A>) -> bool,
) -> Result<(Vec<Flow<A>>, usize)>
where
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    let mut flows = [Vec::new(), Vec::new(), Vec::new()];
    for (table, flows) in [&mut maps.flows, &mut maps.datagrams, &mut maps.pending]
        .into_iter()
        .zip(&mut flows)
    {
        let keys = table.keys().collect::<Result<Vec<_>, _>>()?;
        for key in keys.iter().filter(|key| is_asked(key)) {
            flows.push(table.get(key, 0)?);
            table.remove(key)?;
        }
    }
    let [mut confirmed, datagrams, pending] = flows;
    confirmed.extend(datagrams);
    Ok((confirmed, pending.len()))
}
