//! `docs`: the reference of the maps, `docs/maps.md`, written from the table of maps.

use std::{collections::BTreeMap, fmt::Write as _};

use proxy_common::abi::{
    VERSION,
    layout::Part,
    map::{self, Entries, Kind, Resized, Role, Row, Shape, Size},
};

pub const PATH: &str = "docs/maps.md";

/// Maps that are alike but for their family, under one name.
fn stem(name: &str) -> String {
    match name.strip_suffix("_4").or(name.strip_suffix("_6")) {
        Some(stem) => format!("{stem}_*"),
        None => name.to_owned(),
    }
}

pub fn page() -> String {
    let mut page = format!(
        "# Maps\n\n\
         <!-- written by `cargo xtask docs` from proxy-common/src/abi: change that, not this -->\n\n\
         The maps of the datapath, version {VERSION} of their layout. They are pinned in `DIR/portside-v{VERSION}` under their names, but\n\
         for those of the role `Private`. `_*` stands for `_4` and `_6`: each family has such a map of its own.\n\n\
         | map | kind | entries | role | since | what |\n|---|---|---|---|---|---|\n"
    );
    let mut seen = BTreeMap::new();
    let mut rows: Vec<(String, Vec<Row>)> = Vec::new();
    for row in map::all() {
        let index = *seen.entry(stem(row.name)).or_insert_with(|| {
            rows.push((stem(row.name), Vec::new()));
            rows.len() - 1
        });
        rows[index].1.push(row);
    }
    for (name, of_name) in &rows {
        let row = of_name[0];
        let since = if row.role.is_pinned() {
            row.since.to_string()
        } else {
            "-".to_owned()
        };
        let _ = writeln!(
            page,
            "| `{name}` | {} | {} | {:?} | {since} | {} |",
            kind(row.kind),
            entries(row.entries),
            row.role,
            row.about,
        );
    }
    page.push_str(
        "\n*Since* is the version from which on a map has this layout; an agent reads no map of an older one. Hash maps but for\n\
         `FLOWS`, and tries, are without preallocation: an update replaces the whole element.\n\n\
         ## Roles\n\n\
         | role | written by | when an agent of other sizes takes over |\n|---|---|---|\n",
    );
    for role in [
        Role::Node,
        Role::Plan,
        Role::Flows,
        Role::Affinity,
        Role::Counts,
        Role::Scratch,
        Role::Programs,
        Role::Private,
    ] {
        let writer = if role.is_agents() {
            "the agent"
        } else {
            "the programs"
        };
        let resized = match (role.is_pinned(), role.resized()) {
            (false, _) => "goes with its programs",
            (_, Resized::Shared) => "the same map goes on, in its old size",
            (_, Resized::Copied) => "copied",
            (_, Resized::Lost) => "begins empty",
        };
        let _ = writeln!(page, "| {role:?} | {writer} | {resized} |");
    }
    page.push_str(
        "\nWhere layout and size are the same, the next agent uses the same map ([architecture](architecture.md#from-one-agent-to-the-next)).\n\n\
         ## Keys and values\n\n\
         Offsets and sizes are in bytes. `be16` and `be32` are in network byte order, the others in the machine's.\n",
    );
    for (name, of_name) in &rows {
        layouts(&mut page, name, of_name);
    }
    page
}

fn layouts(page: &mut String, name: &str, rows: &[Row]) {
    for (what, shape) in [
        ("key", (|row: &Row| row.key) as fn(&Row) -> Option<Shape>),
        ("value", |row| row.value),
    ] {
        let shapes: Option<Vec<Shape>> = rows.iter().map(shape).collect();
        let Some(shapes) = shapes else { continue };
        let parts: Vec<_> = shapes.iter().map(|shape| parts(*shape)).collect();
        let sizes: Vec<_> = shapes.iter().map(|shape| shape.size.to_string()).collect();
        let are_same = parts.windows(2).all(|pair| pair[0] == pair[1]);
        let (parts, size) = if are_same {
            (&parts[..1], sizes[0].clone())
        } else {
            (&parts[..], sizes.join(" or "))
        };
        if let [one] = parts
            && let [only] = &one[..]
            && only.path.to_string().is_empty()
        {
            let _ = write!(page, "\n`{name}`, {what}: one `{}`.\n", only.kind);
            continue;
        }
        let _ = write!(
            page,
            "\n`{name}`, {what}, {size} bytes:\n\n| field | type | offset |\n|---|---|---|\n"
        );
        for index in 0..parts[0].len() {
            let of_families: Vec<&Part> = parts.iter().map(|parts| &parts[index]).collect();
            let either = |text: &dyn Fn(&Part) -> String| {
                let mut all: Vec<_> = of_families.iter().map(|part| text(part)).collect();
                all.dedup();
                all.join(" or ")
            };
            let field = match of_families[0].path.to_string() {
                path if path.is_empty() => "(whole)".to_owned(),
                path => format!("`{path}`"),
            };
            let _ = writeln!(
                page,
                "| {field} | {} | {} |",
                either(&|part| match part.count {
                    1 => format!("`{}`", part.kind),
                    count => format!("`[{}; {count}]`", part.kind),
                }),
                either(&|part| part.offset.to_string()),
            );
        }
    }
}

fn parts(shape: Shape) -> Vec<Part> {
    let mut parts = Vec::new();
    shape.parts(|part| parts.push(part));
    parts.sort_by_key(|part| part.offset);
    parts
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Hash => "hash",
        Kind::Array => "array",
        Kind::ProgramArray => "array of programs",
        Kind::PerCpuArray => "array for each CPU",
        Kind::LruHash => "LRU hash",
        Kind::LpmTrie => "trie of prefixes",
    }
}

fn entries(entries: Entries) -> String {
    let size = match entries {
        Entries::Fixed(entries) => return entries.to_string(),
        Entries::Chosen(size) => size,
    };
    match size {
        Size::Services => "service ports",
        Size::Backends => "endpoints of service ports",
        Size::Slots => "by endpoints",
        Size::Frontends | Size::Ranges => "by service ports",
        Size::Devices => "network devices",
        Size::Addresses => "addresses of the node",
        Size::Flows => "connections, twice",
        Size::Datagrams | Size::Pending => "a quarter of flows",
        Size::Closed => "half of connections, or 4096 for each CPU",
        Size::Queues => "CPUs, twice",
        Size::Affinity => "half of connections",
    }
    .to_owned()
}
