//! Which of the connections are shown: those for which every flag that is given holds.

use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;

use crate::{
    datapath::{Connection, ConnectionState},
    model::Protocol,
    state::Name,
};

#[derive(Clone, Debug, Default, clap::Args)]
pub struct Filter {
    /// Of this Service, or of this port of it
    #[arg(long, value_name = "NAMESPACE/NAME[:PORT]")]
    service: Option<String>,
    /// Of clients at this address
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// To this endpoint
    #[arg(long, value_name = "ADDRESS")]
    backend: Option<IpAddr>,
    /// To this port of the service's address or of the node
    #[arg(long)]
    port: Option<u16>,
    #[arg(long, value_enum, ignore_case = true)]
    protocol: Option<Proto>,
    #[arg(long, value_enum)]
    state: Option<State>,
    #[arg(long, value_enum)]
    family: Option<IpFamily>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Proto {
    Tcp,
    Udp,
    Sctp,
}

/// As the column STATE has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum State {
    New,
    Established,
    Closing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum IpFamily {
    Ipv4,
    Ipv6,
}

impl Filter {
    /// Is this connection, of the service port `name`, to be shown?
    pub fn takes(&self, connection: &Connection, name: &Name) -> bool {
        let service = format!("{}/{}", name.namespace, name.service);
        holds(self.service.as_ref(), |wanted| {
            *wanted == service || *wanted == name.text()
        }) && holds(self.client, |wanted| is_at(connection.client, wanted))
            && holds(self.backend, |wanted| is_at(connection.backend, wanted))
            && holds(self.port, |wanted| connection.frontend.port() == wanted)
            && holds(self.protocol, |wanted| {
                connection.protocol == Some(wanted.into())
            })
            && holds(self.state, |wanted| connection.state == wanted.into())
            && holds(self.family, |wanted| {
                connection.client.is_ipv4() == (wanted == IpFamily::Ipv4)
            })
    }
}

/// Holds where nothing is wanted.
fn holds<T>(wanted: Option<T>, is_so: impl FnOnce(T) -> bool) -> bool {
    wanted.is_none_or(is_so)
}

fn is_at(socket: SocketAddr, address: IpAddr) -> bool {
    socket.ip() == address.to_canonical()
}

impl From<Proto> for Protocol {
    fn from(protocol: Proto) -> Self {
        match protocol {
            Proto::Tcp => Self::Tcp,
            Proto::Udp => Self::Udp,
            Proto::Sctp => Self::Sctp,
        }
    }
}

impl From<State> for ConnectionState {
    fn from(state: State) -> Self {
        match state {
            State::New => Self::New,
            State::Established => Self::Established,
            State::Closing => Self::Closing,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use proxy_common::abi::ServiceId;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn takes(flags: &[&str]) -> bool {
        let connection = Connection {
            protocol: Some(Protocol::Tcp),
            client: "192.0.2.7:4711".parse().unwrap(),
            frontend: "10.96.0.9:80".parse().unwrap(),
            backend: "10.1.0.3:8080".parse().unwrap(),
            source: "192.0.2.7:4711".parse().unwrap(),
            service: ServiceId(3),
            state: ConnectionState::Established,
        };
        let name = Name {
            namespace: "shop".to_owned(),
            service: "web".to_owned(),
            port: "http".to_owned(),
        };
        let line = Line::try_parse_from([&["flows"], flags].concat()).unwrap();
        line.filter.takes(&connection, &name)
    }

    #[test]
    fn each_flag_takes_its_own_and_refuses_the_others() {
        assert!(takes(&[]));
        for (flag, own, other) in [
            ("--service", "shop/web", "shop/we"),
            ("--service", "shop/web:http", "shop/web:https"),
            ("--client", "192.0.2.7", "10.1.0.3"),
            ("--client", "::ffff:192.0.2.7", "::1"),
            ("--backend", "10.1.0.3", "192.0.2.7"),
            ("--port", "80", "8080"),
            ("--protocol", "TCP", "udp"),
            ("--state", "established", "new"),
            ("--family", "ipv4", "ipv6"),
        ] {
            assert!(takes(&[flag, own]), "{flag} {own}");
            assert!(!takes(&[flag, other]), "{flag} {other}");
        }
    }

    #[test]
    fn all_flags_have_to_hold() {
        assert!(takes(&["--service", "shop/web", "--port", "80"]));
        assert!(!takes(&["--service", "shop/web", "--port", "81"]));
    }
}
