//! Before each packet of every test, a dry run of it: it must leave the tables as they are, and foretell what becomes of the packet.

use super::{net::Net, packet::Buffer, tables::World};
use proxy_common::{
    abi::FlowKey,
    addr::{Addr, Family, V4, V6},
    edge::{
        hook::Hook,
        verdict::{Action, Verdict},
        work::Work,
    },
    explain::{Dry, Request, Told, Trace},
    paths::{fast, slow},
    tables::Table,
    wire::packet::Packet,
};

/// Flows beyond which a table is compared by its length alone: some tests fill one with thousands, and send as many packets.
const COMPARED: usize = 64;

impl World {
    /// What becomes of a packet, and the packet then, without a trace in the tables; `None` where the packet's own run comes upon
    /// something else: another CPU's write, or a table that is full.
    pub fn foretell(&self, hook: Hook, packet: &Buffer) -> Option<(Verdict, Buffer)> {
        if self.confirms.get() || self.is_full::<V4>() || self.is_full::<V6>() {
            return None;
        }
        let before = self.content();
        let mut after = packet.clone();
        let (verdict, _) = self.explain(hook, &mut after);
        assert_eq!(self.content(), before, "a dry run wrote something");
        Some((verdict, after))
    }

    /// The same, with what was asked.
    pub fn explain(&self, hook: Hook, packet: &mut Buffer) -> (Verdict, Told) {
        let trace = Trace::new(Request::default());
        let verdict = fast::fast(hook, packet, &Dry::new(self, &trace));
        if verdict.action != Action::Slow {
            return (verdict, trace.told());
        }
        let trace = Trace::new(Request::default());
        let verdict = match packet.ethertype() {
            Some(V4::ETHERTYPE) => self.explain_slow::<V4>(hook, packet, &trace),
            _ => self.explain_slow::<V6>(hook, packet, &trace),
        };
        (verdict, trace.told())
    }

    fn explain_slow<F: Net>(&self, hook: Hook, packet: &mut Buffer, trace: &Trace) -> Verdict {
        // SAFETY: all of it is integers, and enums that have a variant 0.
        let mut work: Work<F::Addr> = unsafe { core::mem::zeroed() };
        let verdict = slow::slow::<F, _, _>(hook, packet, &Dry::new(self, trace), &mut work);
        trace.end_of(verdict, self.clock.get(), &work);
        verdict
    }

    fn is_full<F: Net>(&self) -> bool {
        let maps = F::maps(self);
        [&maps.connections, &maps.datagrams, &maps.pending]
            .iter()
            .any(|flows| flows.len() >= flows.capacity)
    }

    /// All that the programs write, in words.
    fn content(&self) -> Vec<String> {
        let mut content = vec![self.counted()];
        self.content_of::<V4>(&mut content);
        self.content_of::<V6>(&mut content);
        content
    }

    fn content_of<F: Net>(&self, content: &mut Vec<String>) {
        let maps = F::maps(self);
        for table in [Table::Connections, Table::Datagrams, Table::Pending] {
            let flows = maps.flows(table);
            content.push(format!("{} flows", flows.len()));
            if flows.len() <= COMPARED {
                let mut keys = flows.keys();
                keys.sort_by_key(order);
                let entries = keys.iter().map(|key| (key, flows.get(key)));
                content.extend(entries.map(|entry| format!("{entry:?}")));
            }
        }
        content.extend(maps.beside());
    }
}

/// Any order of keys.
fn order<A: Addr>(key: &FlowKey<A>) -> (u32, u32, u16, u16, u32) {
    let tuple = &key.tuple;
    let ends = (tuple.src.fold(), tuple.dst.fold());
    (ends.0, ends.1, tuple.sport.0, tuple.dport.0, key.kind)
}
