//! What tests need of an address family beyond the core's own `Family`.

use super::tables::{Maps, World};
use proxy_common::{
    addr::{Addr, Ip4, Ip6, V4, V6},
    paths::answer::AnswerIp,
    wire::parse::ParseIp,
};

pub trait Net: ParseIp + AnswerIp + Sized {
    /// Address number `n` of the test network.
    fn addr(n: u16) -> Self::Addr;
    fn loopback() -> Self::Addr;
    /// The address's bytes as they lie in a header.
    fn bytes(addr: &Self::Addr) -> Vec<u8> {
        (0..Self::Addr::WORDS)
            .flat_map(|i| addr.word(i).to_ne_bytes())
            .collect()
    }
    /// The address whose header bytes these are.
    fn from_bytes(bytes: &[u8]) -> Self::Addr;
    /// This family's tables.
    fn maps(world: &World) -> &Maps<Self>;
    fn maps_mut(world: &mut World) -> &mut Maps<Self>;
}

impl Net for V4 {
    fn addr(n: u16) -> Ip4 {
        let [high, low] = n.to_be_bytes();
        [10, 7, high, low].into()
    }

    fn loopback() -> Ip4 {
        [127, 0, 0, 1].into()
    }

    fn from_bytes(bytes: &[u8]) -> Ip4 {
        <[u8; 4]>::try_from(bytes).unwrap().into()
    }

    fn maps(world: &World) -> &Maps<V4> {
        &world.v4
    }

    fn maps_mut(world: &mut World) -> &mut Maps<V4> {
        &mut world.v4
    }
}

impl Net for V6 {
    fn addr(n: u16) -> Ip6 {
        core::net::Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, n).into()
    }

    fn loopback() -> Ip6 {
        core::net::Ipv6Addr::LOCALHOST.into()
    }

    fn from_bytes(bytes: &[u8]) -> Ip6 {
        <[u8; 16]>::try_from(bytes).unwrap().into()
    }

    fn maps(world: &World) -> &Maps<V6> {
        &world.v6
    }

    fn maps_mut(world: &mut World) -> &mut Maps<V6> {
        &mut world.v6
    }
}
