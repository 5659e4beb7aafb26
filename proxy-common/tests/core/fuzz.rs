//! Bytes of any kind: the core never panics, never edits what it lets pass (`World::run` asserts it), and what
//! it rewrites has right checksums if it had them before.

use crate::world::*;
use proptest::prelude::*;
use proxy_common::{
    abi::{SCTP, TCP, UDP},
    addr::{V4, V6},
    edge::{hook::Hook, verdict::Action},
};

/// Sends the bytes through every hook of a new node.
fn throw(bytes: &[u8]) -> Result<(), TestCaseError> {
    let was_right = bytes.len() > 14 && check(bytes).is_ok();
    for hook in Hook::ALL {
        let world = World::with_backends(&[REMOTE, POD_A]);
        let mut packet = Buffer::new(bytes.to_vec());
        let verdict = world.run(hook, UPLINK, &mut packet);
        if was_right && !matches!(verdict.action, Action::Pass | Action::Drop) {
            prop_assert_eq!(check(&packet.bytes), Ok(()), "{:?}", verdict);
        }
    }
    Ok(())
}

fn good<F: Net>(proto: u8) -> Vec<u8> {
    Frame::<F>::new(proto, (F::addr(CLIENT), 4000), (F::addr(NODE), NODE_PORT))
        .build()
        .bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]
    #[test]
    fn arbitrary_bytes_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0..3,
    ) {
        // Mostly IP, or little would get past the EtherType.
        if bytes.len() > 14 && kind > 0 {
            let (ethertype, version) = if kind == 1 { ([8, 0], 0x45) } else { ([0x86, 0xdd], 0x60) };
            bytes[12..14].copy_from_slice(&ethertype);
            bytes[14] = version;
        }
        throw(&bytes)?;
    }

    #[test]
    fn damaged_packets_do_no_harm(
        proto in prop::sample::select(vec![TCP, UDP, SCTP]),
        is_v6 in any::<bool>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = if is_v6 { good::<V6>(proto) } else { good::<V4>(proto) };
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        throw(&bytes)?;
    }
}
