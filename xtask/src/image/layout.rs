//! The image as bytes, after the OCI image specification 1.1: a layout (`oci-layout`, `index.json`, `blobs/`) in a tar.

use std::io::Write as _;

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Where the program is in the image, as the runtime starts it.
pub const ENTRYPOINT: &str = "/proxy-agent";
/// The program's arguments, if a container gives none.
pub const COMMAND: &str = "run";
/// In the form of SPDX: the agent's licence, and that of the eBPF programs in it.
pub const LICENSES: &str = "(Apache-2.0 OR MIT) AND (MIT OR GPL-2.0-only)";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// One image for one architecture.
pub struct Image<'a> {
    pub version: &'a str,
    /// The architecture by Go's name: `amd64`, `arm64`.
    pub architecture: &'a str,
    pub program: &'a [u8],
}

impl Image<'_> {
    /// The name without a registry, as `deploy/base` has it.
    pub fn name(&self) -> String {
        format!("portside:{}", self.version)
    }

    /// Returns the whole archive. Blobs are named by the SHA-256 of their bytes.
    pub fn archive(&self) -> anyhow::Result<Vec<u8>> {
        let plain = tar([(ENTRYPOINT.trim_start_matches('/'), 0o755, self.program)])
            .context("making the layer")?;
        let layer = Blob::new(LAYER, compress(&plain).context("compressing the layer")?);
        // The layer's identity on a node is that of its plain tar, which no choice of compression changes.
        let config = Blob::json(CONFIG, &self.config(&digest(&plain)));
        let manifest = Blob::json(
            MANIFEST,
            &json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.descriptor(),
                "layers": [layer.descriptor()],
                "annotations": self.labels(),
            }),
        );
        let index = self.index(&manifest).to_string();
        let paths = [&config, &layer, &manifest].map(Blob::path);
        tar([
            (
                "oci-layout",
                0o644,
                &br#"{"imageLayoutVersion":"1.0.0"}"#[..],
            ),
            ("index.json", 0o644, index.as_bytes()),
            (&paths[0], 0o644, &config.bytes),
            (&paths[1], 0o644, &layer.bytes),
            (&paths[2], 0o644, &manifest.bytes),
        ])
        .context("making the archive")
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "Entrypoint": [ENTRYPOINT],
                "Cmd": [COMMAND],
                "Labels": self.labels(),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
        })
    }

    fn index(&self, manifest: &Blob) -> Value {
        let mut descriptor = manifest.descriptor();
        descriptor["platform"] = json!({"architecture": self.architecture, "os": "linux"});
        descriptor["annotations"] = json!({
            // The tag, by which skopeo chooses among images of a layout.
            "org.opencontainers.image.ref.name": self.version,
            // What containerd and podman call the image when they import it: the name that `deploy/base` has, in full.
            "io.containerd.image.name": format!("docker.io/library/{}", self.name()),
        });
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor]})
    }

    /// Labels for the manifest and for the configuration: tools for containers read one or the other.
    fn labels(&self) -> Value {
        json!({
            "org.opencontainers.image.title": "Portside",
            "org.opencontainers.image.version": self.version,
            "org.opencontainers.image.licenses": LICENSES,
        })
    }
}

struct Blob {
    media_type: &'static str,
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            media_type,
            digest: digest(&bytes),
            bytes,
        }
    }

    fn json(media_type: &'static str, value: &Value) -> Self {
        Self::new(media_type, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// `sha256:` and 64 lower-case hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    let hexadecimal: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hexadecimal}")
}

/// A tar of files with mode and content. All belong to root and have the time 0.
fn tar<'a>(files: impl IntoIterator<Item = (&'a str, u32, &'a [u8])>) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content)?;
    }
    archive.into_inner()
}

/// Compresses bytes without a name and a time in gzip's header, so that the result depends on the bytes alone.
fn compress(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    encoder.finish()
}
