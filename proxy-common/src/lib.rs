//! The pure datapath core and the map ABI.
#![no_std]
