//! The bytes of one file, without waiting for it for ever.
//!
//! In: paths. Out: bytes, or why there are none. Only regular files are read, wherever their links lead, and none that is
//! larger than [`Reader::new`] was told.
//!
//! The one rule: a file that does not answer costs itself. Reading is done by a thread that is left behind where it does not
//! come back (a file server that is away); its file is asked for again when it has. Files that the kernel makes up while
//! they are read (`/proc/kmsg` has no end) are refused by the file system that they are on.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    thread,
    time::{Duration, Instant},
};

use nix::{fcntl::OFlag, sys::statfs};

/// For how long files that do not answer are waited for, all of one reading together.
const PATIENCE: Duration = Duration::from_secs(3);
/// For how long each of the others is, when that is used up.
const IMPATIENCE: Duration = Duration::from_millis(50);
/// Threads that may be left behind. With as many, files are not read until one of them comes back.
const LEFT_BEHIND: usize = 32;

/// File systems whose files are answers of the kernel, by the number of statfs(2) (`linux/magic.h`).
const MADE_UP: [(i64, &str); 12] = [
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0xcafe_4a11, "bpf"),
    (0x7363_6673, "securityfs"),
    (0xde5e_81e4, "efivarfs"),
    (0x6165_676c, "pstore"),
    (0x6265_6570, "configfs"),
    (0x1cd1, "devpts"),
];

/// Changes when the file does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    pub modified: (i64, i64),
    pub changed: (i64, i64),
}

/// What a file is now.
#[derive(Debug)]
pub enum Found {
    /// What it was when it had this stamp.
    Same,
    Bytes(Stamp, Vec<u8>),
}

type Outcome = io::Result<Found>;

/// What the thread is asked for: a path, and the stamp that it had.
type Job = (PathBuf, Option<Stamp>);

#[derive(Debug)]
pub struct Reader {
    max_bytes: u64,
    worker: Option<Worker>,
    /// Files that did not answer, each with the thread that is at it still.
    stuck: HashMap<PathBuf, Worker>,
    patience: Duration,
}

#[derive(Debug)]
struct Worker {
    jobs: Sender<Job>,
    outcomes: Receiver<Outcome>,
}

impl Reader {
    /// Files of more than `max_bytes` are refused.
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            worker: None,
            stuck: HashMap::new(),
            patience: PATIENCE,
        }
    }

    /// Another reading begins.
    pub fn begin(&mut self) {
        self.patience = PATIENCE;
    }

    /// Is there a file that did not answer? Nobody tells when it does.
    pub fn waits(&self) -> bool {
        !self.stuck.is_empty()
    }

    /// The file at `path`, unless it is what it was at `stamp`.
    pub fn read(&mut self, path: &Path, stamp: Option<&Stamp>) -> Outcome {
        if let Some(worker) = self.stuck.get(path) {
            return match worker.outcomes.try_recv() {
                Err(TryRecvError::Empty) => Err(no_answer()),
                Err(TryRecvError::Disconnected) => {
                    self.stuck.remove(path);
                    Err(io::Error::other("the thread that read it ended"))
                }
                Ok(outcome) => {
                    self.worker = self.stuck.remove(path);
                    outcome
                }
            };
        }
        if self.stuck.len() >= LEFT_BEHIND {
            return Err(io::Error::other(format!(
                "{LEFT_BEHIND} other files do not answer"
            )));
        }
        let worker = match self.worker.take() {
            Some(worker) => worker,
            None => Worker::start(self.max_bytes)?,
        };
        let job = (path.to_owned(), stamp.cloned());
        let began = Instant::now();
        let _ = worker.jobs.send(job);
        let outcome = worker.outcomes.recv_timeout(self.patience.max(IMPATIENCE));
        match outcome {
            Ok(outcome) => {
                self.worker = Some(worker);
                outcome
            }
            Err(RecvTimeoutError::Timeout) => {
                self.patience = self.patience.saturating_sub(began.elapsed());
                self.stuck.insert(path.to_owned(), worker);
                Err(no_answer())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the thread that read it ended"))
            }
        }
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}

impl Worker {
    fn start(max_bytes: u64) -> io::Result<Self> {
        let (jobs, todo) = channel::<Job>();
        let (done, outcomes) = channel();
        thread::Builder::new()
            .name("manifests".to_owned())
            .spawn(move || {
                for (path, stamp) in todo {
                    if done.send(read(&path, stamp.as_ref(), max_bytes)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self { jobs, outcomes })
    }
}

fn read(path: &Path, stamp: Option<&Stamp>, max_bytes: u64) -> Outcome {
    // Looked at before it is opened, which some devices take for a sign.
    let meta = fs::metadata(path)?;
    regular(&meta)?;
    if stamp == Some(&Stamp::of(&meta)) {
        return Ok(Found::Same);
    }
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits())
        .open(path)?;
    let meta = file.metadata()?;
    regular(&meta)?;
    on_storage(&file)?;
    if meta.len() > max_bytes {
        return Err(too_large(max_bytes));
    }
    let mut bytes = Vec::with_capacity(meta.len() as usize);
    (&file).take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large(max_bytes));
    }
    Ok(Found::Bytes(Stamp::of(&meta), bytes))
}

fn regular(meta: &fs::Metadata) -> io::Result<()> {
    let kind = meta.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "it leads to a directory"
    } else if kind.is_fifo() {
        "it is a FIFO"
    } else if kind.is_socket() {
        "it is a socket"
    } else {
        "it is a device"
    };
    Err(refused(what.to_owned()))
}

fn on_storage(file: &File) -> io::Result<()> {
    let number = statfs::fstatfs(file)?.filesystem_type().0 as i64;
    match MADE_UP.iter().find(|(magic, _)| *magic == number) {
        None => Ok(()),
        Some((_, name)) => Err(refused(format!("it is on a {name} file system"))),
    }
}

fn refused(what: String) -> io::Error {
    let text = format!("{what}, and only regular files are read");
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn too_large(max_bytes: u64) -> io::Error {
    let text = format!("it has more than {max_bytes} bytes (--max-manifest-bytes)");
    io::Error::new(io::ErrorKind::FileTooLarge, text)
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn refusal(reader: &mut Reader, path: &Path) -> String {
        reader.read(path, None).unwrap_err().to_string()
    }

    #[test]
    fn a_regular_file_is_read_through_its_links_and_not_twice() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("..2026")).unwrap();
        fs::write(at("..2026/a.yaml"), "text").unwrap();
        symlink("..2026", at("..data")).unwrap();
        symlink("..data/a.yaml", at("a.yaml")).unwrap();
        let mut reader = Reader::new(4);
        let Found::Bytes(stamp, bytes) = reader.read(&at("a.yaml"), None).unwrap() else {
            panic!("not read");
        };
        assert_eq!(bytes, b"text");
        let again = reader.read(&at("a.yaml"), Some(&stamp));
        assert!(matches!(again, Ok(Found::Same)), "{again:?}");
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        mkfifo(&at("fifo.yaml"), Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket.yaml")).unwrap();
        fs::create_dir(at("d")).unwrap();
        for (name, target) in [
            ("zero.yaml", "/dev/zero"),
            ("kmsg.yaml", "/proc/kmsg"),
            ("sys.yaml", "/sys/kernel/uevent_seqnum"),
            ("dir.yaml", "d"),
        ] {
            symlink(target, at(name)).unwrap();
        }
        fs::write(at("big.yaml"), "12345").unwrap();
        let sparse = File::create(at("sparse.yaml")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        let mut reader = Reader::new(4);
        let began = Instant::now();
        for (name, what) in [
            ("fifo.yaml", "a FIFO"),
            ("socket.yaml", "a socket"),
            ("zero.yaml", "a device"),
            ("kmsg.yaml", "on a proc file system"),
            ("sys.yaml", "on a sysfs file system"),
            ("dir.yaml", "a directory"),
            ("big.yaml", "more than 4 bytes"),
            ("sparse.yaml", "more than 4 bytes"),
        ] {
            let text = refusal(&mut reader, &at(name));
            // Who may not open it gets no further.
            let denied = name == "kmsg.yaml" && text.contains("denied");
            assert!(text.contains(what) || denied, "{name}: {text}");
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert!(!reader.waits());
    }

    /// A thread that is at a file which does not answer.
    fn silent() -> (Worker, Sender<Outcome>) {
        let (jobs, _) = channel();
        let (answer, outcomes) = channel();
        (Worker { jobs, outcomes }, answer)
    }

    #[test]
    fn a_file_that_does_not_answer_costs_itself_until_it_does() {
        let dir = tempfile::tempdir().unwrap();
        let good = dir.path().join("good.yaml");
        fs::write(&good, "good").unwrap();
        let bad = Path::new("/away/bad.yaml");
        let mut reader = Reader::new(100);
        let (worker, answer) = silent();
        reader.worker = Some(worker);
        reader.patience = Duration::from_millis(10);
        assert!(refusal(&mut reader, bad).contains("does not answer"));
        assert!(reader.waits());
        // The next file has another thread, and nobody waits for the first one again.
        assert!(matches!(reader.read(&good, None), Ok(Found::Bytes(..))));
        let began = Instant::now();
        assert!(refusal(&mut reader, bad).contains("does not answer"));
        assert!(began.elapsed() < IMPATIENCE);
        answer.send(Ok(Found::Same)).unwrap();
        assert!(matches!(reader.read(bad, None), Ok(Found::Same)));
        assert!(!reader.waits());
    }

    #[test]
    fn threads_that_are_left_behind_are_bounded() {
        let mut reader = Reader::new(100);
        let mut answers = Vec::new();
        for number in 0..LEFT_BEHIND {
            let (worker, answer) = silent();
            answers.push(answer);
            reader
                .stuck
                .insert(PathBuf::from(number.to_string()), worker);
        }
        let text = refusal(&mut reader, Path::new("/etc/hostname"));
        assert!(text.contains("other files do not answer"), "{text}");
    }
}
