//! The object's maps are those of the table: names, kinds, sizes, flags, and every part of keys and values.
//!
//! The statics take sizes and flags from the table; what this holds against it is the rest, which is written twice.

use anyhow::{Context as _, ensure};
use proxy_common::abi::map::{self, Row, Shape};

use super::btf::{self, Map, Part};

/// Holds the maps of an object against the table.
pub fn compare_with_table(object: &[u8]) -> anyhow::Result<()> {
    compare(&btf::maps(object)?)
        .context("the eBPF object's maps are not those of proxy-common/src/abi/map.rs")
}

fn compare(found: &[Map]) -> anyhow::Result<()> {
    for map in found {
        let row = map::all().find(|row| row.name == map.name);
        let row = row.with_context(|| format!("the table has no map {}", map.name))?;
        one(&row, map).with_context(|| format!("map {}", map.name))?;
    }
    for row in map::all() {
        ensure!(
            found.iter().any(|map| map.name == row.name),
            "the object has no map {}",
            row.name
        );
    }
    Ok(())
}

fn one(row: &Row, found: &Map) -> anyhow::Result<()> {
    let told = (row.kind as u32, row.room(), row.flags);
    let is = (found.kind, found.entries, found.flags);
    ensure!(
        told == is,
        "kind, entries and flags are {is:?}, the table has {told:?}"
    );
    for (what, shape, found) in [
        ("key", row.key, &found.key),
        ("value", row.value, &found.value),
    ] {
        let Some(shape) = shape else { continue };
        let told = parts(shape);
        let pairs = told.iter().map(Some).chain([None]);
        for (told, found) in pairs.zip(found.iter().map(Some).chain([None])) {
            ensure!(
                told == found,
                "the {what} has {found:?} where the table has {told:?}"
            );
        }
    }
    Ok(())
}

fn parts(shape: Shape) -> Vec<Part> {
    let mut parts = Vec::new();
    shape.parts(|part| {
        parts.push(Part {
            path: part.path.to_string(),
            offset: part.offset as u32,
            size: part.size as u32,
            count: part.count as u32,
        });
    });
    parts.sort_by_key(|part| part.offset);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The maps of an object that is as the table says.
    fn good() -> Vec<Map> {
        map::all()
            .map(|row| Map {
                name: row.name.to_owned(),
                kind: row.kind as u32,
                entries: row.room(),
                flags: row.flags,
                key: row.key.map(parts).unwrap_or_default(),
                value: row.value.map(parts).unwrap_or_default(),
            })
            .collect()
    }

    fn refused(damage: impl FnOnce(&mut Vec<Map>)) -> String {
        let mut maps = good();
        damage(&mut maps);
        format!("{:#}", compare(&maps).unwrap_err())
    }

    fn find<'a>(maps: &'a mut [Map], name: &str) -> &'a mut Map {
        maps.iter_mut().find(|map| map.name == name).unwrap()
    }

    #[test]
    fn an_object_with_the_tables_maps_is_taken() {
        compare(&good()).unwrap();
    }

    #[test]
    fn each_difference_names_its_map() {
        type Damage = fn(&mut Vec<Map>);
        let cases: [(Damage, &str); 8] = [
            // Two fields of one type that changed places.
            (
                |maps| {
                    let value = &mut find(maps, "FLOWS_4").value;
                    let (a, b) = (value[4].path.clone(), value[5].path.clone());
                    (value[4].path, value[5].path) = (b, a);
                },
                "map FLOWS_4: the value has",
            ),
            (
                |maps| find(maps, "SERVICES").value[2].offset += 4,
                "map SERVICES",
            ),
            (
                |maps| find(maps, "FRONTENDS_6").key[0].count = 2,
                "map FRONTENDS_6: the key",
            ),
            (
                |maps| drop(find(maps, "CONFIG").value.pop()),
                "map CONFIG: the value has None",
            ),
            (
                |maps| find(maps, "DEVICES").flags = 0,
                "map DEVICES: kind, entries and flags",
            ),
            (
                |maps| find(maps, "GATE").entries += 1,
                "map GATE: kind, entries and flags",
            ),
            (
                |maps| maps.retain(|map| map.name != "SLOTS"),
                "no map SLOTS",
            ),
            (
                |maps| find(maps, "WORK_4").name = "WORK".into(),
                "no map WORK",
            ),
        ];
        for (damage, words) in cases {
            let error = refused(damage);
            assert!(error.contains(words), "{error}");
        }
    }
}
