//! The record of one dry run, as it lies in a map: the request, the steps and the end.
//!
//! Program and reader are of one build, so that the layout has no version. Everything is 32 bits, or plain data of the ABI that is
//! aligned to as much.

use core::cell::UnsafeCell;

use crate::{
    abi::{BackendId, IfIndex, Jiffies, Macs, ServiceId},
    edge::{verdict::Verdict, work::Work},
    tables::{Fib, Hop},
};

/// Steps that are kept: more than a run takes that tries all the source ports that it may. A power of two.
pub const STEPS: usize = 256;

/// Cells that a run may have in its hands at once. A power of two.
const CELLS: usize = 16;
const CELL_WORDS: usize = 22;

/// Words of the largest key, and of the largest value.
const KEY_WORDS: usize = 10;
const VALUE_WORDS: usize = 22;

/// What a program is to run on, besides the packet: of XDP, 5.10 to 5.17 take no device from a test run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Request {
    /// The device at the hook.
    pub ifindex: IfIndex,
    /// A [`crate::abi::Dir`]. A program of one direction does not ask.
    pub dir: u32,
}

/// Which question a step is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Asked {
    Gate = 1,
    Device,
    NextPort,
    Reason,
    Packet,
    Connection,
    Refused,
    Dropped,
    Frontend,
    Service,
    Slot,
    Backend,
    Affinity,
    SetAffinity,
    Ranges,
    Connections,
    Datagrams,
    Pending,
    PutConnections,
    PutDatagrams,
    PutPending,
    DeleteConnections,
    DeleteDatagrams,
    DeletePending,
    Socket,
    Share,
    PutShare,
    LocalAddr,
    Fib,
    NoteNextHop,
    Source,
}

/// One question and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Raw {
    /// An [`Asked`].
    pub asked: u32,
    /// Was it found, or done? Else the value is that of an earlier run.
    pub yes: u32,
    pub key: [u32; KEY_WORDS],
    pub value: [u32; VALUE_WORDS],
}

/// What the routing said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FibTold {
    pub ifindex: IfIndex,
    pub macs: Macs,
    pub mtu: u16,
    /// Is the next hop's MAC known?
    pub is_resolved: u16,
}

impl FibTold {
    pub fn of(fib: Fib) -> Option<Self> {
        match fib {
            Fib::Hop { ifindex, macs, mtu } => Some(Self {
                ifindex,
                macs,
                mtu,
                is_resolved: 1,
            }),
            Fib::Unresolved { ifindex, mtu } => Some(Self {
                ifindex,
                macs: Macs::NONE,
                mtu,
                is_resolved: 0,
            }),
            Fib::None => None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct End {
    /// 1 once the run has come to its end.
    pub is_told: u32,
    /// A [`crate::edge::verdict::Action`].
    pub action: u32,
    /// A [`crate::reason::Reason`].
    pub reason: u32,
    /// The device that the packet leaves by, where the action has one.
    pub ifindex: IfIndex,
    pub now: Jiffies,
    pub service: ServiceId,
    pub backend: BackendId,
    pub is_new: u32,
    /// The way, where a slow path translates.
    pub hop_ifindex: IfIndex,
    pub hop_mtu: u32,
    /// A [`crate::abi::Route`].
    pub hop_route: u32,
    pub is_resolved: u32,
    pub is_aside: u32,
    pub macs: Macs,
}

/// All of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Told {
    pub request: Request,
    pub end: End,
    /// How many steps there were.
    pub count: u32,
    /// How many source ports were asked for.
    ports: u32,
    cells_taken: u32,
    pub steps: [Raw; STEPS],
    cells: [[u32; CELL_WORDS]; CELLS],
}

#[cfg(feature = "user")]
// SAFETY: words alone, and plain data of the ABI, without padding (asserted below).
unsafe impl aya::Pod for Told {}

const _: () = assert!(size_of::<Raw>() == 4 * (2 + KEY_WORDS + VALUE_WORDS));
const _: () = assert!(size_of::<End>() == 4 * 13 + 12);
const _: () = assert!(
    size_of::<Told>()
        == size_of::<Request>()
            + size_of::<End>()
            + 12
            + STEPS * size_of::<Raw>()
            + CELLS * CELL_WORDS * 4
);

impl Told {
    /// One for a run.
    pub fn new(request: Request) -> Self {
        // SAFETY: numbers alone, for which zero is a value.
        let nothing: Self = unsafe { core::mem::zeroed() };
        Self { request, ..nothing }
    }
}

/// A record that is being written.
#[repr(transparent)]
pub struct Trace(UnsafeCell<Told>);

impl Trace {
    pub fn new(request: Request) -> Self {
        Self(UnsafeCell::new(Told::new(request)))
    }

    pub fn told(&self) -> Told {
        // SAFETY: the cell is valid for the life of `&self`; one run writes it, and this is not called meanwhile.
        unsafe { *self.0.get() }
    }

    #[inline(always)]
    pub fn request(&self) -> Request {
        // SAFETY: as in `told`.
        unsafe { (*self.0.get()).request }
    }

    /// Notes a question, and an answer that has a value.
    #[inline(always)]
    pub fn found<K: Copy, V: Copy>(&self, asked: Asked, key: &K, value: &V) {
        const { assert!(size_of::<V>() <= 4 * VALUE_WORDS && align_of::<V>() <= 4) };
        let step = self.next(asked, key);
        // SAFETY: as in `told`; there is room for a value of this size and alignment.
        unsafe {
            (*step).yes = 1;
            *(&raw mut (*step).value).cast::<V>() = *value;
        }
    }

    /// Notes a question whose answer is yes or no.
    #[inline(always)]
    pub fn asked<K: Copy>(&self, asked: Asked, key: &K, yes: bool) {
        let step = self.next(asked, key);
        // SAFETY: as in `told`.
        unsafe { (*step).yes = yes as u32 };
    }

    /// Notes a question, and the answer's value if there is one.
    #[inline(always)]
    pub fn answered<K: Copy, V: Copy>(&self, asked: Asked, key: &K, value: Option<&V>) {
        match value {
            Some(value) => self.found(asked, key, value),
            None => self.asked(asked, key, false),
        }
    }

    #[inline(always)]
    fn next<K: Copy>(&self, asked: Asked, key: &K) -> *mut Raw {
        const { assert!(size_of::<K>() <= 4 * KEY_WORDS && align_of::<K>() <= 4) };
        let told = self.0.get();
        // SAFETY: as in `told`; the index is within the steps, and there is room for a key of this size and alignment.
        unsafe {
            let index = (*told).count as usize & (STEPS - 1);
            (*told).count += 1;
            let step = &raw mut (*told).steps[index];
            (*step).asked = asked as u32;
            *(&raw mut (*step).key).cast::<K>() = *key;
            step
        }
    }

    /// A cell of this run's own with this content.
    #[inline(always)]
    pub(super) fn cell<V: Copy>(&self, content: &V) -> *mut V {
        const { assert!(size_of::<V>() <= 4 * CELL_WORDS && align_of::<V>() <= 4) };
        let told = self.0.get();
        // SAFETY: as in `next`.
        unsafe {
            let index = (*told).cells_taken as usize & (CELLS - 1);
            (*told).cells_taken += 1;
            let cell = (&raw mut (*told).cells[index]).cast::<V>();
            *cell = *content;
            cell
        }
    }

    /// How many source ports were asked for before.
    #[inline(always)]
    pub(super) fn next_port(&self) -> u32 {
        let told = self.0.get();
        // SAFETY: as in `told`.
        unsafe {
            let before = (*told).ports;
            (*told).ports = before + 1;
            before
        }
    }

    /// Notes the end of a fast path.
    #[inline(always)]
    pub fn end(&self, verdict: Verdict, now: Jiffies) {
        let told = self.0.get();
        // SAFETY: as in `told`.
        unsafe {
            let end = &raw mut (*told).end;
            (*end).action = verdict.action as u32;
            (*end).reason = verdict.reason as u32;
            (*end).ifindex = verdict.ifindex;
            (*end).now = now;
            (*end).service = ServiceId::NONE;
            (*end).backend = BackendId::NONE;
            (*end).is_told = 1;
        }
    }

    /// Notes the end of a slow path, with what it knew of the packet.
    #[inline(always)]
    pub fn end_of<A>(&self, verdict: Verdict, now: Jiffies, work: &Work<A>) {
        self.end(verdict, now);
        let Work { about, hop, .. } = work;
        let Hop {
            ifindex,
            macs,
            mtu,
            route,
            aside,
            resolved,
        } = hop;
        let told = self.0.get();
        // SAFETY: as in `told`.
        unsafe {
            let end = &raw mut (*told).end;
            (*end).service = about.service;
            (*end).backend = about.backend;
            (*end).is_new = about.is_new as u32;
            (*end).hop_ifindex = *ifindex;
            (*end).hop_mtu = *mtu as u32;
            (*end).hop_route = *route as u32;
            (*end).is_resolved = *resolved as u32;
            (*end).is_aside = *aside as u32;
            (*end).macs = *macs;
        }
    }
}
