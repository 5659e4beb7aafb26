//! The suites: each is a program of its own under `tests/tests`, whose rows are named tests.
//!
//! What they stand on are crates beside this one: `testbed`, `api-server`, and `demo`, which has a suite, too. The benchmarks are the
//! crate `bench`; what only virtual machines need is `guest`.
