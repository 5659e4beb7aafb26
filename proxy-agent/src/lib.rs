//! The Portside agent.
