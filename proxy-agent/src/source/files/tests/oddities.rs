//! Files as people write them, each with one oddity. In each there is a good object behind it, which has to be served; where
//! the odd one is refused, the message names file, document and field.

use super::*;

struct Odd {
    what: &'static str,
    text: Vec<u8>,
    /// The Services and slices that are taken, without the good one.
    taken: &'static [&'static str],
    /// Parts of the only problem or note; none if there is none.
    said: &'static [&'static str],
}

fn odd(
    what: &'static str,
    text: impl Into<Vec<u8>>,
    taken: &'static [&'static str],
    said: &'static [&'static str],
) -> Odd {
    Odd {
        what,
        text: text.into(),
        taken,
        said,
    }
}

fn service(metadata: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: odd{metadata}}}\nspec: {{{spec}}}\n")
}

fn port(number: &str) -> String {
    service("", &format!("ports: [{{port: {number}}}]"))
}

/// What contents say of themselves, the good object left out.
fn read(odd: &Odd) -> (Vec<String>, Vec<String>) {
    let mut bytes = odd.text.clone();
    bytes.extend(b"\n---\n");
    bytes.extend(service_yaml("good", 80).as_bytes());
    let contents = manifest::parse(Path::new("odd.yaml"), &bytes, "node1");
    let taken = contents
        .manifests
        .iter()
        .map(|manifest| match &manifest.object {
            Some(manifest::Object::Service(service)) => {
                format!("{}:{}", service.name.name, service.ports[0].port)
            }
            Some(_) => manifest.key.name.name.to_string(),
            None => format!("{} (skipped)", manifest.key.name.name),
        });
    let mut taken: Vec<_> = taken.collect();
    let good = taken.iter().position(|one| one == "good:80");
    taken.remove(good.unwrap_or_else(|| panic!("{}: good is not served: {contents:?}", odd.what)));
    (taken, [contents.problems, contents.notes].concat())
}

fn check(all: Vec<Odd>) {
    for odd in all {
        let (taken, said) = read(&odd);
        assert_eq!(taken, odd.taken, "{}: {said:?}", odd.what);
        match (odd.said, &said[..]) {
            ([], []) => {}
            (parts, [one]) => {
                for part in parts {
                    assert!(one.contains(part), "{}: no {part:?} in {one:?}", odd.what);
                }
                assert!(one.starts_with("odd.yaml#1"), "{}: {one:?}", odd.what);
                assert!(!parts.is_empty(), "{}: {one:?}", odd.what);
            }
            _ => panic!("{}: {said:?}", odd.what),
        }
    }
}

#[test]
fn what_kubectl_takes_is_taken() {
    let plain = port("80");
    let merged = "a: &a {apiVersion: v1, kind: Service}\n<<: *a\nmetadata: {name: odd}\nspec: {ports: [{port: 80}]}\n";
    check(vec![
        odd(
            "a byte order mark",
            format!("\u{feff}{plain}"),
            &["odd:80"],
            &[],
        ),
        odd(
            "tabs in comments",
            format!("#\ta\n{plain}\t# b\n"),
            &["odd:80"],
            &[],
        ),
        odd(
            "lines of Windows",
            plain.replace('\n', "\r\n"),
            &["odd:80"],
            &[],
        ),
        odd("merge keys", merged, &["odd:80"], &[]),
        odd(
            "a directive",
            format!("%YAML 1.2\n---\n{plain}...\n"),
            &["odd:80"],
            &[],
        ),
        odd(
            "JSON",
            r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "odd"}, "spec": {"ports": [{"port": 80}]}}"#,
            &["odd:80"],
            &[],
        ),
        odd("octal", port("0o120"), &["odd:80"], &[]),
        odd("octal as in YAML 1.1", port("0120"), &["odd:80"], &[]),
        odd("hexadecimal", port("0x50"), &["odd:80"], &[]),
        odd(
            "a whole number with a fraction of nothing",
            port("80.0"),
            &["odd:80"],
            &[],
        ),
        odd(
            "null for nothing",
            service(
                ", labels: null, creationTimestamp: null",
                "externalIPs: null, selector: null, ports: [{port: 80}]",
            ),
            &["odd:80"],
            &[],
        ),
        odd(
            "a slice of nulls",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: odd-1, labels: {kubernetes.io/service-name: odd}}\n\
             addressType: IPv4\nendpoints: null\nports: null\n",
            &["odd-1"],
            &[],
        ),
        odd(
            "an empty list",
            "apiVersion: v1\nkind: List\nitems: []\n",
            &[],
            &[],
        ),
        odd(
            "a list of null",
            "apiVersion: v1\nkind: List\nitems: null\n",
            &[],
            &[],
        ),
        odd(
            "a list without items",
            "apiVersion: v1\nkind: ServiceList\n",
            &[],
            &[],
        ),
        odd("a document of nothing", "# nothing\n---\n", &[], &[]),
        odd(
            "a hostname for a load balancer",
            port("80")
                + "status: {loadBalancer: {ingress: [{hostname: a.example}, {ip: '', hostname: b}]}}\n",
            &["odd:80"],
            &[],
        ),
        odd(
            "a foreign kind of the same name",
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: odd}\n",
            &[],
            &[],
        ),
    ]);
}

#[test]
fn what_cannot_be_taken_costs_itself_and_is_told_by_its_place() {
    let plain = port("80");
    check(vec![
        odd("a duplicate key", plain.replace("kind:", "kind: Service\nkind:"), &[], &["odd.yaml#1: duplicate mapping key: kind at line 3"]),
        odd("a tab for indentation", plain.replace("spec: {", "spec:\n\tx: {"), &[], &["odd.yaml#1: ", "line"]),
        odd("Latin-1", [plain.as_bytes(), b"# caf\xe9\n"].concat(), &[], &["odd.yaml#1: ", "line 5 is not UTF-8"]),
        odd("a bracket that stays open", "a: [1,\n", &[], &["odd.yaml#1: "]),
        odd("text", "just text\n", &[], &["apiVersion or kind is missing"]),
        odd("a list of no kind", "[{a: b}]\n", &[], &["a list has kind List"]),
        odd("deep nesting", "[".repeat(100_000), &[], &["odd.yaml#1: "]),
        odd(
            "aliases that multiply",
            (1..20).fold("a0: &a0 [x]\n".to_owned(), |text, i| {
                let of = i - 1;
                format!("{text}a{i}: &a{i} [*a{of}, *a{of}, *a{of}, *a{of}, *a{of}, *a{of}, *a{of}, *a{of}]\n")
            }),
            &[],
            &["odd.yaml#1: "],
        ),
        odd("a port in quotes", port("'80'"), &[], &["Service default/odd: spec.ports[0].port"]),
        odd("a port with a fraction", port("80.5"), &[], &["Service default/odd: spec.ports[0].port"]),
        odd("a number for an annotation", service(", annotations: {a: 1}", "ports: [{port: 80}]"), &[], &["metadata.annotations.a"]),
        odd("a boolean for a label", service(", labels: {a: true}", "ports: [{port: 80}]"), &[], &["metadata.labels.a"]),
        odd("an item of null", "apiVersion: v1\nkind: List\nitems: [null]\n", &[], &["odd.yaml#1.items[0]"]),
        odd("items that are no list", "apiVersion: v1\nkind: List\nitems: {}\n", &[], &["odd.yaml#1 List: items"]),
    ]);
}

#[test]
fn what_is_not_read_although_it_looks_so_is_told() {
    let named = |version: &str, kind: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: odd}}\n")
    };
    check(vec![
        odd(
            "Endpoints",
            named("v1", "Endpoints"),
            &[],
            &[
                "odd.yaml#1 Endpoints default/odd: apiVersion: v1 is not read",
                "discovery.k8s.io/v1",
            ],
        ),
        odd(
            "slices of before 1.25",
            named("discovery.k8s.io/v1beta1", "EndpointSlice"),
            &[],
            &["EndpointSlice default/odd: apiVersion: discovery.k8s.io/v1beta1 is not read"],
        ),
        odd(
            "a list of Endpoints",
            "apiVersion: v1\nkind: EndpointsList\nitems: [{metadata: {name: odd}}]\n",
            &[],
            &["odd.yaml#1.items[0] Endpoints default/odd"],
        ),
        odd(
            "a wrong group",
            named("apps/v1", "Service"),
            &[],
            &["Services are read as v1"],
        ),
        odd(
            "addresses that are names",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: odd-1, labels: {kubernetes.io/service-name: odd}}\n\
             addressType: FQDN\nendpoints: [{addresses: [a.example]}]\n",
            &["odd-1 (skipped)"],
            &["EndpointSlice default/odd-1: addressType: its addresses are names"],
        ),
        odd(
            "a slice of nobody",
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: odd-1}\naddressType: IPv4\nendpoints: []\n",
            &["odd-1 (skipped)"],
            &["EndpointSlice default/odd-1", "kubernetes.io/service-name"],
        ),
    ]);
}

#[test]
fn a_json_file_is_read_up_to_what_is_wrong() {
    let good = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 1}]}}"#;
    let text = format!("{good}\n{{\"a\": 1");
    let contents = manifest::parse(Path::new("a.json"), text.as_bytes(), "node1");
    assert_eq!(contents.manifests.len(), 1);
    assert!(!contents.is_whole);
    assert!(
        contents.problems[0].starts_with("a.json#2: "),
        "{:?}",
        contents.problems
    );
}

#[test]
fn a_message_counts_the_lines_of_the_file() {
    let text = format!("{}---\na: [1,\n", service_yaml("good", 80));
    let contents = manifest::parse(Path::new("a.yaml"), text.as_bytes(), "node1");
    let problem = &contents.problems[0];
    let line = text.lines().count();
    assert!(problem.starts_with("a.yaml#2: "), "{problem}");
    assert!(
        problem.contains(&format!("line {line}"))
            || problem.contains(&format!("line {}", line + 1)),
        "{problem}"
    );
}
