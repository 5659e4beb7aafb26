//! The directories of one datapath and its names.

use std::{
    fs,
    path::{self, PathBuf},
};

use crate::datapath::PinDir;

/// Several agents run on one kernel, each with a place of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Directory on a bpf filesystem that keeps maps and programs while no agent runs
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// Directory for what the agent leaves to its commands: the names of services
    #[arg(long, value_name = "DIR", default_value = "/run/portside")]
    pub state_dir: PathBuf,
}

impl Place {
    pub fn pins(&self) -> PinDir {
        PinDir::new(&self.bpffs)
    }

    /// The file of names.
    pub fn names(&self) -> PathBuf {
        self.file("names.json")
    }

    /// The file of what native XDP lost.
    pub fn losses(&self) -> PathBuf {
        self.file("xdp-losses.json")
    }

    /// The path of the bpf directory is part of the file's path, so that agents do not share files. It is the path
    /// without links and dots: a command finds what the agent wrote, however its user spelled the directory.
    fn file(&self, file: &str) -> PathBuf {
        let bpffs = fs::canonicalize(&self.bpffs)
            .or_else(|_| path::absolute(&self.bpffs)) // nothing is there: no agent, and nothing to find
            .unwrap_or_else(|_| self.bpffs.clone());
        let bpffs = bpffs.to_string_lossy();
        let name = bpffs.trim_matches('/').replace('/', "-");
        self.state_dir.join(name).join(file)
    }

    /// The file that says what came of looking after the datapath.
    pub fn looks(&self) -> PathBuf {
        self.file("looks.json")
    }

    /// The file of what the agent says of itself.
    pub fn word(&self) -> PathBuf {
        self.file("agent.json")
    }

    /// The file that says what there is no room for.
    pub fn left_out(&self) -> PathBuf {
        self.names().with_file_name("left-out.json")
    }
}

#[cfg(test)]
mod tests {
    use std::{env, os::unix::fs::symlink, path::Path};

    use super::*;

    fn names(bpffs: impl AsRef<Path>) -> PathBuf {
        let place = Place {
            bpffs: bpffs.as_ref().to_owned(),
            state_dir: "/run/portside".into(),
        };
        place.names()
    }

    #[test]
    fn the_default_directory_has_the_name_that_older_agents_gave_it() {
        let expected = Path::new("/run/portside/sys-fs-bpf/names.json");
        assert_eq!(names("/sys/fs/bpf"), expected);
    }

    #[test]
    fn every_spelling_of_a_directory_leads_to_the_same_files() {
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        let link = directory.path().join("link");
        symlink(&bpffs, &link).unwrap();
        let up = "../".repeat(env::current_dir().unwrap().components().count() - 1);
        let relative = Path::new(&up).join(bpffs.strip_prefix("/").unwrap());
        assert!(relative.is_relative() && relative.is_dir());

        for spelling in [&relative, &link, &bpffs.join("."), &bpffs.join("../bpf")] {
            assert_eq!(names(spelling), names(&bpffs), "{}", spelling.display());
        }
        assert_ne!(names(&bpffs), names(directory.path()));
    }

    #[test]
    fn a_relative_directory_that_is_not_there_counts_from_the_working_directory() {
        let absolute = env::current_dir().unwrap().join("no-such-directory");
        assert_eq!(names("no-such-directory"), names(absolute));
    }
}
