//! What each reason means, and what to do about it: for the commands and for docs/reasons.md.

use super::Reason;

/// A reason in words. Whole sentences, in Markdown's plain part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Words {
    /// What became of the packet, and when.
    pub meaning: &'static str,
    /// What somebody can do who finds it counted.
    pub advice: &'static str,
}

impl Reason {
    pub const fn words(self) -> Words {
        let (meaning, advice) = match self {
            Self::NotService => (
                "The packet belongs to no service. It is most of a node's traffic and is not counted.",
                "Nothing: the stack has it.",
            ),
            Self::BadHeader => (
                "The IP or transport header is malformed or cut off. The packet goes to the stack as it came.",
                "Nothing, unless it rises: somebody sends damaged packets, or a driver damages them. Capture at the device of the hook.",
            ),
            Self::Extension => (
                "The packet has an IPv6 extension header that is not understood, or too many of them. It goes to the stack as it came.",
                "Nothing, unless a client of a service sends such packets: it is not served then.",
            ),
            Self::FragmentUnknown => (
                "A later fragment came whose first one has not been seen, so that its ports are not known. It goes to the stack.",
                "Nothing, unless datagrams of a service get lost: let its peers send datagrams that fit the path MTU.",
            ),
            Self::MidFlow => (
                "A segment came from the middle of a connection that is not known here. It goes to the stack, which may know it.",
                "Nothing after a switch from kube-proxy, whose connections go on so. Otherwise connections were forgotten: raise --max-flows.",
            ),
            Self::LeftToTc => (
                "XDP leaves the packet to TC: a fragment, an ICMP error, or an answer to give. TC serves it.",
                "Nothing.",
            ),
            Self::OtherDevice => (
                "XDP leaves the packet to TC, because it goes out by another device or its next hop is not resolved. TC serves it.",
                "Nothing.",
            ),
            Self::NoRoute => (
                "The kernel has no route to the backend, or back to the client. The packet goes to the stack.",
                "Ask `ip route get BACKEND` and `ip route get CLIENT` on this node; the CNI makes these routes.",
            ),
            Self::NoDevice => (
                "The egress device has no usable source address in the device table. The packet goes to the stack.",
                "Give the device an address, or look at `proxy-agent doctor` for what the node's source addresses are.",
            ),
            Self::Refused => (
                "The service has no endpoint that may be used. The client gets a reset or a \"port unreachable\".",
                "Look at its EndpointSlices: are its pods ready, and does its selector match them? `proxy-agent describe service` shows what this node knows.",
            ),
            Self::NoLocalEndpoint => (
                "The traffic policy of the service is Local, it has endpoints, and none of them is on this node.",
                "Let the load balancer use its health-check node port, run an endpoint on this node, or set the policy to Cluster.",
            ),
            Self::Held => (
                "The service has no endpoint, and its annotation portside.io/scale-from-zero lets first packets wait for one. The client gets no answer and sends the packet again.",
                "Nothing while an autoscaler starts the first pod. If it lasts, find out why none becomes ready; after portside.io/hold-timeout clients are refused.",
            ),
            Self::SourceRange => (
                "The client is outside of the loadBalancerSourceRanges of the service.",
                "Nothing if it is to be kept out. Otherwise add its range; behind a balancer that translates sources, the balancer's.",
            ),
            Self::TooBig => (
                "The packet is larger than the path to the backend takes. The client gets an ICMP error with the MTU.",
                "Nothing if clients heed it. Otherwise something drops ICMP errors between here and the client, or the MTU of pods is too large.",
            ),
            Self::HopLimit => (
                "The packet's hop limit (TTL) ended here. The client gets an ICMP error.",
                "Nothing for traceroute. Otherwise look for a routing loop between the nodes.",
            ),
            Self::NoPort => (
                "There was no free port for the replies of a new connection: all that were tried belong to others.",
                "Raise --max-flows, or spread the clients over more addresses or backends.",
            ),
            Self::TableFull => (
                "There is no room for another connection: all that are tracked are open.",
                "Raise --max-flows; `proxy-agent maps` shows how full the tables are, and `proxy-agent flows` whose they are.",
            ),
            Self::EditFailed => (
                "The kernel refused to change the packet as decided, or it is a fragment of an SCTP packet whose ports would change.",
                "Without SCTP this should not happen: please report it with the kernel's version and the device's driver.",
            ),
            Self::OtherHost => (
                "The frame is addressed to another station than this device. The stack drops it.",
                "Nothing: a switch floods, or a port is mirrored.",
            ),
            Self::Martian => (
                "The source is no single host's, or this node's own, so that nobody there could be answered. The packet goes to the stack.",
                "Find who sends it: it is forged, or an address is configured twice.",
            ),
            Self::SourceCheck => (
                "The device does not take packets from this source, by its rp_filter or by --source-check.",
                "Nothing if a pod forges its source. Otherwise routes are asymmetric: set rp_filter of the device to 2.",
            ),
            Self::SourceShare => (
                "The source has its share of new connections that wait for an answer.",
                "Find out who floods: `proxy-agent flows --state new` shows them. A source that is many clients behind one address needs a larger --max-flows.",
            ),
            Self::Stranger => (
                "A segment of no known connection came to a service address that is not the node's own. It is answered by a reset.",
                "Nothing: its client opens a new connection. If it lasts, connections are forgotten too early: raise --max-flows.",
            ),
            Self::NotConfigured => (
                "The agent has not filled the maps yet. The packet goes to the stack.",
                "Wait for the agent's first sync; `proxy-agent status` says what it waits for.",
            ),
            Self::Translated => (
                "The slow path has translated the packet: the first ones of a connection, those that end it, and what has no plain headers. The fast path counts by backend alone.",
                "Nothing: this is the work.",
            ),
        };
        Words { meaning, advice }
    }

    /// The reason of this name.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.text() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_whole_sentences_and_is_found_by_its_name() {
        for &reason in Reason::ALL {
            let Words { meaning, advice } = reason.words();
            for text in [meaning, advice] {
                assert!(
                    text.ends_with('.') && !text.contains('|'),
                    "{reason:?}: {text}"
                );
            }
            assert_eq!(Reason::named(reason.text()), Some(reason));
        }
        assert_eq!(Reason::named("no-such-reason"), None);
    }
}
