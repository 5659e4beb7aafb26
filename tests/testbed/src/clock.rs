//! A wall clock that one process has for itself, and that is set as a test likes.
//!
//! A seccomp filter hands each of the process's questions for the wall clock to the test, which answers with the machine's time and an
//! offset (seccomp_unotify(2), Linux 5.0; pidfd_getfd(2), 5.6). A process asks the kernel only where it finds no vDSO, so that one's entry
//! is taken out of the auxiliary vector before the process's first instruction. All other clocks are the machine's.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// The number of the descriptor by which the questions are heard, far from those that a process opens first.
const LISTENER: RawFd = 200;

/// Entries of the auxiliary vector (include/uapi/linux/auxvec.h).
const AT_IGNORE: u64 = 1;
const AT_SYSINFO_EHDR: u64 = 33;

#[derive(Clone, Default)]
pub struct Clock(Arc<State>);

#[derive(Default)]
struct State {
    /// Seconds that it is ahead.
    ahead: AtomicI64,
    asked: AtomicU64,
}

impl Clock {
    /// Sets it so many seconds ahead of the machine's.
    pub fn set_ahead(&self, seconds: i64) {
        self.0.ahead.store(seconds, Ordering::Relaxed);
    }

    /// How often it was asked for.
    pub fn asked(&self) -> u64 {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// To be called before the process is started, and [`Self::keep`] after that, by the same thread.
    pub fn prepare(command: &mut Command) {
        // SAFETY: between fork and exec the closure makes system calls and allocates nothing.
        unsafe { command.pre_exec(listen) };
    }

    /// Lets the process go, and answers it for as long as it lives.
    pub fn keep(&self, pid: Pid) -> Result<()> {
        // It stops behind its exec.
        let stopped = waitpid(pid, None).context("waiting for the process to stop")?;
        ensure!(
            stopped == WaitStatus::Stopped(pid, Signal::SIGTRAP),
            "{stopped:?}"
        );
        take_vdso_away(pid)?;
        let listener = listener(pid).context("taking the descriptor of its questions")?;
        let memory = OpenOptions::new()
            .write(true)
            .open(format!("/proc/{pid}/mem"))?;
        trace(libc::PTRACE_DETACH, pid).context("letting the process go")?;
        let clock = self.clone();
        thread::spawn(move || while clock.answer(&listener, &memory).is_ok() {});
        Ok(())
    }

    /// Answers one question; an error where nobody is left to ask.
    fn answer(&self, listener: &OwnedFd, memory: &File) -> io::Result<()> {
        let Some(asked) = receive(listener)? else {
            return Ok(());
        };
        self.0.asked.fetch_add(1, Ordering::Relaxed);
        let now = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let seconds = (now.tv_sec() + self.0.ahead.load(Ordering::Relaxed)).max(0);
        let arguments = asked.data.args;
        let (at, parts) = match i64::from(asked.data.nr) {
            libc::SYS_gettimeofday => (arguments[0], now.tv_nsec() / 1000),
            _ => (arguments[1], now.tv_nsec()),
        };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&seconds.to_ne_bytes());
        bytes[8..].copy_from_slice(&parts.to_ne_bytes());
        let written = memory.write_all_at(&bytes, at);
        // It may have ended meanwhile.
        let _ = send(listener, asked.id, written.err());
        Ok(())
    }
}

/// Asks the kernel to hand over the questions for the wall clock, and stops behind the next exec.
fn listen() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    // Of `struct seccomp_data`: the call's number, and the low half of its first argument.
    let (number, first) = (
        0,
        if cfg!(target_endian = "little") {
            16
        } else {
            20
        },
    );
    let mut filter = [
        step(LOAD, number, 0, 0),
        step(IF, libc::SYS_gettimeofday as u32, 5, 0),
        step(IF, libc::SYS_clock_gettime as u32, 0, 3),
        step(LOAD, first, 0, 0),
        step(IF, libc::CLOCK_REALTIME as u32, 2, 0),
        step(IF, libc::CLOCK_REALTIME_COARSE as u32, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the filter outlives the call; the other calls take numbers.
    unsafe {
        let listener = libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        );
        // The copy stays over the exec.
        if listener < 0 || libc::dup2(listener as RawFd, LISTENER) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    trace(libc::PTRACE_TRACEME, Pid::from_raw(0))
}

/// ptrace(2), for requests that need neither an address nor data.
fn trace(request: libc::c_uint, pid: Pid) -> io::Result<()> {
    // SAFETY: no addresses are given.
    if unsafe { libc::ptrace(request, pid.as_raw(), 0_usize, 0_usize) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Overwrites the entry of the auxiliary vector that leads to the vDSO.
fn take_vdso_away(pid: Pid) -> Result<()> {
    let memory = OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Field 28 (proc_pid_stat(5)): where the number of arguments is, before the process has run.
    let (_, rest) = stat.rsplit_once(')').context("no name in stat")?;
    let start = rest.split_whitespace().nth(25).context("stat is short")?;
    let mut at: u64 = start.parse()?;
    ensure!(at != 0, "the kernel does not tell where the stack begins");
    let mut word = || -> Result<(u64, u64)> {
        let mut bytes = [0; 8];
        memory.read_exact_at(&mut bytes, at)?;
        at += 8;
        Ok((at - 8, u64::from_ne_bytes(bytes)))
    };
    let (_, arguments) = word()?;
    for _ in 0..=arguments {
        word()?;
    }
    while word()?.1 != 0 {}
    loop {
        let (entry, kind) = word()?;
        match kind {
            0 => bail!("there is no entry for the vDSO"),
            AT_SYSINFO_EHDR => {
                return Ok(memory.write_all_at(&AT_IGNORE.to_ne_bytes(), entry)?);
            }
            _ => word()?,
        };
    }
}

/// A copy of the descriptor.
fn listener(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: the calls take numbers, and the new descriptors are ours alone.
    unsafe {
        let process = libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0);
        if process < 0 {
            return Err(io::Error::last_os_error());
        }
        let process = OwnedFd::from_raw_fd(process as RawFd);
        let copy = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), LISTENER, 0);
        if copy < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(copy as RawFd))
    }
}

/// The next question; `None` for one that was given up. An error where the process has ended.
fn receive(listener: &OwnedFd) -> io::Result<Option<libc::seccomp_notif>> {
    let mut poll = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure, which outlives the call.
    if unsafe { libc::poll(&raw mut poll, 1, -1) } < 0 {
        return match Errno::last() {
            Errno::EINTR => Ok(None),
            error => Err(error.into()),
        };
    }
    if poll.revents & libc::POLLIN == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // SAFETY: all zeroes are a value of the structure, as the kernel demands it.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one such structure.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_RECV,
            &raw mut asked,
        )
    };
    match (done, Errno::last()) {
        (0, _) => Ok(Some(asked)),
        (_, Errno::ENOENT | Errno::EINTR) => Ok(None),
        (_, error) => Err(error.into()),
    }
}

fn send(listener: &OwnedFd, id: u64, error: Option<io::Error>) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: error.map_or(0, |error| -error.raw_os_error().unwrap_or(libc::EFAULT)),
        flags: 0,
    };
    // SAFETY: the kernel reads one such structure.
    let done = unsafe {
        libc::ioctl(
            listener.as_raw_fd(),
            libc::SECCOMP_IOCTL_NOTIF_SEND,
            &raw mut answer,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_process_has_a_clock_of_its_own() {
        let clock = Clock::default();
        // Ten days after the beginning.
        let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
        clock.set_ahead(10 * 86_400 + 3600 - now.tv_sec());
        let mut command = Command::new("date");
        command.args(["-u", "+%Y-%m-%d %H"]).stdout(Stdio::piped());
        // As the agent is confined.
        // SAFETY: one system call.
        unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_no_new_privs()?)) };
        Clock::prepare(&mut command);
        let child = command.spawn().unwrap();
        clock.keep(Pid::from_raw(child.id() as i32)).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            "1970-01-11 01"
        );
        assert!(clock.asked() > 0);
    }
}
