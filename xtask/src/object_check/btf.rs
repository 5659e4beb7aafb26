//! The object's maps, read from its BTF (kernel Documentation/bpf/btf.rst).
//!
//! A map is a variable of the section `.maps`, of a struct whose members point to what they tell: numbers as the length of an array, key
//! and value as their types.

use anyhow::{Context as _, bail, ensure};
use object::{Object as _, ObjectSection as _, read::elf::ElfFile64};

const MAGIC: u16 = 0xeb9f;

/// A map as the object declares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Map {
    pub name: String,
    pub kind: u32,
    pub entries: u32,
    pub flags: u32,
    pub key: Vec<Part>,
    pub value: Vec<Part>,
}

/// A primitive part of a key or value, or an array of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub path: String,
    pub offset: u32,
    /// Size in bytes of one.
    pub size: u32,
    pub count: u32,
}

struct Type<'a> {
    name: u32,
    kind: u32,
    /// Size or type, whatever the kind has.
    word: u32,
    /// What follows the header, as words.
    rest: Vec<u32>,
    strings: &'a [u8],
}

struct Types<'a>(Vec<Type<'a>>);

/// The maps of an object.
pub fn maps(object: &[u8]) -> anyhow::Result<Vec<Map>> {
    let file = ElfFile64::<object::Endianness>::parse(object)
        .context("the eBPF object is not an ELF file")?;
    let section = file
        .section_by_name(".BTF")
        .context("the eBPF object has no BTF: is it linked with --btf?")?;
    let types = Types::parse(section.data()?)?;
    let maps = types
        .0
        .iter()
        .find(|of| of.kind == kind::DATASEC && of.name() == ".maps")
        .context("the eBPF object has no section .maps")?;
    maps.rest
        .chunks_exact(3)
        .map(|variable| {
            let variable = types.get(variable[0])?;
            let name = variable.name();
            types
                .map(name, variable.word)
                .with_context(|| format!("map {name}"))
        })
        .collect()
}

mod kind {
    pub const INT: u32 = 1;
    pub const PTR: u32 = 2;
    pub const ARRAY: u32 = 3;
    pub const STRUCT: u32 = 4;
    pub const UNION: u32 = 5;
    pub const ENUM: u32 = 6;
    pub const TYPEDEF: u32 = 8;
    pub const RESTRICT: u32 = 11;
    pub const FUNC_PROTO: u32 = 13;
    pub const VAR: u32 = 14;
    pub const DATASEC: u32 = 15;
    pub const DECL_TAG: u32 = 17;
    pub const ENUM64: u32 = 19;
    pub const LAST: u32 = ENUM64;
}

impl Type<'_> {
    fn name(&self) -> &str {
        string(self.strings, self.name)
    }
}

fn string(strings: &[u8], at: u32) -> &str {
    let rest = strings.get(at as usize..).unwrap_or_default();
    let end = rest.iter().position(|byte| *byte == 0);
    str::from_utf8(&rest[..end.unwrap_or(0)]).unwrap_or_default()
}

fn word(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    let four = bytes.get(at..at + 4).context("the BTF ends early")?;
    Ok(u32::from_ne_bytes(four.try_into()?))
}

impl<'a> Types<'a> {
    fn parse(btf: &'a [u8]) -> anyhow::Result<Self> {
        let begin = word(btf, 0)?.to_ne_bytes();
        ensure!(
            u16::from_ne_bytes([begin[0], begin[1]]) == MAGIC,
            "no BTF of this machine's byte order"
        );
        let [header, types, types_len, strings] = [4, 8, 12, 16].map(|at| word(btf, at));
        let (header, types) = (header? as usize, types? as usize);
        let strings = btf
            .get(header + strings? as usize..)
            .context("the BTF ends before its strings")?;
        let mut at = header + types;
        let end = at + types_len? as usize;
        // Type 0 is void.
        let mut all = vec![Type {
            name: 0,
            kind: 0,
            word: 0,
            rest: Vec::new(),
            strings,
        }];
        while at < end {
            let (name, info, size_or_type) =
                (word(btf, at)?, word(btf, at + 4)?, word(btf, at + 8)?);
            let (kind, many) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let words = match kind {
                kind::INT | kind::VAR | kind::DECL_TAG => 1,
                kind::ARRAY => 3,
                kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 3 * many,
                kind::ENUM | kind::FUNC_PROTO => 2 * many,
                1..=kind::LAST => 0,
                _ => bail!("the BTF has a type of the unknown kind {kind}"),
            };
            let rest = (0..words).map(|index| word(btf, at + 12 + 4 * index));
            all.push(Type {
                name,
                kind,
                word: size_or_type,
                rest: rest.collect::<anyhow::Result<_>>()?,
                strings,
            });
            at += 12 + 4 * words;
        }
        Ok(Self(all))
    }

    fn get(&self, id: u32) -> anyhow::Result<&Type<'a>> {
        self.0
            .get(id as usize)
            .with_context(|| format!("the BTF has no type {id}"))
    }

    /// The same without names and qualifiers.
    fn plain(&self, mut id: u32) -> anyhow::Result<&Type<'a>> {
        loop {
            let found = self.get(id)?;
            if !(kind::TYPEDEF..=kind::RESTRICT).contains(&found.kind) {
                return Ok(found);
            }
            id = found.word;
        }
    }

    fn map(&self, name: &str, declared: u32) -> anyhow::Result<Map> {
        let declared = self.plain(declared)?;
        ensure!(declared.kind == kind::STRUCT, "it is not a struct");
        let target = |member: &str| -> anyhow::Result<u32> {
            let found = declared
                .rest
                .chunks_exact(3)
                .find(|found| string(declared.strings, found[0]) == member)
                .with_context(|| format!("it has no member {member}"))?;
            let pointer = self.plain(found[1])?;
            ensure!(
                pointer.kind == kind::PTR,
                "its member {member} is no pointer"
            );
            Ok(pointer.word)
        };
        let number = |member: &str| -> anyhow::Result<u32> {
            let array = self.plain(target(member)?)?;
            ensure!(
                array.kind == kind::ARRAY,
                "its member {member} tells no number"
            );
            Ok(array.rest[2])
        };
        let parts = |member: &str| -> anyhow::Result<Vec<Part>> {
            let mut parts = Vec::new();
            self.tell(target(member)?, "", 0, &mut parts)
                .with_context(|| member.to_owned())?;
            Ok(parts)
        };
        Ok(Map {
            name: name.to_owned(),
            kind: number("type")?,
            entries: number("max_entries")?,
            flags: number("map_flags")?,
            key: parts("key")?,
            value: parts("value")?,
        })
    }

    /// Adds the primitive parts of a type that lies at `offset`.
    fn tell(&self, id: u32, path: &str, offset: u32, out: &mut Vec<Part>) -> anyhow::Result<()> {
        let found = self.plain(id)?;
        match found.kind {
            kind::INT => out.push(Part {
                path: path.to_owned(),
                offset,
                size: found.word,
                count: 1,
            }),
            kind::ARRAY => {
                let [of, _, count] = found.rest[..] else {
                    bail!("an array that does not tell its type");
                };
                let first = out.len();
                self.tell(of, path, offset, out)?;
                match &mut out[first..] {
                    [one] if one.count == 1 => one.count = count,
                    _ => bail!("{path}: an array of what is no primitive"),
                }
            }
            kind::STRUCT => {
                for member in found.rest.chunks_exact(3) {
                    let name = string(found.strings, member[0]);
                    let inner = match (path, name) {
                        // The one field of a newtype.
                        (_, "__0") => path.to_owned(),
                        ("", name) => name.to_owned(),
                        (path, name) => format!("{path}.{name}"),
                    };
                    self.tell(member[1], &inner, offset + member[2] / 8, out)?;
                }
            }
            other => bail!("{path}: of kind {other}, which no key or value has"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_btf_is_an_error() {
        for bytes in [&[][..], &[0; 24], &[0x9f, 0xeb, 1, 0, 24, 0, 0, 0]] {
            assert!(Types::parse(bytes).is_err(), "{bytes:?}");
        }
        assert!(maps(b"no ELF file").is_err());
    }
}
