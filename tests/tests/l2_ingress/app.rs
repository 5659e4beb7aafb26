//! An application behind the controllers: HTTP/1.1, WebSocket and gRPC, each at a port of its own, in both families.
//!
//! It answers with a line that tells its name, the connection's peer and what the controller says of the client.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use anyhow::{Context, Result, ensure};
use testbed::address::Family;
use testbed::cluster::PORT;
use testbed::manifests::{Endpoints, Service};
use testbed::patience::eventually;
use testbed::sockets::Protocol;
use testbed::sockets::listener::Listener;
use testbed::topology::{Host, Pod};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::grpc;

/// Where it is served on its cluster address, and where in its pods.
pub const HTTP: (u16, u16) = (80, PORT);
pub const WEBSOCKET: (u16, u16) = (81, 9000);
pub const GRPC: (u16, u16) = (82, 9001);

/// More than one pod takes at once.
const BACKLOG: usize = 64 * 1024;

/// Of everything that is not served by threads.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(1).enable_all();
    builder.build().expect("threads can be started")
});

/// The application's Service.
pub fn service(service: Service) -> Service {
    service
        .port("http", Protocol::Tcp, HTTP.0)
        .port("websocket", Protocol::Tcp, WEBSOCKET.0)
        .port("grpc", Protocol::Tcp, GRPC.0)
}

/// Its endpoints, without any yet.
pub fn endpoints(service: &str) -> Endpoints {
    Endpoints::of(service)
        .port("http", Protocol::Tcp, HTTP.1)
        .port("websocket", Protocol::Tcp, WEBSOCKET.1)
        .port("grpc", Protocol::Tcp, GRPC.1)
}

// Dropped in this order: what it serves before where it runs.
pub struct App {
    _listeners: Vec<Listener>,
    grpc: Vec<JoinHandle<()>>,
    state: Arc<State>,
    pub pod: Pod,
}

#[derive(Default)]
struct State {
    is_leaving: AtomicBool,
    /// HTTP connections.
    open: AtomicUsize,
}

impl App {
    pub fn start(name: &str, pod: Pod) -> Result<Self> {
        let state = Arc::new(State::default());
        let mut listeners = Vec::new();
        let mut grpc = Vec::new();
        for family in Family::BOTH {
            let at = |port| SocketAddr::new(pod.ip.of(family), port);
            let tells = |stream: TcpStream, peer, who: &str, state: &State| {
                state.open.fetch_add(1, Ordering::Relaxed);
                // An error here is the other end of the connection, which reports it.
                let _ = serve(stream, peer, who, state);
                state.open.fetch_sub(1, Ordering::Relaxed);
            };
            let (who, sharing) = (format!("app={name} pod={}", pod.name), Arc::clone(&state));
            listeners.push(Listener::start(
                &pod.netns,
                Protocol::Tcp,
                at(HTTP.1),
                move |stream, peer| tells(stream, peer, &who, &sharing),
            )?);
            let who = pod.name.clone();
            listeners.push(Listener::start(
                &pod.netns,
                Protocol::Tcp,
                at(WEBSOCKET.1),
                move |stream, _| {
                    let _ = echo(stream, &who);
                },
            )?);
            let socket = listen(&pod, at(GRPC.1))?;
            grpc.push(RUNTIME.spawn(grpc::serve(socket, pod.name.clone())));
        }
        Ok(Self {
            _listeners: listeners,
            grpc,
            state,
            pod,
        })
    }

    /// From now on each answer ends its connection.
    pub fn leave(&self) {
        self.state.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Waits until nobody has a connection to it.
    pub fn await_idle(&self) -> Result<()> {
        eventually(&format!("{} has no connection", self.pod.name), || {
            let open = self.state.open.load(Ordering::Relaxed);
            ensure!(open == 0, "{open} are open");
            Ok(())
        })
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.grpc.iter().for_each(JoinHandle::abort);
    }
}

fn listen(host: &Host, at: SocketAddr) -> Result<TcpListener> {
    let socket = host
        .netns
        .run(|| TcpListener::bind(at))
        .with_context(|| format!("listening on {at}"))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn serve(stream: TcpStream, peer: SocketAddr, who: &str, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(BACKLOG, stream);
    loop {
        let Some(request) = Request::read(&mut reader)? else {
            return Ok(());
        };
        let is_last = state.is_leaving.load(Ordering::Relaxed);
        let body = format!(
            "{who} peer={peer} {} path={} length={} sum={}\n",
            request.told, request.path, request.length, request.sum
        );
        let connection = if is_last { "close" } else { "keep-alive" };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all((head + &body).as_bytes())?;
        if is_last {
            return Ok(());
        }
    }
}

struct Request {
    path: String,
    /// What the controller says of itself and of the client.
    told: String,
    length: u64,
    sum: u32,
}

impl Request {
    /// The next one of a connection, unless it ends.
    fn read(reader: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut told, mut length) = (Vec::new(), 0);
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            match name.to_ascii_lowercase().as_str() {
                "x-ingress" => told.push(format!("ingress={}", value.trim())),
                "x-real-ip" => told.push(format!("real={}", value.trim())),
                "content-length" => length = value.trim().parse().unwrap_or_default(),
                _ => {}
            }
        }
        let mut body = Vec::new();
        reader.take(length).read_to_end(&mut body)?;
        Ok(Some(Self {
            path,
            told: told.join(" "),
            length,
            sum: crc(&body),
        }))
    }
}

/// A checksum of content.
pub fn crc(content: &[u8]) -> u32 {
    static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);
    CRC.checksum(content)
}

/// Each text comes back with the pod's name before it.
fn echo(stream: TcpStream, who: &str) -> Result<()> {
    let mut socket = tungstenite::accept(stream)?;
    loop {
        let message = socket.read()?;
        if let tungstenite::Message::Text(text) = message {
            socket.send(format!("{who} {text}").into())?;
        }
    }
}
