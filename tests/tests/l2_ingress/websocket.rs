//! WebSockets that stay open while agents end, are killed and are replaced.

use std::fs;
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use proxy_agent::datapath::PinDir;
use testbed::older;
use testbed::patience::patient;
use testbed::pinned::directory_of_version;
use tungstenite::{Message, WebSocket};

use crate::controller::SHOP;
use crate::site::{Place, Site};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// For flows in an older version's table.
const ROOM: u32 = 65_536;

pub fn rows(place: &Place) -> Vec<Trial> {
    vec![place.row(
        "WebSockets live over the agent's restart, death and upgrade",
        live,
    )]
}

struct Open {
    socket: WebSocket<TcpStream>,
    words: String,
    pod: Option<String>,
}

impl Open {
    /// Says something, and hears it from the pod that it is with.
    fn talk(&mut self, text: &str) -> Result<()> {
        self.socket.send(text.into())?;
        let Message::Text(answer) = self.socket.read()? else {
            bail!("not a text");
        };
        let (pod, echo) = answer.split_once(' ').context("who answered")?;
        ensure!(echo == text, "another answer: {answer}");
        let first = self.pod.get_or_insert_with(|| pod.to_owned());
        ensure!(first == pod, "it was with {first} and is with {pod}");
        Ok(())
    }
}

fn live(site: &Site) -> Result<()> {
    let mut open = Vec::new();
    for (way, family, words) in site.asked() {
        let to = way.http(family);
        let stream = site.client().netns.run(|| TcpStream::connect(to));
        let stream = stream.with_context(|| words.clone())?;
        stream.set_read_timeout(Some(patient(LIMIT)))?;
        let request = format!("ws://{SHOP}/websocket");
        let (socket, _) = tungstenite::client(request, stream)
            .map_err(|error| anyhow::anyhow!("{words}: {error}"))?;
        open.push(Open {
            socket,
            words,
            pod: None,
        });
    }
    let mut talk = |when: &str| -> Result<()> {
        for one in &mut open {
            let talked = one.talk(when);
            talked.with_context(|| format!("{} {when}", one.words))?;
        }
        Ok(())
    };
    talk("before")?;
    site.cluster.stop_agents();
    talk("while no agent runs")?;
    site.cluster.start_agents()?;
    talk("after a restart")?;
    site.cluster.kill_agents();
    site.cluster.start_agents()?;
    talk("after the agent was killed")?;
    site.cluster.stop_agents();
    talk("before another version takes over")?;
    for node in &site.cluster.topology.nodes {
        let own = PinDir::new(&node.bpffs);
        older::make(&own.open_maps()?, own.root(), ROOM)?;
        fs::rename(own.root(), directory_of_version(node, older::VERSION))
            .context("giving the pins an older version's name")?;
    }
    site.cluster.start_agents()?;
    talk("after another version took over")
}
