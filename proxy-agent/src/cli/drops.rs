//! `proxy-agent drops`: why packets were dropped or left alone.

use anyhow::Result;
use proxy_common::{hook::Hook, reason::Reason};

use super::{Place, table::Table};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Show reasons that were never met, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

pub fn drops(args: &Args) -> Result<()> {
    let maps = args.place.pins().open_maps()?;
    let mut table = Table::new(&["REASON", "HOOK", "PACKETS"]);
    for &reason in Reason::ALL {
        for hook in &Hook::ALL {
            let count = maps.reason_count(hook, reason)?;
            if count > 0 || args.all {
                table.row(vec![
                    reason.text().to_owned(),
                    hook.name.to_owned(),
                    count.to_string(),
                ]);
            }
        }
    }
    Ok(table.print()?)
}
