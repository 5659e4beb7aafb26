//! Checks that a program runs in an empty image: it needs no interpreter and no library.

use anyhow::{Context as _, ensure};
use object::{
    Endianness,
    elf::PT_INTERP,
    read::elf::{ElfFile64, ProgramHeader as _},
};

/// An error if the program asks the kernel for an interpreter (`PT_INTERP`), which is the dynamic linker. A static one
/// that moves itself to its address (static-pie) has none.
pub fn refuse_dynamic(program: &[u8]) -> anyhow::Result<()> {
    let file = ElfFile64::<Endianness>::parse(program).context("not an ELF file of 64 bits")?;
    let dynamic = file
        .elf_program_headers()
        .iter()
        .any(|header| header.p_type(file.endian()) == PT_INTERP);
    ensure!(
        !dynamic,
        "linked dynamically, so it would not start in an image that holds nothing else"
    );
    Ok(())
}
