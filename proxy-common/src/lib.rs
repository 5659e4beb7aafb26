//! The pure core of the datapath, and the ABI of its maps.
//!
//! Everything that decides anything about a packet lives here, `no_std` and free of I/O, behind two small traits:
//! [`wire::packet::Packet`] (load and store bytes) and [`tables::Tables`] (map look-ups). The same code runs in XDP, in TC,
//! and in host tests.
//!
//! The rooms, each of which uses only those above it:
//!
//! | room | what | its rule |
//! |---|---|---|
//! | [`raw`], [`addr`], [`reason`] | plain data, addresses and byte order; why a packet was not translated | use nothing |
//! | [`sums`] | the internet checksum and CRC32c | know no packet |
//! | [`abi`] | keys and values of the maps | a change of layout is a change of version |
//! | [`wire`] | a packet's bytes: parse and rewrite | judges nothing |
//! | [`tables`] | the maps as the core sees them | decides nothing |
//! | [`edge`] | the hook that a packet is at, whose it is, what becomes of it | knows no service |
//! | [`service`] | is it for a service, and which backend takes it | knows no flow |
//! | [`way`] | route, device, next hop | chooses no backend |
//! | [`flow`] | keeping connections | rewrites nothing |
//! | [`paths`] | the order of all that, from the packet to the verdict | |
//! | [`explain`] | a dry run on the same tables, and what it asked | writes nothing |
//!
//! A packet's way: [`paths::fast`], which carries established flows and lets strangers pass; what it leaves takes the whole
//! way in [`paths::slow`]: [`wire::parse`] -> [`paths::decide`] (over [`service::select`] and [`flow::track`]) ->
//! [`paths::send`] by [`wire::rewrite`], or [`paths::answer`]. The end is one [`edge::verdict::Verdict`], which the hook
//! turns into its action.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod abi;
pub mod addr;
pub mod edge;
pub mod explain;
pub mod flow;
pub mod paths;
pub mod raw;
pub mod reason;
pub mod service;
pub mod sums;
pub mod tables;
pub mod way;
pub mod wire;
