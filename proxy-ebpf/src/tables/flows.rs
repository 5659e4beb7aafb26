//! Flows, sockets, and what is kept beside flows.

use super::Kernel;
use crate::maps::{self, FamilyMaps};
use aya_ebpf::{
    bindings::{BPF_ANY, BPF_F_CURRENT_NETNS, BPF_NOEXIST, BPF_TCP_CLOSE, BPF_TCP_LISTEN},
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
    },
};
use proxy_common::{
    abi::{Flow, FlowKey, FragmentKey, FragmentPorts, HeldKey, Jiffies, Share, TCP, Tuple, UDP},
    addr::Addr,
    paths::fragment,
    tables::{ClosedCell, EndsCell, FlowCell, Flows, Put, Queues, ShareCell, Table},
};

/// How many queues of closed connections each family has: CPUs that there may be. The agent sets it when it loads the programs.
#[unsafe(no_mangle)]
static QUEUES: u32 = 1;
/// Places of each of them, likewise.
#[unsafe(no_mangle)]
static CLOSED_ROOM: u32 = 1;

impl<F: FamilyMaps> Flows<F> for Kernel {
    #[inline(always)]
    fn flow(&self, table: Table, key: &FlowKey<F::Addr>) -> Option<&FlowCell<F::Addr>> {
        let flow = match table {
            Table::Connections => F::MAPS.flows.get_ptr(key),
            Table::Datagrams => F::MAPS.datagrams.get_ptr(key),
            Table::Pending => F::MAPS.pending.get_ptr(key),
        }?;
        // SAFETY: `FlowCell` is a transparent cell over `Flow`; the element outlives the program's run.
        Some(unsafe { &*flow.cast() })
    }

    #[inline(always)]
    fn put_flow(
        &self,
        table: Table,
        key: &FlowKey<F::Addr>,
        flow: &Flow<F::Addr>,
        put: Put,
    ) -> bool {
        let flags = match put {
            Put::New => BPF_NOEXIST,
            Put::Over => BPF_ANY,
        } as u64;
        match table {
            Table::Connections => F::MAPS.flows.insert(key, flow, flags),
            Table::Datagrams => F::MAPS.datagrams.insert(key, flow, flags),
            Table::Pending => F::MAPS.pending.insert(key, flow, flags),
        }
        .is_ok()
    }

    #[inline(always)]
    fn delete_flow(&self, table: Table, key: &FlowKey<F::Addr>) {
        // A flow that is not there is as good as deleted.
        let _ = match table {
            Table::Connections => F::MAPS.flows.remove(key),
            Table::Datagrams => F::MAPS.datagrams.remove(key),
            Table::Pending => F::MAPS.pending.remove(key),
        };
    }

    #[inline(always)]
    fn queues(&self) -> Queues {
        // SAFETY: statics that nobody writes any more. Read as if they changed, since the compiler knows them as they are in the object.
        let [count, room] = unsafe {
            [&raw const QUEUES, &raw const CLOSED_ROOM].map(|of| of.read_volatile().max(1))
        };
        Queues {
            // SAFETY: the helper takes nothing.
            own: unsafe { bpf_get_smp_processor_id() } % count,
            count,
            room,
        }
    }

    #[inline(always)]
    fn closed_ends(&self, queue: u32) -> Option<&EndsCell> {
        let count = Flows::<F>::queues(self).count;
        let ends = maps::CLOSED_ENDS.get_ptr(F::INDEX * count + queue)?;
        // SAFETY: `EndsCell` is laid out as `Ends`; the element outlives the program's run.
        Some(unsafe { &*ends.cast() })
    }

    #[inline(always)]
    fn closed(&self, place: u32) -> Option<&ClosedCell<F::Addr>> {
        let closed = F::MAPS.closed.get_ptr(place)?;
        // SAFETY: `ClosedCell` is a transparent cell over `Closed`; as for `Ends`.
        Some(unsafe { &*closed.cast() })
    }

    #[inline(always)]
    fn full_since(&self) -> Jiffies {
        match maps::FULL_SINCE.get(F::INDEX) {
            Some(since) => *since,
            None => Jiffies::default(),
        }
    }

    #[inline(always)]
    fn note_full(&self, now: Jiffies) {
        if let Some(since) = maps::FULL_SINCE.get_ptr_mut(F::INDEX) {
            // SAFETY: an aligned word of a map value.
            unsafe { *since = now };
        }
    }

    #[inline(always)]
    fn has_socket(&self, tuple: &Tuple<F::Addr>, proto: u8) -> bool {
        self.has_connection(tuple, proto)
    }

    #[inline(always)]
    fn share(&self, network: &F::Addr) -> Option<&ShareCell> {
        let share = F::MAPS.shares.get_ptr(network)?;
        // SAFETY: `ShareCell` is a transparent cell over `Share`; the element outlives the program's run.
        Some(unsafe { &*share.cast() })
    }

    #[inline(always)]
    fn put_share(&self, network: &F::Addr, share: &Share) {
        // Without room a source is not counted.
        let _ = F::MAPS.shares.insert(network, share, BPF_ANY as u64);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentPorts> {
        // SAFETY: plain data of one word.
        unsafe { F::MAPS.fragments.get(key) }.copied()
    }

    #[inline(always)]
    fn put_fragment(&self, key: &FragmentKey<F::Addr>, ports: &FragmentPorts) {
        // Without room the later fragments go on untouched.
        let _ = F::MAPS.fragments.insert(key, ports, BPF_ANY as u64);
    }

    #[inline(always)]
    fn is_held(&self, key: &FragmentKey<F::Addr>) -> bool {
        let Some(holding) = maps::HOLDING.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: this CPU's element; programs at these hooks do not interrupt one another.
        let holding = unsafe { &mut *holding };
        fragment::describe_key(key, &mut holding.key);
        let key: &HeldKey = &holding.key;
        maps::HELD.get_ptr(key).is_some()
    }
}

impl Kernel {
    /// `Tuple` is laid out as `struct bpf_sock_tuple`, whose family the helpers tell by its size.
    #[inline(always)]
    fn has_connection<A: Addr>(&self, tuple: &Tuple<A>, proto: u8) -> bool {
        let size = size_of::<Tuple<A>>() as u32;
        let netns = BPF_F_CURRENT_NETNS as u64;
        let tuple = (&raw const *tuple).cast_mut().cast();
        // SAFETY: the context is the program's own, and the helpers read the tuple alone.
        let socket = unsafe {
            match proto {
                // Not `bpf_skc_lookup_tcp`: of another pointer's type, its state would need a load of its own.
                TCP => bpf_sk_lookup_tcp(self.context, tuple, size, netns, 0),
                UDP => bpf_sk_lookup_udp(self.context, tuple, size, netns, 0),
                _ => return false,
            }
        };
        if socket.is_null() {
            return false;
        }
        // One that listens, or a UDP socket that is not connected, is nobody's connection to this peer.
        // SAFETY: the helper took a reference, which is given back here.
        unsafe {
            let state = (*socket).state;
            bpf_sk_release(socket.cast());
            state != BPF_TCP_LISTEN && state != BPF_TCP_CLOSE
        }
    }
}
