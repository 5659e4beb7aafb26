//! Where a datapath and its names are.

use std::path::PathBuf;

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

    /// The bpf directory is part of its name, so that agents do not share one.
    fn file(&self, file: &str) -> PathBuf {
        let bpffs = self.bpffs.to_string_lossy();
        let name = bpffs.trim_matches('/').replace('/', "-");
        self.state_dir.join(name).join(file)
    }

    /// The file that says what came of looking after the datapath.
    pub fn looks(&self) -> PathBuf {
        self.file("looks.json")
    }

    /// The file that says what there is no room for.
    pub fn left_out(&self) -> PathBuf {
        self.names().with_file_name("left-out.json")
    }
}
