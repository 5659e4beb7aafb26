//! The pure core of the datapath, and the ABI of its maps.
//!
//! Everything that decides anything about a packet lives here, `no_std` and free of I/O, behind two small
//! traits: [`packet::Packet`] (load and store bytes) and [`tables::Tables`] (map look-ups). The same code
//! runs in XDP, in TC, and in host tests.
//!
//! A packet's way: [`fast`], which carries established flows and lets strangers pass; what it leaves takes the whole way
//! in [`slow`]: [`parse`] -> [`decide`] (over [`select`] and [`track`]) -> [`send`] by [`rewrite`], or [`answer`]. The
//! end is one [`verdict::Verdict`], which the hook turns into its action.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod addr;
pub mod admit;
pub mod answer;
pub mod classify;
pub mod crc;
pub mod crowd;
pub mod csum;
pub mod decide;
pub mod fast;
pub mod fragment;
pub mod hook;
pub mod icmp;
pub mod own;
pub mod packet;
pub mod parse;
pub mod path;
pub mod proof;
pub mod reason;
pub mod rewrite;
pub mod select;
pub mod send;
pub mod slow;
pub mod tables;
pub mod track;
pub mod verdict;
pub mod work;
