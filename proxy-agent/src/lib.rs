//! The Portside agent.

pub mod model;
pub mod source;
