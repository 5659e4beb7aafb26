//! `proxy-agent controller`: gives addresses to Services of type LoadBalancer.

use std::{collections::BTreeSet, time::Duration};

use anyhow::Result;

use crate::{
    balancer::{
        controller::{self, Config},
        demand::Classes,
    },
    log,
    source::kube::Options,
};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    api: Options,
    /// Give addresses to Services of these classes (`spec.loadBalancerClass`); without any, to those without a class
    #[arg(long, value_name = "CLASS,CLASS", value_delimiter = ',')]
    load_balancer_class: Vec<String>,
    /// Beside classes, give addresses to Services without a class, too
    #[arg(long, requires = "load_balancer_class")]
    without_class: bool,
    /// Where the IPAddressPools are; by itself, the namespace of the pod
    #[arg(long, value_name = "NAMESPACE")]
    pub pool_namespace: Option<String>,
    /// Where the Lease is by which one controller of several leads; by itself, the namespace of the pod
    #[arg(long, value_name = "NAMESPACE")]
    pub lease_namespace: Option<String>,
    /// Its name
    #[arg(long, value_name = "NAME", default_value = "portside-controller")]
    lease_name: String,
    /// How long a leader that says nothing is believed to be there
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    lease_seconds: u64,
    /// Name of this process, as the Lease calls it with some digits behind; in a cluster, the pod's
    #[arg(
        long,
        value_name = "NAME",
        env = "POD_NAME",
        default_value = "proxy-agent"
    )]
    pod_name: String,
    /// Tell by Events on a Service which address it has, or why it has none
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub events: bool,
    #[command(flatten)]
    pub log: log::Args,
}

pub async fn controller(args: Args) -> Result<()> {
    let named: BTreeSet<_> = args
        .load_balancer_class
        .into_iter()
        .filter(|class| !class.is_empty())
        .collect();
    let mut digits = [0; 4];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut digits)
        .map_err(|_| anyhow::anyhow!("the kernel gives no random numbers"))?;
    controller::run(Config {
        api: args.api,
        classes: Classes {
            without: args.without_class || named.is_empty(),
            named,
        },
        pool_namespace: args.pool_namespace,
        lease_namespace: args.lease_namespace,
        lease_name: args.lease_name,
        lease_length: Duration::from_secs(args.lease_seconds),
        identity: format!("{}-{:08x}", args.pod_name, u32::from_be_bytes(digits)),
        events: args.events,
    })
    .await
}
