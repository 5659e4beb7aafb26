//! How much memory the control groups of this process allow it.
//!
//! A process that goes beyond is killed without a word, and from Linux 5.11 on its BPF maps count. So the limit is asked for before the
//! tables are made.

use std::{
    fs,
    path::{Path, PathBuf},
};

use procfs::{
    ProcResult, ProcessCGroup,
    process::{MountInfo, Process},
};

/// The tightest limit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Allowance {
    pub bytes: u64,
    /// The file that sets it.
    pub set_by: PathBuf,
}

/// What version 1 of control groups has for "no limit" is just below this (`PAGE_COUNTER_MAX` pages).
const NONE: u64 = i64::MAX as u64 >> 16 << 16;

impl Allowance {
    /// `None` where there is none, or none that can be read.
    pub fn read() -> Option<Self> {
        let read = || -> ProcResult<_> {
            let process = Process::myself()?;
            Ok((process.cgroups()?.0, process.mountinfo()?.0))
        };
        let (groups, mounts) = read().ok()?;
        tightest(&files(&groups, &mounts))
    }
}

fn tightest(files: &[PathBuf]) -> Option<Allowance> {
    let limits = files.iter().filter_map(|file| {
        // Where there is no limit, version 2 has the word `max`.
        let bytes = fs::read_to_string(file).ok()?.trim().parse().ok()?;
        (bytes < NONE).then(|| Allowance {
            bytes,
            set_by: file.clone(),
        })
    });
    limits.min_by_key(|limit| limit.bytes)
}

/// The files that may limit the memory of a process with these groups: its own group's, and those of all groups around it.
fn files(groups: &[ProcessCGroup], mounts: &[MountInfo]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for mount in mounts {
        let (group, file) = match &*mount.fs_type {
            "cgroup" if mount.super_options.contains_key("memory") => {
                let of_memory =
                    |group: &&ProcessCGroup| group.controllers.iter().any(|one| one == "memory");
                (groups.iter().find(of_memory), "memory.limit_in_bytes")
            }
            "cgroup2" => (
                groups.iter().find(|group| group.hierarchy == 0),
                "memory.max",
            ),
            _ => continue,
        };
        let Some(group) = group else { continue };
        // In a container, what is mounted may be its own group, and its path one that is seen from outside.
        let inside = Path::new(&group.pathname)
            .strip_prefix(&mount.root)
            .unwrap_or(Path::new(""));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        for directory in inside.ancestors() {
            files.push(mount.mount_point.join(directory).join(file));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use procfs::{FromRead, ProcessCGroups, process::MountInfos};

    use super::*;

    fn found(groups: &str, mounts: &str) -> Vec<String> {
        let groups = ProcessCGroups::from_read(groups.as_bytes()).unwrap();
        let mounts = MountInfos::from_read(mounts.as_bytes()).unwrap();
        let files = files(&groups.0, &mounts.0);
        files
            .iter()
            .map(|file| file.display().to_string())
            .collect()
    }

    #[test]
    fn the_groups_around_the_own_one_count() {
        let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found("0::/kubepods.slice/pod1.slice/c.scope\n", v2),
            [
                "/sys/fs/cgroup/kubepods.slice/pod1.slice/c.scope/memory.max",
                "/sys/fs/cgroup/kubepods.slice/pod1.slice/memory.max",
                "/sys/fs/cgroup/kubepods.slice/memory.max",
                "/sys/fs/cgroup/memory.max",
            ]
        );
        // In a namespace of its own.
        assert_eq!(found("0::/\n", v2), ["/sys/fs/cgroup/memory.max"]);
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let v1 = "31 25 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                  32 25 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let groups = "4:memory:/pod1\n3:cpu:/elsewhere\n0::/\n";
        let files = [
            "/sys/fs/cgroup/memory/pod1/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ];
        assert_eq!(found(groups, v1), files);
        // A container that sees its group mounted as the root.
        let mounted = "31 25 0:27 /pod1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(found(groups, mounted), files[1..]);
        let other = "31 25 0:27 /other /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert_eq!(found(groups, other), files[1..]);
        assert!(found("", v1).is_empty());
    }

    #[test]
    fn the_tightest_limit_counts_and_what_is_none_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            file
        };
        let none = file("v1", "9223372036854771712\n");
        let max = file("v2", "max\n");
        assert_eq!(
            tightest(&[none.clone(), max.clone(), dir.path().join("gone")]),
            None
        );
        let wide = file("wide", "1073741824\n");
        let tight = file("tight", "67108864\n");
        let allowance = tightest(&[none, wide, tight.clone(), max]);
        assert_eq!(
            allowance,
            Some(Allowance {
                bytes: 64 << 20,
                set_by: tight
            })
        );
    }
}
