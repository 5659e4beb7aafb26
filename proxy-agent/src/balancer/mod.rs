//! Addresses for Services of type LoadBalancer, configured by MetalLB's custom resources.
//!
//! In: Services and pools. Out: the addresses in the status of each Service, which every agent serves.
//!
//! The one rule: an address is in the status of two Services only where they may share it, whoever died, was held up or
//! was started twice meanwhile.
//!
//! | file | subject |
//! |---|---|
//! | `crd` | MetalLB's kinds, as own types |
//! | `object` | Services as the controller reads them |
//! | `demand` | what a Service asks for |
//! | `range`, `pool` | addresses, and who may have them |
//! | `allot` | who has which address: a pure function |
//! | `controller` | the process that writes them |

pub mod allot;
pub mod controller;
pub mod crd;
pub mod demand;
pub mod object;
pub mod pool;
pub mod range;
