//! TCP connections, one after the other and several at a time, each with a request and its answer, over veth.
//!
//! A socket's packets reach a veth as socket buffers: native XDP there copies each of them into a frame first, which no
//! NIC does. The figures for XDP are those of this detour; `forward` has none.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::cpu::Pinned;
use super::rate::{Rate, in_turn};
use super::table::{Table, judged};
use super::ways::{Backend, WEB, Way};
use testbed::netns::Netns;
use testbed::patience::eventually;
use testbed::topology::Pod;

const PATIENCE: Duration = Duration::from_secs(4);
const REQUEST: [u8; 64] = [b'q'; 64];
const ANSWER: [u8; 256] = [b'a'; 256];

/// Connections that are open at a time, and how that is called.
const AT_ONCE: [(usize, &str); 2] = [(16, "16 at a time"), (256, "256 at a time")];
/// Connections that may wait for the server.
const BACKLOG: i32 = 1024;

/// Who asks for which pod.
struct Case {
    name: &'static str,
    backend: Backend,
    hairpin: bool,
    /// What a connection may cost beyond a direct one, in microseconds of CPU time: of a remote pod, for the one node that
    /// translates.
    bar: f64,
}

const CASES: [Case; 3] = [
    Case {
        name: "outside, local pod",
        backend: Backend::Local,
        hairpin: false,
        bar: 4.0,
    },
    Case {
        name: "outside, remote pod",
        backend: Backend::Remote,
        hairpin: false,
        bar: 2.0,
    },
    Case {
        name: "a pod, itself",
        backend: Backend::Local,
        hairpin: true,
        bar: 4.0,
    },
];

/// Measures every case by every way: one connection after the other, and several at a time.
pub fn measure(ways: &[Way]) -> Result<Vec<Table>> {
    let cpu = Pinned::pin()?;
    let _servers = ways
        .iter()
        .flat_map(|way| {
            [Backend::Local, Backend::Remote].map(|backend| Server::start(way.pod(backend)))
        })
        .collect::<Result<Vec<_>>>()?;
    let columns = [
        "case",
        "way",
        "per second",
        "CPU us each",
        "CPU us over direct",
        "bar",
        "",
    ];
    let mut one = Table::new(
        "TCP connections with one request each, one after the other, all on one core, IPv4",
        &columns,
    );
    let mut many = Table::new(
        "TCP connections with one request each, several at a time, all on one core, IPv4",
        &columns,
    );
    for case in &CASES {
        for way in ways {
            let target = way.target(case.backend);
            eventually(&format!("{}: {}", way.name, case.name), || {
                client(way, case).run(|| ask(target, 1))
            })?;
        }
        fill(&mut one, &cpu, ways, case, 1, case.name)?;
        for (at_once, name) in AT_ONCE {
            let name = format!("{}, {name}", case.name);
            fill(&mut many, &cpu, ways, case, at_once, &name)?;
        }
    }
    Ok(vec![one, many])
}

/// Measures a case by every way, with so many connections at a time.
fn fill(
    table: &mut Table,
    cpu: &Pinned,
    ways: &[Way],
    case: &Case,
    at_once: usize,
    name: &str,
) -> Result<()> {
    let rates = in_turn(ways.len(), |number| {
        let way = &ways[number];
        let target = way.target(case.backend);
        Rate::of(cpu, |until| {
            client(way, case).run(|| {
                let mut made = 0;
                while Instant::now() < until {
                    ask(target, at_once)?;
                    made += at_once as u64;
                }
                Ok(made)
            })
        })
        .with_context(|| format!("{}: {name}", way.name))
    })?;
    for (way, rate) in ways.iter().zip(&rates) {
        let bar = way.is_portside().then_some(case.bar);
        let [over, bar, verdict] = judged(rate.cpu - rates[0].cpu, bar, 1);
        table.row(vec![
            name.to_owned(),
            way.name.to_owned(),
            format!("{:.0}", rate.per_second),
            format!("{:.1}", rate.cpu),
            if over.starts_with('-') {
                over
            } else {
                format!("+{over}")
            },
            bar,
            verdict,
        ]);
    }
    Ok(())
}

fn client<'a>(way: &'a Way, case: &Case) -> &'a Netns {
    if case.hairpin {
        &way.pod(case.backend).netns
    } else {
        &way.cluster.topology.client().netns
    }
}

/// So many connections: all are open before the first one asks, and all have asked before the first answer is read.
fn ask(target: SocketAddr, at_once: usize) -> Result<()> {
    let mut streams = (0..at_once)
        .map(|_| {
            let stream = TcpStream::connect_timeout(&target, PATIENCE)
                .with_context(|| format!("connecting to {target}"))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(stream)
        })
        .collect::<Result<Vec<_>>>()?;
    for stream in &mut streams {
        stream.write_all(&REQUEST)?;
    }
    for mut stream in streams {
        let mut answer = Vec::with_capacity(ANSWER.len());
        stream.read_to_end(&mut answer)?;
        ensure!(answer == ANSWER, "{target} gave {} bytes", answer.len());
    }
    Ok(())
}

/// Answers one connection after the other on one thread: what a connection costs is then nearly all the kernel's.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(pod: &Pod) -> Result<Self> {
        let listener = pod.netns.run(|| listen((pod.ip.v4, WEB).into()))?;
        let accepting = listener.try_clone()?;
        let thread = thread::spawn(move || {
            // Shutting the socket down makes accept fail: the end.
            while let Ok((mut stream, _)) = accepting.accept() {
                // What goes wrong with a connection is seen by its client.
                let _ = stream
                    .read_exact(&mut [0; REQUEST.len()])
                    .and_then(|()| stream.write_all(&ANSWER));
            }
        });
        Ok(Self {
            listener,
            thread: Some(thread),
        })
    }
}

/// A listener with room for all the connections that are opened at a time.
fn listen(at: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(at))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
