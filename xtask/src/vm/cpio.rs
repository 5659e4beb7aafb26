//! The archive format that the kernel unpacks its first file system from: cpio "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::{collections::BTreeSet, path::Path};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;

#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// A file at an absolute path, executable for all; its directories are made as needed.
    pub fn file(&mut self, path: &Path, content: &[u8]) {
        let name = path.to_string_lossy().trim_start_matches('/').to_owned();
        let slashes: Vec<_> = name.match_indices('/').map(|(at, _)| at).collect();
        for at in slashes {
            self.directory(&name[..at]);
        }
        self.entry(&name, PROGRAM, content);
    }

    /// `/dev/console`, character device 5:1.
    pub fn console(&mut self) {
        self.directory("dev");
        self.entry_of_device("dev/console", CONSOLE, [5, 1], &[]);
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn directory(&mut self, name: &str) {
        if self.directories.insert(name.to_owned()) {
            self.entry(name, DIRECTORY, &[]);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry_of_device(name, mode, [0, 0], content);
    }

    fn entry_of_device(&mut self, name: &str, mode: u32, device: [u32; 2], content: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(content.len()).expect("files of less than 4 GiB");
        let name_length = u32::try_from(name.len() + 1).expect("short names");
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            device[0],
            device[1],
            name_length,
            0,
        ];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_once_and_first() {
        let mut archive = Archive::default();
        archive.file(Path::new("/bin/a"), b"12345");
        archive.file(Path::new("/bin/b"), b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let headers: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(headers.len(), 4);
        assert!(headers.iter().all(|at| at % 4 == 0));
        assert_eq!(text[headers[0] + 110..].split('\0').next(), Some("bin"));
        assert_eq!(text[headers[1] + 110..].split('\0').next(), Some("bin/a"));
        assert_eq!(&text[headers[1] + 54..headers[1] + 62], "00000005");
    }
}
