//! Counters; every table of them is a per-CPU array.

/// Traffic of one backend, indexed by backend id. Bytes are those of layer 3.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct Counter {
    /// Packets from clients to the backend.
    pub packets: u64,
    pub bytes: u64,
    /// Packets of replies, counted where they are restored.
    pub reply_packets: u64,
    pub reply_bytes: u64,
    /// New flows.
    pub connections: u64,
}

/// What happened to a service outside its backends, indexed by service id.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[repr(C)]
pub struct ServiceCounter {
    /// New flows.
    pub connections: u64,
    /// Packets that were refused (reset or ICMP unreachable).
    pub refused: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

layout!(Counter {
    packets,
    bytes,
    reply_packets,
    reply_bytes,
    connections
});
layout!(ServiceCounter {
    connections,
    refused,
    dropped
});

const _: () = assert!(size_of::<Counter>() == 40);
const _: () = assert!(size_of::<ServiceCounter>() == 24);
