//! How keys and values lie in memory, told by themselves.
//!
//! In: a type of the ABI. Out: each of its primitive parts, with name, place and size. The map table's fingerprints, the check of the built
//! object and `docs/maps.md` are made of these. None of it is in the programs.

#[cfg(not(target_arch = "bpf"))]
pub use told::{At, Layout, Part, Path};
#[cfg(not(target_arch = "bpf"))]
pub(crate) use told::{tell_field, tell_primitive};

#[cfg(not(target_arch = "bpf"))]
mod told {
    use core::fmt;

    /// One primitive part of a key or value.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Part {
        pub path: Path,
        /// Offset in bytes from the beginning of the whole.
        pub offset: usize,
        /// The primitive type: `u32`; `be16` for two bytes in network order.
        pub kind: &'static str,
        /// Size in bytes of one.
        pub size: usize,
        /// How many of them follow one another.
        pub count: usize,
    }

    impl Part {
        /// Offset of the first byte behind it.
        pub const fn end(&self) -> usize {
            self.offset + self.size * self.count
        }
    }

    /// How deep types contain one another.
    const DEPTH: usize = 4;

    /// The names of the fields that lead to a part, from the outermost.
    #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
    pub struct Path([&'static str; DEPTH]);

    impl Path {
        fn with(mut self, name: &'static str) -> Self {
            let free = self.0.iter().position(|taken| taken.is_empty());
            self.0[free.expect("types contain one another no deeper")] = name;
            self
        }
    }

    /// As `to.src`; empty for a key or value that is one primitive itself.
    impl fmt::Display for Path {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let names = self.0.iter().take_while(|name| !name.is_empty());
            for (index, name) in names.enumerate() {
                f.write_str(if index == 0 { "" } else { "." })?;
                f.write_str(name)?;
            }
            Ok(())
        }
    }

    /// Where a part lies in the whole.
    #[derive(Clone, Copy, Default, Debug)]
    pub struct At {
        path: Path,
        offset: usize,
    }

    /// A type that tells its parts.
    pub trait Layout: Sized {
        /// Tells the parts of a value that lies `at`.
        fn tell(at: At, out: &mut dyn FnMut(Part));
    }

    /// Tells the parts of a field, whose type follows from how it is got.
    pub fn tell_field<Whole, Field: Layout>(
        at: At,
        name: &'static str,
        offset: usize,
        _get: fn(&Whole) -> &Field,
        out: &mut dyn FnMut(Part),
    ) {
        let at = At {
            path: at.path.with(name),
            offset: at.offset + offset,
        };
        Field::tell(at, out);
    }

    pub(crate) fn tell_primitive<T>(
        at: At,
        kind: &'static str,
        count: usize,
        out: &mut dyn FnMut(Part),
    ) {
        out(Part {
            path: at.path,
            offset: at.offset,
            kind,
            size: size_of::<T>(),
            count,
        });
    }
}

/// A type whose parts are its fields. A field that is left out does not compile.
macro_rules! layout {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        layout!(impl[] $name { $($field),+ });
    };
    ($name:ident<$a:ident> { $($field:ident),+ $(,)? }) => {
        layout!(impl[$a: $crate::abi::layout::Layout] $name<$a> { $($field),+ });
    };
    (impl[$($bound:tt)*] $name:ty { $($field:ident),+ }) => {
        #[cfg(not(target_arch = "bpf"))]
        impl<$($bound)*> $crate::abi::layout::Layout for $name {
            fn tell(at: $crate::abi::layout::At, out: &mut dyn FnMut($crate::abi::layout::Part)) {
                let _is_all = |whole: &Self| { let Self { $($field: _),+ } = whole; };
                $($crate::abi::layout::tell_field(
                    at,
                    stringify!($field),
                    core::mem::offset_of!(Self, $field),
                    |whole: &Self| &whole.$field,
                    out,
                );)+
            }
        }
    };
}

/// A type that is one primitive, or several of one kind.
macro_rules! primitive {
    ($($name:ty = $count:literal $kind:ty as $told:literal),+ $(,)?) => {$(
        #[cfg(not(target_arch = "bpf"))]
        impl $crate::abi::layout::Layout for $name {
            fn tell(at: $crate::abi::layout::At, out: &mut dyn FnMut($crate::abi::layout::Part)) {
                const { assert!(size_of::<$name>() == $count * size_of::<$kind>()) }
                $crate::abi::layout::tell_primitive::<$kind>(at, $told, $count, out);
            }
        }
    )+};
}

primitive!(
    u8 = 1 u8 as "u8",
    u16 = 1 u16 as "u16",
    u32 = 1 u32 as "u32",
    u64 = 1 u64 as "u64",
    [u8; 6] = 6 u8 as "u8",
    [u32; 4] = 4 u32 as "u32",
    [u32; 13] = 13 u32 as "u32",
    crate::addr::Be16 = 1 u16 as "be16",
    crate::addr::Ip4 = 1 u32 as "be32",
    crate::addr::Ip6 = 4 u32 as "be32",
    crate::addr::Macs = 3 u32 as "u32",
);
