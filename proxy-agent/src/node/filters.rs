//! Classic TC filters at a device: those of programs that attach through netlink, as before TC links (6.6).

use anyhow::{Context, Result};
use futures_util::TryStreamExt;
use proxy_common::abi::IfIndex;
use rtnetlink::{
    new_connection,
    packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption},
};

/// What the filters at both directions of a device are called: a BPF filter by the name that it was given, others by
/// their kind. Empty where the device has no place for filters (clsact or ingress).
///
/// # Errors
/// Where the kernel cannot be asked, or says no for another reason.
pub async fn filter_names(ifindex: IfIndex) -> Result<Vec<String>> {
    let (connection, handle, _) = new_connection().context("opening a netlink socket")?;
    let connection = tokio::spawn(connection);
    let ifindex = i32::try_from(ifindex.0).context("a device index")?;
    let mut names = Vec::new();
    let ask = || handle.traffic_filter(ifindex).get();
    for asked in [ask().ingress(), ask().egress()] {
        let filters: Vec<_> = asked
            .execute()
            .try_collect()
            .await
            .context("listing the TC filters")?;
        names.extend(filters.iter().filter_map(name));
    }
    connection.abort();
    Ok(names)
}

/// A dump has a message for each filter, and one before them for each place (priority), without options.
fn name(message: &TcMessage) -> Option<String> {
    let mut kind = None;
    let mut options = None;
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(text) => kind = Some(text),
            TcAttribute::Options(all) => options = Some(all),
            _ => {}
        }
    }
    let given = options?.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) if !name.is_empty() => Some(name.clone()),
        _ => None,
    });
    given.or_else(|| Some(format!("a filter of kind {}", kind?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_called_by_its_name_or_its_kind() {
        let message = |attributes| {
            let mut message = TcMessage::default();
            message.attributes = attributes;
            message
        };
        let kind = |kind: &str| TcAttribute::Kind(kind.to_owned());
        let options = |all| TcAttribute::Options(all);
        let bpf = TcOption::Bpf(TcFilterBpfOption::ProgName("cil_from".into()));
        assert_eq!(
            name(&message(vec![kind("bpf"), options(vec![bpf])])).as_deref(),
            Some("cil_from")
        );
        assert_eq!(
            name(&message(vec![kind("flower"), options(Vec::new())])).as_deref(),
            Some("a filter of kind flower")
        );
        assert_eq!(name(&message(vec![kind("bpf")])), None);
    }
}
