//! What one reading of the directory differs from the one before.

use nix::{sys::stat::Mode, unistd::mkfifo};

use super::*;

struct Readings {
    dir: TempDir,
    directory: Directory,
}

impl Readings {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            directory: Directory::new("node1".into(), 1 << 20),
        }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&mut self) -> (Vec<String>, Vec<String>) {
        let tree = Tree::walk(self.dir.path()).unwrap();
        let Reading {
            batch,
            new_problems,
            ..
        } = self.directory.read(&tree);
        (said(&batch), new_problems)
    }

    fn expect(&mut self, events: &[&str]) {
        let (said, problems) = self.read();
        assert_eq!(said, events);
        assert!(problems.is_empty(), "{problems:?}");
    }
}

#[test]
fn a_reading_tells_what_changed_since_the_one_before() {
    let mut at = Readings::new();
    at.write("b.yaml", &service_yaml("b", 80));
    at.write("a.yml", &service_yaml("a", 80));
    at.write("sub/slice.yaml", &slice_yaml("a"));
    at.write(
        "node.json",
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}"#,
    );
    at.expect(&["node:", "+a:80", "+b:80", "+slice/a-1"]);
    at.expect(&[]);
    at.write("b.yaml", &service_yaml("b", 81));
    at.expect(&["+b:81"]);
    at.write("b.yaml", &format!("# moved\n{}", service_yaml("b", 81)));
    at.expect(&[]);
    at.write("node.json", "");
    fs::remove_file(at.dir.path().join("a.yml")).unwrap();
    fs::remove_dir_all(at.dir.path().join("sub")).unwrap();
    at.expect(&["node:", "-a", "-slice/a-1"]);
}

#[test]
fn hidden_and_foreign_files_do_not_count() {
    let mut at = Readings::new();
    for name in [
        ".svc.yaml.swp",
        ".svc.yaml",
        "svc.yaml~",
        "svc.yaml.bak",
        "4913",
        "README.md",
        "..data/svc.yaml",
        ".git/svc.yaml",
    ] {
        at.write(name, &service_yaml("a", 80));
    }
    symlink("nowhere", at.dir.path().join("dangling.yaml")).unwrap();
    fs::create_dir(at.dir.path().join("directory.yaml")).unwrap();
    at.expect(&[]);
}

#[test]
fn what_is_no_regular_file_costs_itself_and_is_told_once() {
    let mut at = Readings::new();
    at.write("good.yaml", &service_yaml("good", 80));
    at.write("large.yaml", &"#".repeat((1 << 20) + 1));
    symlink("/dev/zero", at.dir.path().join("device.yaml")).unwrap();
    symlink("/proc/kmsg", at.dir.path().join("kmsg.yaml")).unwrap();
    mkfifo(&at.dir.path().join("fifo.yaml"), Mode::S_IRWXU).unwrap();
    let (events, problems) = at.read();
    assert_eq!(events, ["+good:80"]);
    let names: Vec<_> = problems.iter().map(|one| one.split(':').next()).collect();
    let bad = ["device.yaml", "fifo.yaml", "kmsg.yaml", "large.yaml"];
    assert_eq!(names, bad.map(Some), "{problems:?}");
    at.expect(&[]);
}

#[test]
fn a_good_file_that_becomes_a_fifo_keeps_what_it_said() {
    let mut at = Readings::new();
    at.write("a.yaml", &service_yaml("a", 80));
    at.expect(&["+a:80"]);
    let path = at.dir.path().join("a.yaml");
    fs::remove_file(&path).unwrap();
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let (events, problems) = at.read();
    assert!(events.is_empty(), "{events:?}");
    assert!(
        problems[0].ends_with("(what it said before stays in force)"),
        "{problems:?}"
    );
}

#[test]
fn a_document_that_does_not_parse_leaves_the_others_of_its_file() {
    let mut at = Readings::new();
    let file = |a: &str, b: &str| format!("{a}---\n{b}---\n{}", service_yaml("c", 80));
    at.write(
        "a.yaml",
        &file(&service_yaml("a", 80), &service_yaml("b", 80)),
    );
    at.expect(&["+a:80", "+b:80", "+c:80"]);
    at.write(
        "a.yaml",
        &file(&service_yaml("a", 81), "kind: Service\nkind: Service\n"),
    );
    let (events, problems) = at.read();
    assert_eq!(events, ["+a:81"], "b may be what cannot be read");
    assert!(problems[0].starts_with("a.yaml#2: "), "{problems:?}");
    at.write("a.yaml", &file(&service_yaml("a", 81), "# b is gone\n"));
    at.expect(&["-b"]);
}

#[test]
fn what_is_forgotten_is_read_and_told_anew() {
    let mut at = Readings::new();
    at.write("a.yaml", &service_yaml("a", 80));
    at.write("b.yaml", "text");
    assert_eq!(at.read().1.len(), 1);
    at.expect(&[]);
    at.directory.forget();
    let (events, problems) = at.read();
    assert!(events.is_empty(), "{events:?}");
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_file_that_does_not_parse_keeps_what_it_said_and_is_told_once() {
    let mut at = Readings::new();
    at.write("a.yaml", &service_yaml("a", 80));
    at.write("b.yaml", &service_yaml("b", 80));
    at.expect(&["+a:80", "+b:80"]);
    at.write("a.yaml", "apiVersion: v1\nkind: [");
    at.write("b.yaml", &service_yaml("b", 81));
    let (events, problems) = at.read();
    assert_eq!(events, ["+b:81"]);
    assert!(problems[0].starts_with("a.yaml#1: "), "{problems:?}");
    assert!(
        problems[0].ends_with("(what it said before stays in force)"),
        "{problems:?}"
    );
    at.expect(&[]);
    at.write("a.yaml", &service_yaml("a", 82));
    at.expect(&["+a:82"]);
}

#[test]
fn an_object_that_is_not_valid_any_more_keeps_its_last_valid_form() {
    let mut at = Readings::new();
    at.write(
        "a.yaml",
        &format!("{}---\n{}", service_yaml("a", 80), service_yaml("b", 80)),
    );
    at.expect(&["+a:80", "+b:80"]);
    at.write(
        "a.yaml",
        &format!("{}---\n{}", service_yaml("a", 0), service_yaml("b", 81)),
    );
    let (events, problems) = at.read();
    assert_eq!(events, ["+b:81"]);
    assert_eq!(
        problems,
        ["a.yaml#1 Service default/a: spec.ports[0].port: 0 is not a port (1-65535)"]
    );
    at.write("a.yaml", &service_yaml("b", 81));
    at.expect(&["-a"]);
}

#[test]
fn of_two_manifests_for_one_object_the_first_counts_until_it_goes() {
    let mut at = Readings::new();
    at.write("1.yaml", &service_yaml("a", 80));
    at.write("2.yaml", &service_yaml("a", 81));
    let (events, problems) = at.read();
    assert_eq!(events, ["+a:80"]);
    assert_eq!(
        problems,
        ["2.yaml#1 Service default/a: not used, 1.yaml#1 has the same object and comes first"]
    );
    at.expect(&[]);
    fs::remove_file(at.dir.path().join("1.yaml")).unwrap();
    at.expect(&["+a:81"]);
}

#[test]
fn a_service_that_another_proxy_takes_over_is_gone() {
    let mut at = Readings::new();
    at.write("a.yaml", &service_yaml("a", 80));
    at.expect(&["+a:80"]);
    let labelled = service_yaml("a", 80).replace(
        "{name: a}",
        "{name: a, labels: {service.kubernetes.io/service-proxy-name: other}}",
    );
    at.write("a.yaml", &labelled);
    at.expect(&["-a"]);
}
