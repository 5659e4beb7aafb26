//! Does `bpf_fib_lookup` know `BPF_FIB_LOOKUP_SRC` (Linux 6.7, dab4e1f06cab)? Tried by a program that asks with it.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use anyhow::{Context, Result};
use nix::libc;

use super::sys::{Command, bpf};

const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_FUNC_FIB_LOOKUP: u64 = 69;
const BPF_FIB_LOOKUP_SRC: u64 = 1 << 4;
/// Bytes of `struct bpf_fib_lookup`.
const PARAMETERS: i64 = 64;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The head of it for `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct TestRun {
    program: u32,
    returned: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// # Errors
/// Where the program cannot be loaded or run.
pub fn is_known() -> Result<bool> {
    ask(BPF_FIB_LOOKUP_SRC).context("asking bpf_fib_lookup for a source address")
}

/// The helper looks at its flags first, and at the address family next: of none, as here.
fn ask(flags: u64) -> Result<bool> {
    const FRAME: [u8; 64] = [0; 64];
    let program = load(&code(flags))?;
    let mut run = TestRun {
        program: program.as_raw_fd() as u32,
        returned: 0,
        size_in: FRAME.len() as u32,
        size_out: 0,
        data_in: FRAME.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the kernel reads as many bytes of the frame as it has, and writes none.
    unsafe { bpf(Command::ProgTestRun, &mut run)? };
    Ok(run.returned as i32 != -libc::EINVAL)
}

/// `return bpf_fib_lookup(context, zeroes, their size, flags)`, as `struct bpf_insn`s.
fn code(flags: u64) -> Vec<u64> {
    const STORE_ZERO_DW: u64 = 0x7a;
    const MOVE: u64 = 0xbf;
    const MOVE_NUMBER: u64 = 0xb7;
    const ADD_NUMBER: u64 = 0x07;
    const CALL: u64 = 0x85;
    const EXIT: u64 = 0x95;
    const FRAME_POINTER: u64 = 10;
    let number = |value: u64| value << 32;
    let offset = |at: i64| u64::from(at as i16 as u16) << 16;
    let to = |register: u64| register << 8;
    let from = |register: u64| register << 12;
    let places = (-PARAMETERS..0).step_by(8);
    let zero = |at| STORE_ZERO_DW | to(FRAME_POINTER) | offset(at);
    let mut code: Vec<u64> = places.map(zero).collect();
    code.extend([
        MOVE | to(2) | from(FRAME_POINTER),
        ADD_NUMBER | to(2) | number(u64::from(-PARAMETERS as i32 as u32)),
        MOVE_NUMBER | to(3) | number(PARAMETERS as u64),
        MOVE_NUMBER | to(4) | number(flags),
        CALL | number(BPF_FUNC_FIB_LOOKUP),
        EXIT,
    ]);
    // On a machine of the other byte order the fields lie the other way round in a word.
    if cfg!(target_endian = "big") {
        code.iter_mut().for_each(|word| *word = big_endian(*word));
    }
    code
}

/// `code:8 dst:4 src:4 off:16 imm:32`, from the lowest bits, to the same from the highest, `dst` first as on these machines.
fn big_endian(word: u64) -> u64 {
    let [code, registers] = [word & 0xff, word >> 8 & 0xff];
    let registers = (registers & 0xf) << 4 | registers >> 4;
    code << 56 | registers << 48 | (word >> 16 & 0xffff) << 32 | word >> 32
}

fn load(code: &[u64]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: BPF_PROG_TYPE_SCHED_CLS,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    // SAFETY: the code and the licence outlive the call, and the new descriptor is ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(bpf(Command::ProgLoad, &mut load)?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_no_kernel_has_is_unknown() {
        // Without rights nothing can be asked.
        let Ok(known) = ask(1 << 31 >> 1) else { return };
        assert!(!known);
        assert!(ask(0).unwrap());
        let release = nix::sys::utsname::uname().unwrap();
        let release = release.release().to_string_lossy().into_owned();
        let mut numbers = release.split('.').map(|part| part.parse::<u32>());
        if let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) {
            assert_eq!(is_known().unwrap(), (major, minor) >= (6, 7), "{release}");
        }
    }

    #[test]
    fn instructions_of_the_other_byte_order_have_the_same_fields() {
        // mov r2, r10 and r2 += -64
        assert_eq!(big_endian(0xa2bf), 0xbf2a_0000_0000_0000);
        assert_eq!(big_endian(0xffff_ffc0_0000_0207), 0x0720_0000_ffff_ffc0);
    }
}
