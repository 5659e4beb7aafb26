//! Which fields of MetalLB's kinds have a meaning here.
//!
//! Nothing is announced by Portside yet: the kinds that say how have a place here for the components that will, and for
//! MetalLB's speakers, which may announce what the controller gives.

/// Fields with a meaning here, by kind; all other fields of these kinds have none.
pub const SUPPORTED: [(&str, &[&str]); 1] = [(
    "IPAddressPool",
    &[
        "spec.addresses",
        "spec.autoAssign",
        "spec.avoidBuggyIPs",
        "spec.serviceAllocation.priority",
        "spec.serviceAllocation.namespaces",
        "spec.serviceAllocation.namespaceSelectors",
        "spec.serviceAllocation.serviceSelectors",
        "status.assignedIPv4",
        "status.assignedIPv6",
        "status.availableIPv4",
        "status.availableIPv6",
    ],
)];

/// Does the field of this kind have a meaning here?
pub fn is_supported(kind: &str, field: &str) -> bool {
    SUPPORTED
        .iter()
        .any(|(name, fields)| *name == kind && fields.contains(&field))
}

/// Every field of every kind, in the order of its definition: kind and path. Selectors, and Secrets that are referred to,
/// are one field each.
pub fn fields() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for definition in super::definitions() {
        let kind = definition.spec.names.kind;
        for version in definition.spec.versions {
            let schema = version.schema.and_then(|schema| schema.open_api_v3_schema);
            let schema = serde_json::to_value(schema).expect("a schema is plain data");
            for part in ["spec", "status"] {
                below(&schema["properties"][part], part, &mut |field| {
                    all.push((kind.clone(), field));
                });
            }
        }
    }
    all
}

fn below(schema: &serde_json::Value, path: &str, found: &mut impl FnMut(String)) {
    let own = |name: &String| !["matchExpressions", "matchLabels"].contains(&name.as_str());
    let parts = [&schema["properties"], &schema["items"]["properties"]];
    let fields = parts.into_iter().filter_map(serde_json::Value::as_object);
    let fields: Vec<_> = fields.flatten().collect();
    let is_plain = path.ends_with("Selectors") || path.ends_with("Secret");
    if fields.is_empty() || is_plain && !path.ends_with("preferredNodeSelectors") {
        if path.contains('.') {
            found(path.to_owned());
        }
        return;
    }
    let mut fields = fields.into_iter().filter(|(name, _)| own(name)).peekable();
    if fields.peek().is_none() {
        found(path.to_owned());
    }
    for (name, field) in fields {
        below(field, &format!("{path}.{name}"), found);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs, path::Path};

    use super::*;

    #[test]
    fn what_is_supported_is_there() {
        let all: BTreeSet<_> = fields().into_iter().collect();
        for (kind, fields) in SUPPORTED {
            for field in fields {
                let one = (kind.to_owned(), (*field).to_owned());
                assert!(all.contains(&one), "{one:?} is not in {all:#?}");
            }
        }
    }

    const BEGIN: &str = "<!-- fields: written by `PORTSIDE_GOLDEN=write cargo xtask test --level l0 custom_resources` -->\n";
    const END: &str = "<!-- end of fields -->\n";

    /// `docs/loadbalancer.md` has a row for each field, whether it has a meaning here or not.
    #[test]
    fn fields_of_custom_resources_are_on_the_page_as_they_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/loadbalancer.md");
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).expect("the table begins");
        let (_, after) = rest.split_once(END).expect("the table ends");
        let mut table = "| kind | field | has a meaning here |\n|---|---|---|\n".to_owned();
        for (kind, field) in fields() {
            let support = if is_supported(&kind, &field) {
                "yes"
            } else {
                "no"
            };
            table += &format!("| {kind} | `{field}` | {support} |\n");
        }
        let wanted = [before, BEGIN, &table, END, after].concat();
        if env::var_os("PORTSIDE_GOLDEN").is_some_and(|value| value == "write") {
            fs::write(&path, &wanted).unwrap();
        }
        let page = fs::read_to_string(&path).unwrap();
        assert!(page == wanted, "{}: write it anew", path.display());
    }
}
