//! Files and objects that are hostile or odd.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;
use testbed::address::Family;
use testbed::agent::ask;
use testbed::answer::Answer;
use testbed::ask::await_everywhere;
use testbed::cluster::Cluster;
use testbed::patience::eventually;

use crate::world::{World, all_probes_are_well, await_said, said};

pub fn rows() -> Vec<Trial> {
    let world = World::new(1);
    vec![
        world.row(
            "files that block, have no end or are huge cost themselves",
            files,
        ),
        world.row(
            "SIGHUP has all manifests read anew and ends nothing",
            hangup,
        ),
        world.row(
            "a document that cannot be read leaves the others of its file",
            documents,
        ),
        world.row("objects that nobody reads are named", not_read),
        world.row(
            "a service without any address is shown as what it is",
            addressless,
        ),
        world.row("names forge no line of the log and no row", forged),
        world.row(
            "an address in disguise is no endpoint and no service's",
            disguised,
        ),
    ]
}

/// A file that is gone when the row is over.
struct Planted(PathBuf);

impl Planted {
    fn at(cluster: &Cluster, name: &str) -> Self {
        Self(cluster.manifests.dir().join(name))
    }

    fn text(cluster: &Cluster, name: &str, text: &str) -> Result<Self> {
        let planted = Self::at(cluster, name);
        fs::write(&planted.0, text).context("planting a file")?;
        Ok(planted)
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A service that is published now is served.
fn goes_on(cluster: &Cluster, name: &str) -> Result<()> {
    let vip = cluster.publish(name, &[cluster.pod("p1")])?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))?;
    all_probes_are_well(cluster.node(1))
}

fn files(cluster: &Cluster) -> Result<()> {
    let at = |name: &str| Planted::at(cluster, name);
    let links = [
        ("kmsg.yaml", "/proc/kmsg"),
        ("zero.yaml", "/dev/zero"),
        ("console.yaml", "/dev/console"),
        ("trace.yaml", "/sys/kernel/uevent_seqnum"),
    ];
    let mut planted = Vec::new();
    for (name, target) in links {
        let link = at(name);
        symlink(target, &link.0)?;
        planted.push(link);
    }
    let fifo = at("fifo.yaml");
    mkfifo(&fifo.0, Mode::S_IRWXU)?;
    let huge = at("huge.yaml");
    File::create(&huge.0)?.set_len(1 << 30)?;
    let directory = cluster.manifests.dir().join("directory.yaml");
    fs::create_dir_all(&directory)?;

    goes_on(cluster, "beside-files")?;
    for name in ["kmsg.yaml", "zero.yaml", "fifo.yaml", "huge.yaml"] {
        await_said(cluster, &["ERROR", name])?;
    }
    let peak = peak(cluster)?;
    ensure!(peak < 400 << 10, "a peak of {peak} KiB");
    fs::remove_dir(&directory)?;
    Ok(())
}

/// The most memory that the agent ever had, in KiB.
fn peak(cluster: &Cluster) -> Result<u64> {
    let pid = cluster.agents()[0].pid();
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    Ok(number.context("no VmHWM")?.parse()?)
}

fn hangup(cluster: &Cluster) -> Result<()> {
    let _text = Planted::text(cluster, "text.yaml", "just text\n")?;
    let told = || {
        said(cluster)
            .iter()
            .filter(|line| line.contains("text.yaml"))
            .count()
    };
    eventually("the file is told", || {
        ensure!(told() == 1, "told {} times", told());
        Ok(())
    })?;
    let pid = cluster.agents()[0].pid();
    kill(pid, Signal::SIGHUP)?;
    await_said(cluster, &["SIGHUP"])?;
    eventually("the file is told again", || {
        ensure!(told() == 2, "told {} times", told());
        Ok(())
    })?;
    goes_on(cluster, "after-hangup")
}

fn documents(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("between");
    let endpoints = vip.endpoints(&[cluster.pod("p1")]);
    let service = vip.service().object();
    let slices =
        Family::BOTH.map(|family| endpoints.slice(&format!("{}-{family}", vip.name), family));
    let [v4, v6] = &slices;
    // JSON is YAML. Each odd document has its like among those of other people.
    let text = format!(
        "\u{feff}# a byte order mark\n{service}\n---\nkind: Service\nkind: Service\n---\n{v4}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata:\n\tname: tabs\n---\n{v6}\n---\napiVersion: v1\nkind: List\nitems: null\n"
    );
    let _file = Planted::text(cluster, "between.yaml", &text)?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))?;
    await_said(cluster, &["between.yaml#2: ", "duplicate"])?;
    await_said(cluster, &["between.yaml#4: ", "line"])?;
    let about_list = |line: &String| line.contains("between.yaml#6");
    ensure!(
        !said(cluster).iter().any(about_list),
        "an empty list is no error"
    );
    // What the broken documents may have held stays; what the others say is taken.
    let changed = text.replace("kind: Service\nkind: Service", "kind: [");
    fs::write(cluster.manifests.dir().join("between.yaml"), changed)?;
    await_said(
        cluster,
        &["between.yaml#2: ", "what it said before stays in force"],
    )?;
    await_everywhere(cluster, &vip, |answer| answer.who() == Some("p1:8080"))
}

fn not_read(cluster: &Cluster) -> Result<()> {
    let old = "apiVersion: v1\nkind: Endpoints\nmetadata: {name: legacy}\n---\n\
               apiVersion: discovery.k8s.io/v1beta1\nkind: EndpointSlice\nmetadata: {name: legacy-1}\n";
    let _file = Planted::text(cluster, "legacy.yaml", old)?;
    await_said(
        cluster,
        &[
            "WARN",
            "legacy.yaml#1 Endpoints default/legacy",
            "discovery.k8s.io/v1",
        ],
    )?;
    await_said(
        cluster,
        &[
            "WARN",
            "legacy.yaml#2 EndpointSlice default/legacy-1",
            "v1beta1 is not read",
        ],
    )
}

fn addressless(cluster: &Cluster) -> Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "waiting"},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    let _file = Planted::text(cluster, "waiting.json", &service.to_string())?;
    eventually("the row of the service", || {
        let table = ask(cluster.node(1), &["get", "services"])?;
        let row = table
            .lines()
            .find(|line| line.starts_with("waiting "))
            .unwrap_or_default();
        let cells: Vec<_> = row.split_whitespace().take(5).collect();
        let wanted = [
            "waiting",
            "LoadBalancer",
            "<none>",
            "<none>",
            "80/TCP,53/UDP",
        ];
        ensure!(cells == wanted, "{table}");
        Ok(())
    })
}

fn forged(cluster: &Cluster) -> Result<()> {
    let name = "a\n1970-01-01T00:00:00Z ERROR forged\u{1b}[2J";
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.250.1", "ports": [{"port": 80}]},
    });
    let _file = Planted::text(cluster, "forged.json", &service.to_string())?;
    await_said(
        cluster,
        &["forged.json#1", "metadata.name", "is not a DNS label"],
    )?;
    for line in said(cluster) {
        ensure!(
            !line.starts_with("1970") && !line.contains('\u{1b}'),
            "{line:?}"
        );
    }
    let table = ask(cluster.node(1), &["get", "services", "-A"])?;
    ensure!(!table.contains("forged"), "{table}");
    Ok(())
}

fn disguised(cluster: &Cluster) -> Result<()> {
    let vip = cluster.vip("disguised");
    let endpoints = vip.endpoints(&[cluster.pod("p1")]);
    // The node's segment is a /24 (or wider) on eth0: its last address is the kernel's to tell.
    let broadcast = broadcast(cluster)?;
    let bad: [&[&str]; 2] = [
        &["127.0.0.1", "168.63.129.16", "240.0.0.1", &broadcast],
        &[
            "::127.0.0.1",
            "::a9fe:a9fe",
            "64:ff9b::7f00:1",
            "::ffff:0:127.0.0.1",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::1",
            "2001:0:808:808::5601:5601",
            "fd00::5efe:7f00:1",
            "fd00:ec2::254",
        ],
    ];
    cluster.manifests.apply_endpoints(&endpoints)?;
    let mut files = Vec::new();
    // Each in a slice of its own: of one object the log names only some.
    for (family, bad) in Family::BOTH.into_iter().zip(bad) {
        for (number, addr) in bad.iter().enumerate() {
            let name = format!("{}-{family}-{number}", vip.name);
            let mut slice = endpoints.slice(&name, family);
            slice["endpoints"] = json!([{"addresses": [addr], "nodeName": cluster.node(1).name()}]);
            let file = format!("{name}.json");
            files.push(Planted::text(cluster, &file, &slice.to_string())?);
        }
    }
    let service = vip
        .service()
        .with("externalIPs", json!(["203.0.113.5", "100.100.100.200"]));
    cluster.manifests.apply(&service)?;
    await_everywhere(cluster, &vip, |answer: &Answer| {
        answer.who() == Some("p1:8080")
    })?;
    let backends = eventually("the names of the backends", || {
        let all = ask(cluster.node(1), &["get", "backends", "-A"])?;
        ensure!(all.contains(&vip.name), "{all}");
        Ok(all)
    })?;
    let of_service = backends
        .lines()
        .filter(|line| line.contains(&vip.name))
        .count();
    ensure!(
        of_service == 4,
        "p1 in two families and protocols, and nobody else: {backends}"
    );
    for addr in bad.concat() {
        let canonical = addr.parse::<std::net::IpAddr>()?.to_string();
        if canonical != broadcast {
            await_said(
                cluster,
                &[
                    "EndpointSlice",
                    &format!("endpoint {canonical} is not used"),
                ],
            )?;
        }
    }
    await_said(cluster, &[&vip.name, "is not served at 100.100.100.200"])?;
    let services = ask(cluster.node(1), &["get", "services", "-A"])?;
    ensure!(!services.contains("100.100.100.200"), "{services}");
    cluster.manifests.delete(&vip.name)
}

/// The broadcast address that the kernel has for the node's uplink.
fn broadcast(cluster: &Cluster) -> Result<String> {
    let mut command = cluster.node(1).netns().command("ip")?;
    command.args(["-4", "route", "show", "table", "local", "dev", "eth0"]);
    let output = command.output().context("ip route")?;
    let text = String::from_utf8(output.stdout)?;
    let words = text
        .lines()
        .filter_map(|line| line.strip_prefix("broadcast "));
    let last = words
        .filter_map(|rest| rest.split_whitespace().next())
        .next_back();
    Ok(last
        .with_context(|| format!("no broadcast route: {text}"))?
        .to_owned())
}
