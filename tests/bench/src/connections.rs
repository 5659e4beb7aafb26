//! TCP connections, one after the other, each with a request and its answer, over veth.
//!
//! A socket's packets reach a veth as socket buffers: native XDP there copies each of them into a frame first, which no
//! NIC does. The figures for XDP are those of this detour; `forward` has none.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use socket2::SockRef;

use super::cpu::Pinned;
use super::rate::{Rate, in_turn};
use super::table::Table;
use super::ways::{Backend, WEB, Way};
use testbed::netns::Netns;
use testbed::patience::eventually;
use testbed::topology::Pod;

const PATIENCE: Duration = Duration::from_secs(4);
const REQUEST: [u8; 64] = [b'q'; 64];
const ANSWER: [u8; 256] = [b'a'; 256];

/// Who asks for which pod.
struct Case {
    name: &'static str,
    backend: Backend,
    hairpin: bool,
}

const CASES: [Case; 3] = [
    Case {
        name: "outside, local pod",
        backend: Backend::Local,
        hairpin: false,
    },
    Case {
        name: "outside, remote pod",
        backend: Backend::Remote,
        hairpin: false,
    },
    Case {
        name: "a pod, itself",
        backend: Backend::Local,
        hairpin: true,
    },
];

/// Measures every case by every way.
pub fn measure(ways: &[Way]) -> Result<Table> {
    let cpu = Pinned::pin()?;
    let _servers = ways
        .iter()
        .flat_map(|way| {
            [Backend::Local, Backend::Remote].map(|backend| Server::start(way.pod(backend)))
        })
        .collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(
        "TCP connections with one request each, one after the other, all on one core, IPv4",
        &[
            "case",
            "way",
            "per second",
            "CPU us each",
            "CPU us over direct",
        ],
    );
    for case in &CASES {
        for way in ways {
            let target = way.target(case.backend);
            eventually(&format!("{}: {}", way.name, case.name), || {
                client(way, case).run(|| ask(target))
            })?;
        }
        let rates = in_turn(ways.len(), |number| {
            let way = &ways[number];
            let target = way.target(case.backend);
            Rate::of(&cpu, |until| {
                client(way, case).run(|| {
                    let mut made = 0;
                    while Instant::now() < until {
                        ask(target)?;
                        made += 1;
                    }
                    Ok(made)
                })
            })
            .with_context(|| format!("{}: {}", way.name, case.name))
        })?;
        for (way, rate) in ways.iter().zip(&rates) {
            table.row(vec![
                case.name.to_owned(),
                way.name.to_owned(),
                format!("{:.0}", rate.per_second),
                format!("{:.1}", rate.cpu),
                format!("{:+.1}", rate.cpu - rates[0].cpu),
            ]);
        }
    }
    Ok(table)
}

fn client<'a>(way: &'a Way, case: &Case) -> &'a Netns {
    if case.hairpin {
        &way.pod(case.backend).netns
    } else {
        &way.cluster.topology.client().netns
    }
}

/// One connection.
fn ask(target: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)
        .with_context(|| format!("connecting to {target}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&REQUEST)?;
    let mut answer = Vec::with_capacity(ANSWER.len());
    stream.read_to_end(&mut answer)?;
    ensure!(answer == ANSWER, "{target} gave {} bytes", answer.len());
    Ok(())
}

/// Answers one connection after the other on one thread: what a connection costs is then nearly all the kernel's.
struct Server {
    listener: TcpListener,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(pod: &Pod) -> Result<Self> {
        let listener = pod.netns.run(|| TcpListener::bind((pod.ip.v4, WEB)))?;
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = SockRef::from(&self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
