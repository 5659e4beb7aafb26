//! Raises the limit of open files: the agent holds one for each map, program, pinned link and connection.
//!
//! A process may have 1,024, unless it asks for what it may ask for (the soft and the hard limit of getrlimit(2)). A node with some
//! hundred pods needs more.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing::debug;

/// Asks for as many as there may be. Where it cannot, what needs one more file says so.
pub fn allow_all() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        debug!("the limit of open files stays as it is: {error}");
    }
}
