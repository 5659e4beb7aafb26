//! The record, typed: a step for each question that is worth telling.

use crate::{
    abi::{
        Affinity, AffinityKey, Backend, BackendId, Device, Flow, FlowKey, FrontendKey, FrontendRef,
        IfIndex, LocalAddr, RangeKey, Service, ServiceId, Share, Slot, Tuple, gate,
    },
    addr::{Addr, Family},
    edge::verdict::Action,
    explain::trace::{Asked, FibTold, Raw, STEPS, Told},
    reason::Reason,
    tables::Table,
};

/// A question, and its answer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Step<A> {
    Gate {
        bit: gate::Bit,
        is_open: bool,
    },
    Device {
        ifindex: IfIndex,
        found: Option<Device>,
    },
    NextPort,
    Reason {
        hook: u32,
        reason: Option<Reason>,
    },
    Packet {
        backend: BackendId,
        bytes: u32,
        is_reply: bool,
    },
    Connection,
    /// A packet of a service is counted as refused.
    Refused(ServiceId),
    Dropped(ServiceId),
    Frontend {
        key: FrontendKey<A>,
        found: Option<FrontendRef>,
    },
    Service {
        id: ServiceId,
        found: Option<Service>,
    },
    Slot {
        index: Slot,
        found: Option<BackendId>,
    },
    Backend {
        id: BackendId,
        found: Option<Backend<A>>,
    },
    Affinity {
        key: AffinityKey<A>,
        found: Option<Affinity>,
    },
    SetAffinity,
    Ranges {
        key: RangeKey<A>,
        is_in: bool,
    },
    Flow {
        table: Table,
        key: FlowKey<A>,
        found: Option<Flow<A>>,
    },
    PutFlow {
        table: Table,
        key: FlowKey<A>,
        /// `None`: there is another one.
        stored: Option<Flow<A>>,
    },
    DeleteFlow {
        table: Table,
        key: FlowKey<A>,
    },
    Socket {
        tuple: Tuple<A>,
        has: bool,
    },
    Share {
        source: A,
        found: Option<Share>,
    },
    PutShare,
    LocalAddr {
        addr: A,
        found: Option<LocalAddr>,
    },
    Fib {
        src: A,
        dst: A,
        found: Option<FibTold>,
    },
    NoteNextHop,
    Source {
        dst: A,
        found: Option<A>,
    },
}

/// Plain data that lies at the beginning of some words.
fn read<V: Copy>(words: &[u32]) -> V {
    const { assert!(align_of::<V>() <= 4) };
    assert!(size_of::<V>() <= size_of_val(words));
    // SAFETY: the words are long enough and aligned; they were written as such a value, of plain data, by `Trace`.
    unsafe { *words.as_ptr().cast() }
}

impl Raw {
    fn key<K: Copy>(&self) -> K {
        read(&self.key)
    }

    fn value<V: Copy>(&self) -> Option<V> {
        (self.yes != 0).then(|| read(&self.value))
    }

    fn typed<A: Addr>(&self) -> Option<Step<A>> {
        let yes = self.yes != 0;
        let is = |asked: Asked| self.asked == asked as u32;
        let flow = |table| Step::Flow {
            table,
            key: self.key(),
            found: self.value(),
        };
        let put = |table| Step::PutFlow {
            table,
            key: self.key(),
            stored: self.value(),
        };
        let delete = |table| Step::DeleteFlow {
            table,
            key: self.key(),
        };
        let [first, second, third, ..] = self.key;
        Some(match self.asked {
            _ if is(Asked::Gate) => Step::Gate {
                bit: gate::Bit {
                    word: first,
                    mask: u64::from(second) | u64::from(third) << 32,
                },
                is_open: yes,
            },
            _ if is(Asked::Device) => Step::Device {
                ifindex: self.key(),
                found: self.value(),
            },
            _ if is(Asked::NextPort) => Step::NextPort,
            _ if is(Asked::Reason) => Step::Reason {
                hook: first,
                reason: Reason::ALL.get(second as usize).copied(),
            },
            _ if is(Asked::Packet) => Step::Packet {
                backend: BackendId(first),
                bytes: second,
                is_reply: third != 0,
            },
            _ if is(Asked::Connection) => Step::Connection,
            _ if is(Asked::Refused) => Step::Refused(self.key()),
            _ if is(Asked::Dropped) => Step::Dropped(self.key()),
            _ if is(Asked::Frontend) => Step::Frontend {
                key: self.key(),
                found: self.value(),
            },
            _ if is(Asked::Service) => Step::Service {
                id: self.key(),
                found: self.value(),
            },
            _ if is(Asked::Slot) => Step::Slot {
                index: self.key(),
                found: self.value(),
            },
            _ if is(Asked::Backend) => Step::Backend {
                id: self.key(),
                found: self.value(),
            },
            _ if is(Asked::Affinity) => Step::Affinity {
                key: self.key(),
                found: self.value(),
            },
            _ if is(Asked::SetAffinity) => Step::SetAffinity,
            _ if is(Asked::Ranges) => Step::Ranges {
                key: self.key(),
                is_in: yes,
            },
            _ if is(Asked::Connections) => flow(Table::Connections),
            _ if is(Asked::Datagrams) => flow(Table::Datagrams),
            _ if is(Asked::Pending) => flow(Table::Pending),
            _ if is(Asked::PutConnections) => put(Table::Connections),
            _ if is(Asked::PutDatagrams) => put(Table::Datagrams),
            _ if is(Asked::PutPending) => put(Table::Pending),
            _ if is(Asked::DeleteConnections) => delete(Table::Connections),
            _ if is(Asked::DeleteDatagrams) => delete(Table::Datagrams),
            _ if is(Asked::DeletePending) => delete(Table::Pending),
            _ if is(Asked::Socket) => Step::Socket {
                tuple: self.key(),
                has: yes,
            },
            _ if is(Asked::Share) => Step::Share {
                source: self.key(),
                found: self.value(),
            },
            _ if is(Asked::PutShare) => Step::PutShare,
            _ if is(Asked::LocalAddr) => Step::LocalAddr {
                addr: self.key(),
                found: self.value(),
            },
            _ if is(Asked::Fib) => {
                let [src, dst] = self.key();
                Step::Fib {
                    src,
                    dst,
                    found: self.value(),
                }
            }
            _ if is(Asked::NoteNextHop) => Step::NoteNextHop,
            _ if is(Asked::Source) => Step::Source {
                dst: self.key(),
                found: self.value(),
            },
            _ => return None,
        })
    }
}

impl Told {
    /// The steps of a run of family `F`, in their order.
    pub fn steps<F: Family>(&self) -> impl Iterator<Item = Step<F::Addr>> {
        let kept = &self.steps[..STEPS.min(self.count as usize)];
        kept.iter().filter_map(Raw::typed)
    }

    /// What becomes of the packet; `None` for a run that did not come to its end.
    pub fn action(&self) -> Option<Action> {
        if self.end.is_told == 0 {
            return None;
        }
        Action::ALL.get(self.end.action as usize).copied()
    }

    /// Why, where the action does not say it.
    pub fn reason(&self) -> Option<Reason> {
        Reason::ALL.get(self.end.reason as usize).copied()
    }
}
