//! The place where a packet meets a program: the hook, what the stack would ask of the packet there, and what becomes of it.
//! No service is known here.

pub mod admit;
pub mod decision;
pub mod hook;
pub mod verdict;
pub mod work;
