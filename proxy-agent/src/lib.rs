//! The Portside agent.

pub mod balancer;
pub mod cli;
pub mod condition;
pub mod datapath;
pub mod doctor;
pub mod explain;
pub mod log;
pub mod memory;
pub mod migrate;
pub mod model;
pub mod netlink;
pub mod node;
pub mod notices;
mod own_thread;
pub mod plain;
pub mod plan;
pub mod run;
pub mod serve;
pub mod source;
pub mod state;
pub mod version;
