//! A packet's bytes: reading headers, and writing a translation into them. Nothing is judged here.

pub mod packet;
pub mod parse;
pub mod rewrite;
