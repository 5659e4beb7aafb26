//! What `deploy/` makes of values, and whether the agent takes it.
//!
//! | file | subject |
//! |---|---|
//! | `programs` | `helm` and `kubectl`, which render |
//! | `objects` | what they render, as documents |
//! | `agent` | the DaemonSet of the agent: whether its container is one in which the agent runs |
//! | `controller` | the Deployment that gives addresses to load balancers |
//! | `cleanup` | the DaemonSet that takes everything away |
//! | `cluster` | whether the other objects fit it |

pub mod agent;
pub mod cleanup;
pub mod cluster;
pub mod controller;
pub mod objects;
pub mod programs;

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> PathBuf {
    // Cargo says it where it runs a test; a checkout that was moved is its own.
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let package = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package
        .ancestors()
        .nth(2)
        .map_or_else(|| package.clone(), Path::to_path_buf)
}
