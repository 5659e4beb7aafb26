//! The Portside agent.

pub mod model;
