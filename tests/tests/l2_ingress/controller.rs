//! nginx or HAProxy as an ingress controller: how each is told to serve the same names, paths and ports.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use testbed::address::{Family, Pair};
use testbed::netns::Netns;
use vm_protocol::variable;

use crate::app;
use crate::certificates::Certificates;
use crate::process::Process;
use crate::recipe::Ports;

/// The names that are served, each by an application of its own; the first one's `/blog` is the second one's, too.
pub const SHOP: &str = "shop.example";
pub const BLOG: &str = "blog.example";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Nginx,
    Haproxy,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Nginx => variable::NGINX,
            Self::Haproxy => variable::HAPROXY,
        }
    }

    pub fn program(self) -> Option<PathBuf> {
        std::env::var_os(self.variable()).map(PathBuf::from)
    }
}

/// Why there is no program of this kind here, if so.
pub fn missing(kind: Kind) -> Option<&'static str> {
    if kind.program().is_some() {
        return None;
    }
    Some(match kind {
        Kind::Nginx => "PORTSIDE_NGINX names no nginx",
        Kind::Haproxy => "PORTSIDE_HAPROXY names no haproxy",
    })
}

/// What a controller is told.
pub struct Settings<'a> {
    /// What it calls itself.
    pub name: &'a str,
    pub ports: Ports,
    /// Where it wants the header of the PROXY protocol, if it does.
    pub proxied: Option<u16>,
    /// The applications' cluster addresses.
    pub shop: Pair,
    pub blog: Pair,
    pub certificates: &'a Certificates,
    /// It ends a connection, of a client or to an application, after so many requests.
    pub requests: u32,
}

pub struct Controller {
    kind: Kind,
    process: Process,
    directory: PathBuf,
}

impl Controller {
    pub fn start(
        kind: Kind,
        netns: &Netns,
        directory: PathBuf,
        settings: &Settings,
    ) -> Result<Self> {
        let program = kind.program().context("a program")?;
        let file = directory.join("conf");
        let (text, arguments) = match kind {
            Kind::Nginx => (nginx(settings, &directory), ["-p", "-e", "-c"]),
            Kind::Haproxy => (haproxy(settings), ["-db", "", "-f"]),
        };
        fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
        let (file, prefix) = (path(&file)?, path(&directory)?);
        let log = format!("{prefix}/log");
        let [first, second, third] = arguments;
        let arguments = match kind {
            Kind::Nginx => vec![first, prefix, second, &log, third, file],
            Kind::Haproxy => vec![first, third, file],
        };
        let process = Process::start(netns, &program, &arguments, &directory)?;
        Ok(Self {
            kind,
            process,
            directory,
        })
    }

    /// Lets it serve what it has and end; it takes nothing new.
    pub fn quit(&mut self) -> Result<()> {
        self.process.end_by(match self.kind {
            Kind::Nginx => Signal::SIGQUIT,
            Kind::Haproxy => Signal::SIGUSR1,
        })
    }

    /// What it complained of.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        format!("{}{log}", self.process.said())
    }
}

fn path(path: &std::path::Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

const FAMILIES: [(Family, &str); 2] = [(Family::V4, "4"), (Family::V6, "6")];

fn at(ip: &Pair, family: Family, port: u16) -> String {
    std::net::SocketAddr::new(ip.of(family), port).to_string()
}

fn nginx(settings: &Settings, directory: &std::path::Path) -> String {
    let Settings {
        name,
        ports,
        proxied,
        shop,
        blog,
        certificates,
        requests,
    } = settings;
    let directory = directory.display();
    let mut upstreams = String::new();
    for (family, digit) in FAMILIES {
        for (app, ip, port) in [
            ("shop", shop, app::HTTP.0),
            ("blog", blog, app::HTTP.0),
            ("websocket", shop, app::WEBSOCKET.0),
            ("grpc", shop, app::GRPC.0),
        ] {
            let at = at(ip, family, port);
            let _ = writeln!(
                upstreams,
                "upstream {app}{digit} {{ server {at}; keepalive 16; keepalive_timeout 1s; keepalive_requests {requests}; }}"
            );
        }
    }
    for app in ["shop", "blog", "websocket", "grpc"] {
        let _ = writeln!(
            upstreams,
            "map $server_addr ${app} {{ ~: {app}6; default {app}4; }}"
        );
    }
    let mut listen = String::new();
    for host in ["0.0.0.0", "[::]"] {
        let only = if host == "[::]" { " ipv6only=on" } else { "" };
        let Ports { http, https, grpc } = ports;
        for (port, how) in [(http, ""), (https, " ssl http2"), (grpc, " http2")] {
            let _ = writeln!(listen, "listen {host}:{port}{how}{only} MODE;");
        }
        if let Some(port) = proxied {
            let _ = writeln!(listen, "listen {host}:{port} proxy_protocol{only} MODE;");
        }
    }
    let first = listen.replace("MODE", "default_server backlog=4096");
    let also = listen.replace(" ipv6only=on", "").replace(" MODE", "");
    let of = |name: &str| {
        format!(
            "server_name {name}; ssl_certificate {}; ssl_certificate_key {};",
            certificates.certificate(name).display(),
            certificates.key(name).display()
        )
    };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {directory}/{what};\n"))
        .concat();
    format!(
        "user root;\ndaemon off;\nworker_processes 1;\npid {directory}/pid;\nerror_log {directory}/log error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
         access_log off;\nclient_max_body_size 0;\nclient_body_buffer_size 2m;\nkeepalive_requests {requests};\n{temporary}\
         set_real_ip_from 0.0.0.0/0;\nset_real_ip_from ::/0;\nreal_ip_header proxy_protocol;\n\
         proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\nproxy_set_header Host $host;\n\
         proxy_set_header X-Ingress {name};\nproxy_set_header X-Real-IP $remote_addr;\n\
         {upstreams}\
         server {{\n{first}ssl_reject_handshake on;\nreturn 404;\n}}\n\
         server {{\n{also}{}\n\
         location / {{ proxy_pass http://$shop; }}\n\
         location /blog {{ proxy_pass http://$blog; }}\n\
         location /websocket {{\nproxy_pass http://$websocket;\nproxy_read_timeout 1200s;\n\
         proxy_set_header Host $host;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection upgrade;\n}}\n\
         location /{} {{ grpc_pass grpc://$grpc; }}\n\
         }}\n\
         server {{\n{also}{}\nlocation / {{ proxy_pass http://$blog; }}\n}}\n\
         }}\n",
        of(SHOP),
        crate::grpc::SERVICE,
        of(BLOG),
    )
}

fn haproxy(settings: &Settings) -> String {
    let Settings {
        name,
        ports: Ports { http, https, grpc },
        proxied,
        shop,
        blog,
        certificates,
        requests: _,
    } = settings;
    let certificates = certificates.for_haproxy();
    let mut text = "global\nmaxconn 4000\nnbthread 1\n\
                    defaults\nmode http\ntimeout connect 5s\ntimeout client 1200s\ntimeout server 1200s\n\
                    option forwardfor header X-Real-IP\n"
        .to_owned();
    for (family, digit) in FAMILIES {
        let (host, only) = match family {
            Family::V4 => ("0.0.0.0", ""),
            Family::V6 => ("[::]", " v6only"),
        };
        let tls = format!(
            "ssl strict-sni crt {} alpn h2,http/1.1",
            certificates.display()
        );
        let _ = write!(
            text,
            "frontend in{digit}\n\
             bind {host}:{http}{only}\nbind {host}:{https}{only} {tls}\nbind {host}:{grpc}{only} proto h2\n"
        );
        if let Some(port) = proxied {
            let _ = writeln!(text, "bind {host}:{port}{only} accept-proxy");
        }
        let _ = write!(
            text,
            "http-request set-header X-Ingress {name}\n\
             acl shop hdr(host),field(1,:) -i {SHOP}\nacl blog hdr(host),field(1,:) -i {BLOG}\n\
             http-request deny deny_status 404 unless shop or blog\n\
             use_backend grpc{digit} if shop {{ path_beg /{} }}\n\
             use_backend websocket{digit} if shop {{ path_beg /websocket }}\n\
             use_backend blog{digit} if shop {{ path_beg /blog }}\n\
             use_backend blog{digit} if blog\n\
             use_backend shop{digit} if shop\n",
            crate::grpc::SERVICE
        );
        for (app, ip, port, how) in [
            ("shop", shop, app::HTTP.0, ""),
            ("blog", blog, app::HTTP.0, ""),
            ("websocket", shop, app::WEBSOCKET.0, ""),
            ("grpc", shop, app::GRPC.0, " proto h2"),
        ] {
            let at = at(ip, family, port);
            let _ = writeln!(text, "backend {app}{digit}\nserver only {at}{how}");
        }
    }
    text
}

/// HAProxy as a load balancer that ends connections: from port 80 of its host to these targets, with the PROXY protocol's header.
pub fn load_balancer(
    netns: &Netns,
    directory: PathBuf,
    port: u16,
    targets: &[std::net::SocketAddr],
) -> Result<Process> {
    let program = Kind::Haproxy.program().context("a program")?;
    let mut text =
        "global\nnbthread 1\ndefaults\nmode tcp\ntimeout connect 5s\ntimeout client 60s\n\
                    timeout server 60s\n"
            .to_owned();
    for (family, digit) in FAMILIES {
        let bind = match family {
            Family::V4 => format!("0.0.0.0:{port}"),
            Family::V6 => format!("[::]:{port} v6only"),
        };
        let _ = writeln!(text, "listen balancer{digit}\nbind {bind}");
        let own = targets
            .iter()
            .filter(|at| at.is_ipv4() == (family == Family::V4));
        for (number, target) in own.enumerate() {
            let _ = writeln!(text, "server node{number} {target} send-proxy-v2");
        }
    }
    let file = directory.join("conf");
    fs::write(&file, text)?;
    Process::start(netns, &program, &["-db", "-f", path(&file)?], &directory)
}
