//! The archive, read back as a runtime would, with a stand-in for the agent.

use std::{collections::BTreeMap, io::Read as _};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::workspace;

const PROGRAM: &[u8] = b"a program, as far as an image cares";

fn image() -> Image<'static> {
    Image {
        version: env!("CARGO_PKG_VERSION"),
        architecture: "arm64",
        program: PROGRAM,
    }
}

/// A file of a tar, with what its header says.
#[derive(Debug, PartialEq)]
struct File {
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    is_regular: bool,
    content: Vec<u8>,
}

fn unpack(archive: &[u8]) -> BTreeMap<String, File> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let file = File {
            mode: header.mode().unwrap(),
            owner: (header.uid().unwrap(), header.gid().unwrap()),
            mtime: header.mtime().unwrap(),
            is_regular: header.entry_type().is_file(),
            content,
        };
        let path = entry.path().unwrap().display().to_string();
        assert!(files.insert(path.clone(), file).is_none(), "{path} twice");
    }
    files
}

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hexadecimal: Vec<_> = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", hexadecimal.concat())
}

/// The layout's files, and its blobs as they are reached from the index, each compared with its descriptor.
struct Layout {
    files: BTreeMap<String, File>,
    descriptor: Value,
    manifest: Value,
    config: Value,
    layer: Vec<u8>,
}

fn blob<'a>(files: &'a BTreeMap<String, File>, descriptor: &Value, media_type: &str) -> &'a [u8] {
    assert_eq!(
        descriptor["mediaType"],
        format!("application/vnd.oci.image.{media_type}")
    );
    let digest = descriptor["digest"].as_str().unwrap();
    let hexadecimal = digest.strip_prefix("sha256:").unwrap();
    let content = &files[&format!("blobs/sha256/{hexadecimal}")].content;
    assert_eq!(descriptor["size"], content.len());
    assert_eq!(digest, sha256(content));
    content
}

fn read(archive: &[u8]) -> Layout {
    let files = unpack(archive);
    let index: Value = serde_json::from_slice(&files["index.json"].content).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let descriptor = index["manifests"][0].clone();
    let manifest: Value =
        serde_json::from_slice(blob(&files, &descriptor, "manifest.v1+json")).unwrap();
    let config = serde_json::from_slice(blob(&files, &manifest["config"], "config.v1+json"));
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    let layer = blob(&files, &manifest["layers"][0], "layer.v1.tar+gzip");
    let mut plain = Vec::new();
    GzDecoder::new(layer).read_to_end(&mut plain).unwrap();
    Layout {
        descriptor,
        manifest,
        config: config.unwrap(),
        layer: plain,
        files,
    }
}

#[test]
fn every_digest_and_size_is_that_of_its_blob() {
    let layout = read(&image().archive().unwrap());
    assert_eq!(
        layout.config["rootfs"],
        json!({"type": "layers", "diff_ids": [sha256(&layout.layer)]})
    );
    assert_eq!(
        layout.files["oci-layout"].content,
        br#"{"imageLayoutVersion":"1.0.0"}"#
    );
    // Three blobs were reached from the index, and no other one is there.
    assert_eq!(layout.files.len(), 5, "{:?}", layout.files.keys());
    for (path, file) in &layout.files {
        assert!(file.is_regular, "{path}");
        assert_eq!((file.owner, file.mtime), ((0, 0), 0), "{path}");
    }
}

#[test]
fn the_layer_is_the_program_and_nothing_else() {
    let layout = read(&image().archive().unwrap());
    let expected = File {
        mode: 0o755,
        owner: (0, 0),
        mtime: 0,
        is_regular: true,
        content: PROGRAM.to_vec(),
    };
    assert_eq!(
        unpack(&layout.layer),
        BTreeMap::from([("proxy-agent".to_owned(), expected)])
    );
    assert_eq!(
        layout.config["config"]["Entrypoint"],
        json!(["/proxy-agent"])
    );
    assert_eq!(layout.config["config"]["Cmd"], json!(["run"]));
}

#[test]
fn platform_and_labels_are_told_wherever_they_are_looked_for() {
    let layout = read(&image().archive().unwrap());
    for place in [&layout.config, &layout.descriptor["platform"]] {
        assert_eq!(place["architecture"], "arm64");
        assert_eq!(place["os"], "linux");
    }
    let labels = json!({
        "org.opencontainers.image.title": "Portside",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": layout::LICENSES,
    });
    assert_eq!(layout.config["config"]["Labels"], labels);
    assert_eq!(layout.manifest["annotations"], labels);
}

#[test]
fn two_builds_have_the_same_bytes() {
    let first = image().archive().unwrap();
    // Past the resolution of a tar's and of gzip's times.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(first == image().archive().unwrap());
}

#[test]
fn the_daemon_set_asks_for_the_name_that_an_import_gives() {
    let path = workspace::root().join("deploy/base/daemonset.yaml");
    let object: Value = serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let container = &object["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], image().name());
    // Its arguments replace the image's, its command would replace the entry point.
    assert_eq!(container["args"][0], layout::COMMAND);
    assert_eq!(container["command"], Value::Null);
    // A name without a registry means this one to Kubernetes and containerd.
    let layout = read(&image().archive().unwrap());
    assert_eq!(
        layout.descriptor["annotations"]["io.containerd.image.name"],
        format!("docker.io/library/{}", image().name())
    );
}

#[test]
fn the_dockerfile_makes_the_same_image() {
    let dockerfile = fs::read_to_string(workspace::root().join("Dockerfile")).unwrap();
    let image = dockerfile.rsplit_once("FROM scratch\n").unwrap().1;
    let layout = read(&self::image().archive().unwrap());
    let config = &layout.config["config"];
    let mut expected = vec![
        format!("ENTRYPOINT {}", config["Entrypoint"]),
        format!("CMD {}", config["Cmd"]),
    ];
    for (name, value) in config["Labels"].as_object().unwrap() {
        expected.push(format!("LABEL {name}={value}"));
    }
    for line in expected {
        assert!(image.lines().any(|found| found == line), "{line}\n{image}");
    }
}

#[test]
fn a_dynamic_program_is_refused() {
    assert!(program::refuse_dynamic(PROGRAM).is_err());
    program::refuse_dynamic(&elf(object::elf::PT_LOAD)).unwrap();
    let error = program::refuse_dynamic(&elf(object::elf::PT_INTERP)).unwrap_err();
    assert!(
        error.to_string().starts_with("linked dynamically"),
        "{error}"
    );
}

#[test]
fn an_image_that_is_too_large_is_refused() {
    check_size(LIMIT).unwrap();
    let error = check_size(LIMIT + 10_000).unwrap_err().to_string();
    assert!(
        error.starts_with("the image has 20.01 MB, and may have 20.00 MB"),
        "{error}"
    );
}

/// An ELF file of 64 bits, little-endian, that has one segment, of this type and empty.
fn elf(segment: u32) -> Vec<u8> {
    let mut file = vec![0; 64 + 56];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    file[16] = 2; // e_type: ET_EXEC
    file[18] = 62; // e_machine: EM_X86_64
    file[20] = 1; // e_version
    file[32] = 64; // e_phoff
    file[52] = 64; // e_ehsize
    file[54] = 56; // e_phentsize
    file[56] = 1; // e_phnum
    file[64..68].copy_from_slice(&segment.to_le_bytes()); // p_type
    file
}

#[test]
fn architectures_have_the_names_of_the_specification() {
    assert_eq!(oci_architecture("x86_64").unwrap(), "amd64");
    assert_eq!(oci_architecture("aarch64").unwrap(), "arm64");
    let error = oci_architecture("s390x").unwrap_err().to_string();
    assert!(error.contains("s390x"), "{error}");
}
