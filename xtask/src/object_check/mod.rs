//! A last look at the eBPF object before anybody loads it.
//!
//! | file | subject |
//! |---|---|
//! | `calls` | no call to a memory routine of `compiler_builtins` |
//! | `maps` | the maps are those of the table in `proxy-common` |
//! | `btf` | the object's types, as the compiler describes them to the kernel |

mod btf;
mod calls;
mod maps;

pub use calls::refuse_memory_calls;
pub use maps::compare_with_table;
