//! No call to a memory routine of `compiler_builtins` may survive in the object.
//!
//! LLVM calls `memset`, `memcpy` and their kin where it cannot expand them, and in BPF such a call is a loop over bytes
//! that costs tens of instructions per packet. It comes from innocent source, such as a padding array in a map key.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex,
    SectionKind, SymbolKind, read::elf::ElfFile64,
};

const REFUSED: [&str; 5] = ["memset", "memcpy", "memmove", "memcmp", "bcmp"];

/// Size of a BPF instruction.
const INSTRUCTION: usize = 8;
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// The source register of a call to a function of the same object.
const PSEUDO_CALL: u8 = 1;

pub fn refuse_memory_calls(object: &[u8]) -> anyhow::Result<()> {
    let calls = memory_calls(object)?;
    if calls.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = calls
        .iter()
        .map(|(caller, callee)| format!("  {caller} calls {callee}"))
        .collect();
    bail!(
        "the eBPF object calls memory routines, which loop over bytes:\n{}\n\
         Give keys and values explicit fields instead of padding arrays, and copy or compare them by words.",
        list.join("\n")
    );
}

/// The pairs (caller, routine), routines' calls among themselves left out.
fn memory_calls(object: &[u8]) -> anyhow::Result<BTreeSet<(String, String)>> {
    let file = ElfFile64::<object::Endianness>::parse(object)
        .context("the eBPF object is not an ELF file")?;
    let mut calls = BTreeSet::new();
    for section in file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
    {
        let code = section.data()?;
        let relocations: Vec<_> = section.relocations().collect();
        for (index, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            if instruction[0] != CALL || source_register(instruction[1]) != PSEUDO_CALL {
                continue;
            }
            let at = (index * INSTRUCTION) as u64;
            let immediate = instruction[4..8].try_into().expect("four of eight bytes");
            let immediate = i64::from(i32::from_ne_bytes(immediate));
            let relocation = relocations.iter().find(|(offset, _)| *offset == at);
            let callee = match relocation.map(|(_, relocation)| relocation.target()) {
                Some(RelocationTarget::Symbol(symbol)) => {
                    let symbol = file.symbol_by_index(symbol)?;
                    match (symbol.kind(), symbol.section_index()) {
                        // A reference to a section: the immediate is the distance into it, counted from the next
                        // instruction.
                        (SymbolKind::Section, Some(target)) => {
                            function_at(&file, target, offset(0, immediate))
                        }
                        _ => symbol.name().ok().map(String::from),
                    }
                }
                _ => function_at(&file, section.index(), offset(at, immediate)),
            };
            let Some(callee) = callee.filter(|name| REFUSED.contains(&name.as_str())) else {
                continue;
            };
            let caller = function_at(&file, section.index(), at)
                .unwrap_or_else(|| "a nameless function".into());
            if !REFUSED.contains(&caller.as_str()) {
                calls.insert((caller, callee));
            }
        }
    }
    Ok(calls)
}

fn source_register(registers: u8) -> u8 {
    if cfg!(target_endian = "little") {
        registers >> 4
    } else {
        registers & 0xf
    }
}

/// Where a relative call lands: its immediate counts instructions from the one behind it.
fn offset(at: u64, immediate: i64) -> u64 {
    at.wrapping_add_signed((immediate + 1) * INSTRUCTION as i64)
}

fn function_at(
    file: &ElfFile64<'_, object::Endianness>,
    section: SectionIndex,
    offset: u64,
) -> Option<String> {
    file.symbols()
        .filter(|symbol| {
            symbol.kind() == SymbolKind::Text && symbol.section_index() == Some(section)
        })
        .find(|symbol| {
            (symbol.address()..symbol.address() + symbol.size().max(1)).contains(&offset)
        })
        .and_then(|symbol| symbol.name().ok().map(String::from))
}
