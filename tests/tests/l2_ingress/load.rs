//! Clients that keep their connections alive, and clients that open new ones at a steady rate, all counted.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::meanwhile::Meanwhile;
use testbed::one_cpu::OneCpu;
use testbed::patience::patient;
use testbed::topology::Host;

use crate::controller::SHOP;

const KEPT: usize = 8;
const OPENERS: usize = 8;

/// New connections in a second, of all openers together. A busy machine gets fewer.
const RATE: u32 = 1000;

/// From one request of a kept connection to its next.
const PAUSE: Duration = Duration::from_millis(10);

/// For each step of a request.
const LIMIT: Duration = Duration::from_secs(10);

/// What became of all requests.
#[derive(Default, Debug)]
pub struct Count {
    /// On connections that were kept alive.
    pub kept: usize,
    /// Each by a connection of its own.
    pub new: usize,
    pub failed: usize,
    /// Of those, by a reset.
    pub resets: usize,
    /// How the first ones failed.
    pub how: Vec<String>,
    /// Answers of each controller with each pod of the application.
    pub by: BTreeMap<String, usize>,
    pub took: Duration,
}

impl Count {
    pub fn summary(&self) -> String {
        let Self {
            kept,
            new,
            failed,
            resets,
            took,
            ..
        } = self;
        let rate = *new as f64 / took.as_secs_f64();
        format!(
            "{kept} requests on kept connections, {new} on new ones ({rate:.0}/s), {failed} failed, {resets} of them by a reset"
        )
    }
}

/// Where the clients go; it may change meanwhile.
pub struct Load<'a> {
    from: &'a Host,
    pub targets: RwLock<Vec<SocketAddr>>,
    pub count: Mutex<Count>,
}

impl<'a> Load<'a> {
    pub fn new(from: &'a Host, targets: Vec<SocketAddr>) -> Self {
        Self {
            from,
            targets: RwLock::new(targets),
            count: Mutex::default(),
        }
    }

    /// Sends requests while `work` is done, before it begins and after it has ended.
    pub fn during(self, work: impl FnOnce(&Self) -> Result<()>) -> Result<Count> {
        let meanwhile = Meanwhile::default();
        let began = Instant::now();
        let load = &self;
        thread::scope(|scope| {
            for number in 0..KEPT + OPENERS {
                let meanwhile = &meanwhile;
                scope.spawn(move || {
                    load.from.netns.enter()();
                    let _on = OneCpu::stay();
                    if number < KEPT {
                        load.keep(number, meanwhile)
                    } else {
                        load.open(number, meanwhile)
                    }
                });
            }
            meanwhile.work(KEPT + OPENERS, || work(load))
        })?;
        let mut count = self.count.into_inner().expect("nobody panics with it");
        count.took = began.elapsed();
        Ok(count)
    }

    /// So many answers have come.
    pub fn answers(&self) -> usize {
        let count = self.count.lock().expect("nobody panics with it");
        count.kept + count.new
    }

    fn target(&self, number: usize) -> SocketAddr {
        let targets = self.targets.read().expect("nobody panics with them");
        targets[number % targets.len()]
    }

    fn keep(&self, number: usize, meanwhile: &Meanwhile) {
        let mut connection = None;
        let asking = meanwhile.repeat(|| {
            let target = self.target(number);
            let asked = ask(&mut connection, target);
            if asked.is_err() {
                connection = None;
            }
            self.add(true, target, asked);
            thread::sleep(PAUSE);
            Ok(())
        });
        drop(asking);
    }

    fn open(&self, number: usize, meanwhile: &Meanwhile) {
        let interval = Duration::from_secs(1) * OPENERS as u32 / RATE;
        let mut next = Instant::now();
        let mut opened = number;
        let asking = meanwhile.repeat(|| {
            let target = self.target(opened);
            opened += 1;
            let asked = ask_once(target);
            self.add(false, target, asked);
            next += interval;
            match next.checked_duration_since(Instant::now()) {
                Some(rest) => thread::sleep(rest),
                // What a busy machine did not get to is not made up for.
                None => next = Instant::now(),
            }
            Ok(())
        });
        drop(asking);
    }

    fn add(&self, kept: bool, target: SocketAddr, asked: io::Result<String>) {
        let mut count = self.count.lock().expect("nobody panics with it");
        match asked {
            Ok(body) => {
                if kept {
                    count.kept += 1;
                } else {
                    count.new += 1;
                }
                *count.by.entry(who(&body)).or_default() += 1;
            }
            Err(error) => {
                count.failed += 1;
                count.resets += usize::from(error.kind() == ErrorKind::ConnectionReset);
                if count.how.len() < 10 {
                    let which = if kept { "kept" } else { "new" };
                    count
                        .how
                        .push(format!("{which} connection to {target}: {error}"));
                }
            }
        }
    }
}

/// The controller and the application's pod that answered, by their names.
fn who(body: &str) -> String {
    let word = |name: &str| {
        let mut words = body.split_whitespace();
        words
            .find_map(|word| word.strip_prefix(name))
            .unwrap_or("?")
    };
    format!("{} {}", word("ingress="), word("pod="))
}

/// A request by a connection of its own, from the namespace of the thread; gives who answered.
pub fn ask_who(from: &Host, target: SocketAddr) -> Result<String> {
    Ok(who(&from.netns.run(|| ask_once(target))?))
}

fn connect(target: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&target, patient(LIMIT))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patient(LIMIT)))?;
    Ok(BufReader::new(stream))
}

fn ask_once(target: SocketAddr) -> io::Result<String> {
    let (body, _) = exchange(&mut connect(target)?, "close")?;
    Ok(body)
}

/// A request by the connection that is kept, or a new one where the server ended that with its last answer.
fn ask(connection: &mut Option<BufReader<TcpStream>>, target: SocketAddr) -> io::Result<String> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => connect(target)?,
    };
    let (body, is_last) = exchange(&mut stream, "keep-alive")?;
    if !is_last {
        *connection = Some(stream);
    }
    Ok(body)
}

/// The body, and whether the server ends the connection with it.
fn exchange(stream: &mut BufReader<TcpStream>, connection: &str) -> io::Result<(String, bool)> {
    let request = format!("GET / HTTP/1.1\r\nHost: {SHOP}\r\nConnection: {connection}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let mut status = String::new();
    if stream.read_line(&mut status)? == 0 {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    if !status.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(status.trim().to_owned()));
    }
    let (mut length, mut is_last, mut line) = (0, false, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().map_err(io::Error::other)?,
            "connection" => is_last = value.trim().eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let body = String::from_utf8(body).map_err(io::Error::other)?;
    Ok((body, is_last))
}
