//! The testbed: small clusters made of network namespaces, with real sockets in them.
//!
//! A [`topology`] is outside clients, a router and nodes with pods. On it stand [`sockets`] (servers that say who they
//! are and whom they saw, clients that report the outcome in the specification's words), [`wire`] (packets captured
//! and injected), [`agent`]s and the [`manifests`] that they watch. A [`cluster`] is all of them together; [`runner`]
//! turns rows of a table into named tests.
//!
//! **Rule: nothing outlives its owner.** Every kernel object carries the name of the run that made it, goes away when
//! its Rust value is dropped, and is reaped by the next run if the owner was killed ([`run`]).

pub mod address;
pub mod agent;
pub mod answer;
pub mod ask;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod container;
pub mod deployment;
mod ethtool;
mod files;
mod interface;
pub mod kube_proxy;
pub mod manifests;
pub mod masquerade;
pub mod meanwhile;
pub mod memory_group;
pub mod netns;
pub mod older;
pub mod one_cpu;
pub mod outside;
pub mod pass;
pub mod patience;
pub mod pinned;
pub mod random;
pub mod run;
pub mod runner;
pub mod sockets;
pub mod tamper;
pub mod topology;
pub mod wire;
pub mod xdp;
