//! The listening addresses, as the command line gives them.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    str::FromStr,
};

use super::listen::{self, Families};

#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Where /healthz, /livez and /readyz are served; empty or 0 for nowhere
    #[arg(long, value_name = "ADDR:PORT", default_value_t = Bind::at("0.0.0.0:10256"))]
    pub healthz_bind: Bind,
    /// Where /metrics is served; empty or 0 for nowhere
    #[arg(long, value_name = "ADDR:PORT", default_value_t = Bind::at("127.0.0.1:10249"))]
    pub metrics_bind: Bind,
}

/// An address to listen at, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind(Option<SocketAddr>);

impl Bind {
    fn at(text: &str) -> Self {
        text.parse().expect("the default is an address")
    }

    pub fn address(self) -> Option<SocketAddr> {
        self.0
    }

    /// `0.0.0.0` stands for the addresses of both families, as with kube-proxy.
    pub(super) fn open(self, flag: &'static str) -> Result<Option<TcpListener>, ListenError> {
        let Some(at) = self.0 else {
            return Ok(None);
        };
        listen::listen(at, Families::Both)
            .map(Some)
            .map_err(|source| ListenError { flag, at, source })
    }
}

/// An address at which nobody can be served.
#[derive(Debug, thiserror::Error)]
#[error(
    "{flag}: cannot listen at {at} (if another program has the port, stop it or give another address; kube-proxy uses the \
     same ports)"
)]
pub struct ListenError {
    flag: &'static str,
    at: SocketAddr,
    source: io::Error,
}

impl ListenError {
    /// Has somebody else the port?
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" | "0" => Ok(Self(None)),
            _ => text.parse().map(|at| Self(Some(at))).map_err(|_| {
                "give an address and a port (0.0.0.0:10256, [::1]:10256), or nothing".to_owned()
            }),
        }
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => write!(f, "{at}"),
            None => f.write_str("0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_and_may_be_left_out() {
        for (text, at) in [
            ("0.0.0.0:10256", Some("0.0.0.0:10256")),
            ("[::1]:1", Some("[::1]:1")),
            ("", None),
            ("0", None),
        ] {
            let at = at.map(|at| at.parse().unwrap());
            assert_eq!(text.parse(), Ok(Bind(at)), "{text:?}");
        }
        for text in ["10256", "0.0.0.0", "localhost:10256", "::1:10256x"] {
            assert!(text.parse::<Bind>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_that_names_flag_and_address() {
        let first = Bind::at("127.0.0.1:0").open("--first").unwrap().unwrap();
        let taken = first.local_addr().unwrap();
        let error = Bind(Some(taken)).open("--second").unwrap_err();
        let error = anyhow::Error::new(error);
        let text = format!("{error:#}");
        assert!(text.contains("--second"), "{text}");
        assert!(text.contains(&taken.to_string()), "{text}");
        assert!(text.contains("in use"), "{text}");
    }

    #[test]
    fn the_unspecified_ipv4_address_is_reached_in_both_families() {
        let listener = Bind::at("0.0.0.0:0").open("--bind").unwrap().unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            let host: std::net::IpAddr = host.parse().unwrap();
            std::net::TcpStream::connect((host, port)).unwrap_or_else(|e| panic!("{host}: {e}"));
        }
    }
}
