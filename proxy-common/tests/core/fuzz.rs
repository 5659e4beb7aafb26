//! Bytes of any kind: the core never panics, never edits what it lets pass (`World::run` asserts it), and what it rewrites has
//! right checksums.
//!
//! Sums are repaired after the damage: a packet with a wrong one says little about the rewrite, and few get past the IPv4 header's.

use std::cell::Cell;

use crate::world::*;
use proptest::{
    prelude::*,
    test_runner::{Config, TestCaseResult, TestRunner},
};
use proxy_common::{
    abi::{IfIndex, SCTP, TCP, Tuple, UDP},
    addr::{V4, V6},
    edge::{hook::Hook, verdict::Action},
    wire::parse::tcp,
};

const CASES: u32 = 2048;

/// Of each hook, the devices that may have it.
const PLACES: [(Hook, IfIndex); 9] = [
    (Hook::XDP_UPLINK, UPLINK),
    (Hook::TC_UPLINK_IN, UPLINK),
    (Hook::TC_UPLINK_IN, TUNNEL),
    (Hook::TC_UPLINK_OUT, UPLINK),
    (Hook::TC_UPLINK_OUT, TUNNEL),
    (Hook::TC_WORKLOAD_IN, VETH_A),
    (Hook::TC_WORKLOAD_OUT, VETH_A),
    (Hook::TC_WORKLOAD_IN, VETH_B),
    (Hook::TC_LOOPBACK_OUT, LO),
];

/// Where packets come from.
const SOURCES: [(u16, u16); 6] = [
    (CLIENT, 4000),
    (CLIENT, 4001),
    (POD_A, 4000),
    (POD_B, 4000),
    (NODE, 4000),
    (REMOTE, BACKEND_PORT),
];

/// Where they go: mostly to the service.
const TARGETS: [(u16, u16); 10] = [
    (NODE, NODE_PORT),
    (NODE, NODE_PORT),
    (CLUSTER_IP, SERVICE_PORT),
    (CLUSTER_IP, SERVICE_PORT),
    (CLUSTER_IP, SERVICE_PORT + 1),
    (EXTERNAL_IP, SERVICE_PORT),
    (LB_IP, SERVICE_PORT),
    (POD_A, BACKEND_PORT),
    (REMOTE, BACKEND_PORT),
    (CLIENT, 4000),
];

/// What one packet is made of.
#[derive(Clone, Debug)]
struct Throw {
    place: usize,
    source: usize,
    target: usize,
    /// To what came out last, where anything did: an answer, or an ICMP error about it.
    reaction: Option<Reaction>,
    flags: u8,
    ttl: u8,
    payload: usize,
    /// Words of IPv4 options; of an IPv6 extension header of padding twice as many.
    options: usize,
    /// At which byte, and what is there then.
    damage: Vec<(prop::sample::Index, u8)>,
    cut: Option<prop::sample::Index>,
}

#[derive(Clone, Copy, Debug)]
enum Reaction {
    Answer,
    Error,
}

fn throws() -> impl Strategy<Value = Throw> {
    let flags = [
        tcp::SYN,
        tcp::SYN,
        tcp::SYN | tcp::ACK,
        tcp::ACK,
        tcp::RST,
        tcp::FIN | tcp::ACK,
    ];
    let reactions = vec![
        None,
        Some(Reaction::Answer),
        Some(Reaction::Answer),
        Some(Reaction::Error),
    ];
    (
        (0..PLACES.len(), 0..SOURCES.len(), 0..TARGETS.len()),
        prop::sample::select(reactions),
        (
            prop::sample::select(flags.to_vec()),
            0u8..66,
            0usize..40,
            prop::sample::select(vec![0, 0, 0, 1, 3]),
        ),
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        prop::option::weighted(0.1, any::<prop::sample::Index>()),
    )
        .prop_map(
            |((place, source, target), reaction, (flags, ttl, payload, options), damage, cut)| {
                Throw {
                    place,
                    source,
                    target,
                    reaction,
                    flags,
                    ttl,
                    payload,
                    options,
                    damage,
                    cut,
                }
            },
        )
}

/// What became of packets, so that a test can demand that some of them were rewritten.
#[derive(Default)]
struct Outcomes {
    damaged: Cell<u32>,
    rewritten_though_damaged: Cell<u32>,
}

impl Outcomes {
    /// Sends the bytes through a hook, and holds what comes out against what has to be right. Gives what was rewritten.
    fn send(
        &self,
        world: &World,
        (hook, device): (Hook, IfIndex),
        bytes: Vec<u8>,
        is_whole: bool,
    ) -> Result<Option<Vec<u8>>, TestCaseError> {
        let damaged = u32::from(!is_whole);
        self.damaged.set(self.damaged.get() + damaged);
        // What repairing cannot mend is no packet whose sums could be told.
        let was_right = bytes.len() > 14 && check(&bytes).is_ok();
        let mut packet = Buffer::new(bytes);
        let verdict = world.run(hook, device, &mut packet);
        // A fragment that is held is left as it came.
        let is_left = [Action::Pass, Action::Drop, Action::Fragment].contains(&verdict.action);
        if is_left || !was_right {
            return Ok(None);
        }
        let rewritten = &self.rewritten_though_damaged;
        rewritten.set(rewritten.get() + damaged);
        prop_assert_eq!(check(&packet.bytes), Ok(()), "{:?}", verdict);
        Ok(Some(packet.bytes))
    }
}

/// The same frame with more between its IP header and what follows it; its sums are another matter.
fn with_options<F: Net>(mut bytes: Vec<u8>, words: usize) -> Vec<u8> {
    if words == 0 {
        return bytes;
    }
    let at = 14 + F::HEADER_LEN;
    let (more, length_at) = if F::IS_V6 {
        let more = 8 * words;
        let mut header = vec![bytes[20], words as u8 - 1, 1, more as u8 - 4];
        header.resize(more, 0);
        bytes[20] = 60;
        (header, 18)
    } else {
        bytes[14] += words as u8;
        (vec![1; 4 * words], 16)
    };
    let length = u16::from_be_bytes([bytes[length_at], bytes[length_at + 1]]) + more.len() as u16;
    bytes[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    bytes.splice(at..at, more);
    bytes
}

/// Sends packets to one node, one after the other.
fn throw_all<F: Net>(proto: u8, throws: &[Throw], outcomes: &Outcomes) -> TestCaseResult {
    let world = World::with_backends(&[REMOTE, POD_A]);
    let mut last: Option<(Tuple<F::Addr>, Vec<u8>)> = None;
    for throw in throws {
        let first = || {
            let end = |(addr, port)| (F::addr(addr), port);
            let frame = Frame::<F>::new(
                proto,
                end(SOURCES[throw.source]),
                end(TARGETS[throw.target]),
            );
            frame.flags(throw.flags)
        };
        let frame = match (throw.reaction, &last) {
            (Some(Reaction::Answer), Some((tuple, _))) => {
                let answer = Frame::<F>::answer(proto, tuple);
                Some(answer.flags(throw.flags | tcp::ACK))
            }
            (Some(Reaction::Error), Some(_)) => None,
            _ => Some(first()),
        };
        let mut bytes = match (&frame, &last) {
            (None, Some((_, about))) => {
                let (kind, code) = if F::IS_V6 { (2, 0) } else { (3, 4) };
                let quoted = 8.min(about.len() - 14 - F::HEADER_LEN);
                icmp_error::<F>(&F::addr(CLIENT), kind, code, about, quoted).bytes
            }
            _ => {
                let frame = frame.clone().unwrap_or_else(first);
                let plain = frame.ttl(throw.ttl).payload(throw.payload).build();
                with_options::<F>(plain.bytes, throw.options)
            }
        };
        for (at, value) in &throw.damage {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = throw.cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        repair(&mut bytes);
        let is_whole = throw.damage.is_empty() && throw.cut.is_none();
        let came_out = outcomes.send(&world, PLACES[throw.place], bytes, is_whole)?;
        if let (Some(out), Some(_), true) = (came_out, frame, is_whole && throw.options == 0) {
            let seen = see_at::<F>(&out, 14);
            if seen.proto == proto {
                last = Some((seen.tuple, out));
            }
        }
    }
    Ok(())
}

/// Runs a test of which at least so many percent of the damaged packets have to be rewritten.
fn run<S: Strategy>(strategy: S, least: u32, test: impl Fn(S::Value, &Outcomes) -> TestCaseResult) {
    let outcomes = Outcomes::default();
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    };
    let result = TestRunner::new(config).run(&strategy, |value| test(value, &outcomes));
    if let Err(error) = result {
        panic!("{error}");
    }
    let damaged = outcomes.damaged.get();
    let rewritten = outcomes.rewritten_though_damaged.get();
    assert!(
        rewritten * 100 >= damaged * least,
        "{rewritten} of {damaged} damaged packets were rewritten"
    );
}

#[test]
fn damaged_packets_do_no_harm() {
    let strategy = (
        prop::sample::select(vec![TCP, UDP, SCTP]),
        any::<bool>(),
        prop::collection::vec(throws(), 1..12),
    );
    run(strategy, 10, |(proto, is_v6, throws), outcomes| {
        if is_v6 {
            throw_all::<V6>(proto, &throws, outcomes)
        } else {
            throw_all::<V4>(proto, &throws, outcomes)
        }
    });
}

/// No more is asked of them: hardly any is a packet of the service.
#[test]
fn arbitrary_bytes_do_no_harm() {
    let strategy = (prop::collection::vec(any::<u8>(), 0..200), 0..3);
    run(strategy, 0, |(mut bytes, kind), outcomes| {
        // Mostly IP, or little would get past the EtherType.
        if bytes.len() > 14 && kind > 0 {
            let (ethertype, version) = if kind == 1 {
                ([8, 0], 0x45)
            } else {
                ([0x86, 0xdd], 0x60)
            };
            bytes[12..14].copy_from_slice(&ethertype);
            bytes[14] = version;
        }
        repair(&mut bytes);
        let world = World::with_backends(&[REMOTE, POD_A]);
        for place in PLACES {
            outcomes.send(&world, place, bytes.clone(), false)?;
        }
        Ok(())
    });
}
