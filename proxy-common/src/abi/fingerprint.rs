//! The layouts hold themselves to the version: a map that is laid out otherwise than it was since its `since` fails here.

use std::{format, string::String, vec::Vec};

use super::{
    VERSION,
    layout::Part,
    map::{Role, Row, Shape, all},
};

/// The fingerprint of each map's layout, by the version that it dates from. Append only: what another agent may have pinned stays as it was.
const FINGERPRINTS: &[(&str, u32, u64)] = &[
    ("CONFIG", 5, 0xb9e508b9fc459e00),
    ("DEVICES", 5, 0x16ebf9293d9a5595),
    ("GATE", 1, 0xbc64a97a100d3b71),
    ("SERVICES", 1, 0x0d501d8ea493adff),
    ("SLOTS", 1, 0xacf8b3506a17a482),
    ("SERVICE_COUNTS", 1, 0xca9784c6d300a034),
    ("BACKEND_COUNTS", 1, 0xcb02673112a2e573),
    ("REASONS", 1, 0xf7180bf292db5d16),
    ("PORT_CURSOR", 1, 0xacf8b3506a17a482),
    ("NEXT_HOPS", 5, 0x2740e5bd0e5c83a4),
    ("SLOW_XDP", 5, 0xf3b6033067cbb7d4),
    ("SLOW_TC", 5, 0xf3b6033067cbb7d4),
    ("FRONTENDS_4", 1, 0xdf16d1f34398bb62),
    ("BACKENDS_4", 1, 0xc231dbf0a745f575),
    ("RANGES_4", 1, 0xf5e200d552ba4da9),
    ("LOCAL_ADDRS_4", 1, 0x99a17378a7b942ac),
    ("FLOWS_4", 2, 0xaba37ddc05574664),
    ("PENDING_4", 2, 0xaba37ddc05574664),
    ("AFFINITY_4", 1, 0x36253c73f45bd442),
    ("SHARES_4", 5, 0x5ad35397c027170c),
    ("FRAGMENTS_4", 1, 0x5b0f1987b8a2f4c4),
    ("FRONTENDS_6", 1, 0xc1344bd2bea872c1),
    ("BACKENDS_6", 1, 0xeded718f32b6df07),
    ("RANGES_6", 1, 0xfbdd7ba2f540945c),
    ("LOCAL_ADDRS_6", 1, 0xbd17a3ff617d42bf),
    ("FLOWS_6", 2, 0x52340459a0c5b408),
    ("PENDING_6", 2, 0x52340459a0c5b408),
    ("AFFINITY_6", 1, 0x21f9fa9ceee356a0),
    ("SHARES_6", 5, 0x53eb4c524b3c3bab),
    ("FRAGMENTS_6", 1, 0x9a91a34ca0cbef72),
    ("FULL_SINCE", 6, 0xacf8b3506a17a482),
    ("FLOWS_4", 6, 0x6baf62d9d2b7af6f),
    ("DATAGRAMS_4", 6, 0xaba37ddc05574664),
    ("FLOWS_6", 6, 0xe9c7547d56374ccf),
    ("DATAGRAMS_6", 6, 0x52340459a0c5b408),
    ("CLOSED_ENDS", 6, 0x01ed29ff9415dbc9),
    ("CLOSED_4", 6, 0xc78fa41f1b112c6a),
    ("CLOSED_6", 6, 0x78ac6be09ca28385),
    ("SERVICE_HELD", 7, 0xf7180bf292db5d16),
];

const HOW: &str = "\
If it lies otherwise, or means something else: raise VERSION, set the map's `since` to it in `abi/map.rs`, and append the new fingerprint. \
If a field got another name and nothing else: write the new fingerprint in place of the old one.";

/// FNV-1a, 64 bits.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn parts(shape: Shape) -> Vec<Part> {
    let mut parts = Vec::new();
    shape.parts(|part| parts.push(part));
    parts.sort_by_key(|part| part.offset);
    parts
}

/// Kind, keys and values in words.
fn layout(row: &Row) -> String {
    let mut text = format!("{:?} {:#x}\n", row.kind, row.flags);
    for (what, shape) in [("key", row.key), ("value", row.value)] {
        for part in shape.map(parts).unwrap_or_default() {
            let Part {
                path,
                offset,
                kind,
                count,
                ..
            } = part;
            text += &format!("{what} {offset} {count} {kind} {path}\n");
        }
    }
    text
}

fn pinned() -> impl Iterator<Item = Row> {
    all().filter(|row| row.role.is_pinned())
}

#[test]
fn a_layout_changes_with_its_version_only() {
    let mut wrong = String::new();
    for row in pinned() {
        let (name, since) = (row.name, row.since);
        let fingerprint = hash(&layout(&row));
        let known = FINGERPRINTS
            .iter()
            .find(|known| (known.0, known.1) == (name, since));
        if known.is_none_or(|known| known.2 != fingerprint) {
            wrong += &format!(
                "(\"{name}\", {since}, {fingerprint:#018x}),\n{}",
                layout(&row)
            );
        }
    }
    assert!(
        wrong.is_empty(),
        "the layout is not that of its version:\n{wrong}{HOW}"
    );
}

#[test]
fn the_version_is_that_of_the_newest_map() {
    assert_eq!(pinned().map(|row| row.since).max(), Some(VERSION));
}

/// Bytes of padding would be whatever the stack held: in a key, two that are equal would differ.
#[test]
fn no_key_or_value_has_padding() {
    for row in all() {
        for shape in [row.key, row.value].into_iter().flatten() {
            let mut end = 0;
            for part in parts(shape) {
                assert_eq!(part.offset, end, "{}: before {}", row.name, part.path);
                end = part.end();
            }
            assert_eq!(end, shape.size as usize, "{}: at the end", row.name);
        }
    }
}

#[test]
fn every_map_has_one_row() {
    let mut names: Vec<_> = all().map(|row| row.name).collect();
    let many = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), many);
}

#[test]
fn only_private_maps_keep_their_layout_to_themselves() {
    for row in all() {
        let is_told = row.key.is_some() && row.value.is_some();
        assert_eq!(is_told, row.role != Role::Private, "{}", row.name);
    }
}
