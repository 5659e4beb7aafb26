//! A gate that was made anew, for the flows that go on.
//!
//! The plan opens the gate for its services and backends. A flow outlives both, and what has made it may be gone.

use anyhow::{Context, Result};
use aya::Pod;
use proxy_common::{
    abi::{
        Backend, Flow, FlowKey,
        gate::{self, Bit},
        names,
    },
    addr::Addr,
};

use super::super::{FamilyMaps, Maps};

/// Opens the gate for the packets of all flows, in both directions.
pub fn open_for_flows(maps: &mut Maps) -> Result<()> {
    let mut bits = Vec::new();
    collect(&maps.v4, 0, &mut bits)?;
    collect(&maps.v6, 1, &mut bits)?;
    let mut words = maps.gate.all().context(names::GATE)?;
    for Bit { word, mask } in bits {
        if let Some(word) = words.get_mut(word as usize) {
            *word |= mask;
        }
    }
    let open = (0..).zip(words).filter(|(_, word)| *word != 0);
    let (keys, words): (Vec<u32>, Vec<u64>) = open.unzip();
    maps.gate.set_all(&keys, &words).context(names::GATE)
}

fn collect<A>(maps: &FamilyMaps<A>, family: usize, bits: &mut Vec<Bit>) -> Result<()>
where
    A: Addr,
    Backend<A>: Pod,
    FlowKey<A>: Pod,
    Flow<A>: Pod,
{
    for (map, name) in maps.flow_tables(family) {
        for (key, flow) in map.entries().context(name)? {
            if flow.is_reply() {
                continue;
            }
            let (client, server) = (&key.tuple, &flow.to);
            bits.extend([
                gate::service_addr(&client.dst),
                gate::node_port(key.proto(), client.dport),
                gate::backend_addr(&server.dst),
                gate::backend_port(server.dport),
            ]);
        }
    }
    Ok(())
}
