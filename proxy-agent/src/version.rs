//! The version of this binary, in words.

/// As `--version` has it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
