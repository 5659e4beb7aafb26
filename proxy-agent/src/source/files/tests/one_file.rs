//! What the bytes of one file say.

use super::*;

fn parse(name: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let contents = manifest::parse(Path::new(name), text.as_bytes(), "node1");
    let objects = contents.manifests.iter().map(|m| {
        let skipped = if m.object.is_none() { " (skipped)" } else { "" };
        format!("{} {}{skipped}", m.position, m.key)
    });
    (objects.collect(), contents.problems)
}

#[test]
fn the_service_that_kubectl_takes_is_taken() {
    let contents = manifest::parse(Path::new("svc.yaml"), NODE_PORT.as_bytes(), "node1");
    let Some(manifest::Object::Service(service)) = &contents.manifests[0].object else {
        panic!("{contents:?}");
    };
    assert_eq!(service.name, ObjectName::new("default", "np-svc"));
    assert_eq!(service.ports[0].node_port, Some(30000));
    assert!(service.cluster_ips.is_empty());
}

#[test]
fn documents_lists_and_json_streams_hold_objects_and_other_kinds_are_ignored() {
    let (a, b, slice) = (
        service_yaml("a", 80),
        service_yaml("b", 80),
        slice_yaml("a"),
    );
    let indented = |text: &str| text.replace('\n', "\n  ");
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n- {}\n- {}\n",
        indented(a.trim()),
        indented(slice.trim())
    );
    let json = r#"{"apiVersion": "v1", "kind": "ServiceList", "items": [
        {"metadata": {"name": "a"}, "spec": {"type": "ExternalName"}}]}
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": "x"}, "spec": {"ports": [{"port": 1}]}}"#;
    let foreign = "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: k}\n";
    for (name, text, expected) in [
        (
            "two.yaml",
            format!("# one\n---\n{a}---\n{foreign}---\n{b}"),
            vec![
                "two.yaml#1 Service default/a",
                "two.yaml#3 Service default/b",
            ],
        ),
        (
            "list.yml",
            list,
            vec![
                "list.yml#1.items[0] Service default/a",
                "list.yml#1.items[1] EndpointSlice default/a-1",
            ],
        ),
        (
            "stream.json",
            json.into(),
            vec![
                "stream.json#1.items[0] Service default/a (skipped)",
                "stream.json#2 Service x/b",
            ],
        ),
        (
            "nodes.yaml",
            format!(
                "{}---\n{}",
                node_yaml("node1", "a"),
                node_yaml("node2", "b")
            ),
            vec!["nodes.yaml#1 Node node1"],
        ),
        ("empty.yaml", String::new(), vec![]),
        ("comment.yaml", "# nothing\n---\n---\n".into(), vec![]),
    ] {
        let (objects, problems) = parse(name, &text);
        assert_eq!(objects, expected, "{name}");
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn a_wrong_object_costs_itself_and_is_told_by_file_object_and_field() {
    let good = service_yaml("good", 80);
    let wrong_port = NODE_PORT.replace("30000", "70000");
    let wrong_type = NODE_PORT.replace("30000", "http");
    for (text, problem) in [
        (
            wrong_port.as_str(),
            "svc.yaml#2 Service default/np-svc: spec.ports[0].nodePort: 70000 is not a port (1-65535)",
        ),
        (
            wrong_type.as_str(),
            "svc.yaml#2 Service default/np-svc: spec.ports[0].nodePort: \
             invalid type: string \"http\", expected i32",
        ),
        (
            "apiVersion: v1\nkind: Service\nspec: {ports: [{port: 80}]}\n",
            "svc.yaml#2 Service: metadata.name: is missing",
        ),
        (
            "metadata: {name: x}\n",
            "svc.yaml#2: not a Kubernetes object: apiVersion or kind is missing",
        ),
        (
            "just text\n",
            "svc.yaml#2: not a Kubernetes object: apiVersion or kind is missing",
        ),
        (
            "apiVersion: v1\nkind: List\nitems: {}\n",
            "svc.yaml#2 List: items: is not a list",
        ),
    ] {
        let (objects, problems) = parse(
            "svc.yaml",
            &format!("{good}---\n{text}---\n{}", slice_yaml("good")),
        );
        assert_eq!(
            objects,
            [
                "svc.yaml#1 Service default/good",
                "svc.yaml#3 EndpointSlice default/good-1"
            ]
        );
        assert_eq!(problems, [problem]);
    }
}

#[test]
fn a_name_that_an_older_yaml_takes_for_a_boolean_stays_a_name() {
    let yaml = service_yaml("n", 80).replace("port: 80", "name: on, port: 80");
    assert_eq!(parse("n.yaml", &yaml).0, ["n.yaml#1 Service default/n"]);
}

#[test]
fn a_file_may_hold_a_whole_cluster() {
    let text: String = (0..5000)
        .map(|i| format!("---\n{}", service_yaml(&format!("s{i}"), 80)))
        .collect();
    assert_eq!(parse("all.yaml", &text).0.len(), 5000);
}
