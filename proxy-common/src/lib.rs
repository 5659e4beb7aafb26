//! The pure core of the datapath, and the ABI of its maps.
//!
//! Everything that decides anything about a packet lives here, `no_std` and free of I/O, behind two small
//! traits: [`packet::Packet`] (load and store bytes) and [`tables::Tables`] (map look-ups). The same code
//! runs in XDP, in TC, and in host tests.
//!
//! A packet's way: [`parse`] -> [`decide`] (over [`select`] and [`track`]) -> [`rewrite`] or [`answer`] ->
//! one [`verdict::Verdict`], which the hook turns into its action.
#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod addr;
