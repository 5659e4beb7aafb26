//! The smallest program for a BPF target: its bitcode shows whether a linker reads what a compiler writes.
#![feature(no_core, lang_items)]
#![allow(internal_features)]
#![no_core]
#![crate_type = "lib"]

#[lang = "pointee_sized"]
trait PointeeSized {}
#[lang = "meta_sized"]
trait MetaSized: PointeeSized {}
#[lang = "sized"]
trait Sized: MetaSized {}

#[unsafe(no_mangle)]
extern "C" fn probe() {}
