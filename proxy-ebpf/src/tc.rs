//! TC: the packet as a socket buffer, with its offloads.

use crate::{
    frame::{Context, ETHERNET, Ethernet, Frame, LinkHeader},
    maps::{self, FamilyMaps},
    tables::Kernel,
};
use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_hdr_start_off::BPF_HDR_START_NET,
    },
    helpers::generated::{
        bpf_csum_update, bpf_jiffies64, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
        bpf_skb_adjust_room, bpf_skb_change_head, bpf_skb_change_tail, bpf_skb_load_bytes_relative,
        bpf_skb_pull_data, bpf_skb_vlan_pop,
    },
    macros::classifier,
    programs::TcContext,
};
use proxy_common::{
    abi::{DeviceFlags, Dir, FRAGMENT_INDEX, IfIndex, slow_index},
    addr::{Be16, Family, Macs, V4, V6},
    edge::{
        Link,
        hook::Hook,
        verdict::{Action, Verdict},
    },
    paths::{answer::AnswerIp, fast::fast, slow::slow},
    sums::internet::Diff,
    tables::Node,
    wire::{
        packet::{Bytes, Head, L4Change, MacsBefore, Packet},
        parse::ParseIp,
    },
};

/// What the fast path reads of most packets, without options, behind the link header: IPv4, TCP. A stack keeps headers in the linear
/// part, so that nothing is pulled; to pull a byte more than them would copy the headers of each segment that a local
/// socket sends, which shares them with its copy for retransmission.
pub const FAST_HEADERS: u32 = 20 + 20;
/// What the slow path may read behind the link header: IPv6 with an extension, ICMP and a quoted packet.
pub const SLOW_HEADERS: u32 = 40 + 8 + 8 + 40 + 20;

/// Segments in a list, behind a head that holds the headers alone: SCTP's (kernel include/linux/skbuff.h). To pull in a
/// byte of one would move where it begins, upon which `skb_segment` of 5.10 is a BUG.
const GSO_BY_FRAGS: u32 = 0xffff;

/// The frame is addressed to the device (include/uapi/linux/if_packet.h).
const PACKET_HOST: u32 = 0;

/// The number of its VLAN in a tag; 0 is a tag of a priority alone (IEEE 802.1Q).
const VLAN_ID: u32 = 0xfff;

/// Kernel 6.16 (ead7f9b8de65, in stable series since): the pseudo header is IPv6's, whose address change the
/// checksum cancels out in a complete sum over the packet.
const BPF_F_IPV6: u64 = 1 << 7;

impl Context for __sk_buff {
    #[inline(always)]
    fn bounds(&self) -> (*const u32, *const u32) {
        (&raw const self.data, &raw const self.data_end)
    }
}

/// No link header: the packet begins with its network header.
#[derive(Clone, Copy)]
struct Bare;

impl LinkHeader<__sk_buff> for Bare {
    const IS_ETHERNET: bool = false;

    #[inline(always)]
    fn len(self, _: *mut __sk_buff) -> usize {
        0
    }
}

/// An Ethernet header or none, as the device table tells: for programs that serve both.
///
/// It is kept in the buffer's control block, the last word that the kernel leaves to programs, and read from there for each use, with a
/// mask that tells the verifier its bounds: of a number that the compiler spills to the stack, 5.10 forgets them.
#[derive(Clone, Copy)]
pub struct Told(());

impl Told {
    /// By the device's flags.
    #[inline(always)]
    pub fn by(skb: *mut __sk_buff, flags: DeviceFlags) -> Self {
        let len = match flags.link() {
            Link::Ethernet => ETHERNET,
            Link::None => 0,
        };
        // SAFETY: the context is valid while the program runs.
        unsafe { core::ptr::write_volatile(&raw mut (*skb).cb[4], len as u32) };
        Self(())
    }
}

impl LinkHeader<__sk_buff> for Told {
    const IS_ETHERNET: bool = false;

    #[inline(always)]
    fn len(self, skb: *mut __sk_buff) -> usize {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const (*skb).cb[4]) as usize & ETHERNET }
    }
}

/// The packet, with so many bytes of it in the linear part, behind the link header.
#[inline(always)]
pub fn frame<L: LinkHeader<__sk_buff>>(
    skb: *mut __sk_buff,
    headers: u32,
    link: L,
) -> Frame<__sk_buff, L> {
    let headers = headers + link.len(skb) as u32;
    // SAFETY: the context is valid while the program runs.
    unsafe {
        let len = (*skb).len;
        let wanted = if len < headers { len } else { headers };
        if ((*skb).data as usize) + wanted as usize > (*skb).data_end as usize
            && (*skb).gso_size != GSO_BY_FRAGS
        {
            // Failing that, the packet reads as cut off and goes on untouched.
            bpf_skb_pull_data(skb, wanted);
        }
    }
    Frame(skb, link)
}

impl<L: LinkHeader<__sk_buff>> Frame<__sk_buff, L> {
    /// The EtherType that the kernel knows the packet by, as it stands in a header.
    #[inline(always)]
    fn protocol(&self) -> Be16 {
        // SAFETY: as in `at`.
        unsafe { Be16((*self.0).protocol as u16) }
    }

    /// Makes `room` bytes of room before the frame, and puts an Ethernet header at the new front.
    #[inline(always)]
    fn add_link(&mut self, macs: Macs, room: u32) -> Option<()> {
        let protocol = self.protocol();
        // SAFETY: the helper checks the length.
        if unsafe { bpf_skb_change_head(self.0, room, 0) } != 0 {
            return None;
        }
        let header = Frame(self.0, Bare).at(0, ETHERNET)?;
        // SAFETY: `at` checked the bounds; BPF takes stores of any alignment.
        unsafe {
            *header.cast::<Macs>() = macs;
            *header.add(12).cast::<Be16>() = protocol;
        }
        Some(())
    }

    #[inline(always)]
    fn l4_replace(&mut self, offset: usize, diff: u64, flags: u64) -> i64 {
        // SAFETY: the helper checks the offset; size 0 in the flags says that `to` is a difference.
        unsafe { bpf_l4_csum_replace(self.0, (self.link_len() + offset) as u32, 0, diff, flags) }
    }
}

impl<L: LinkHeader<__sk_buff>> Packet for Frame<__sk_buff, L> {
    #[inline(always)]
    fn ethertype(&self) -> Option<u16> {
        if self.link_len() == 0 {
            return Some(self.protocol().get());
        }
        self.link_ethertype()
    }

    #[inline(always)]
    fn macs(&self) -> Option<Macs> {
        self.link_macs()
    }

    #[inline(always)]
    fn framed_head(&mut self, len: usize) -> Option<(Option<MacsBefore<'_>>, Head<'_>)> {
        self.framed(len)
    }

    #[inline(always)]
    fn set_macs(&mut self, macs: Macs) -> Option<()> {
        if self.link_len() == 0 {
            return self.add_link(macs, ETHERNET as u32);
        }
        self.set_link_macs(macs)
    }

    #[inline(always)]
    fn net_len(&self) -> u32 {
        // SAFETY: as in `at`.
        unsafe { (*self.0).len - self.link_len() as u32 }
    }

    #[inline(always)]
    fn holds(&self, len: u32) -> bool {
        // SAFETY: as in `at`.
        unsafe { (*self.0).len >= self.link_len() as u32 + len }
    }

    #[inline(always)]
    fn is_to_host(&self) -> bool {
        // SAFETY: as in `at`.
        unsafe { (*self.0).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn fix_l4<F: Family>(&mut self, offset: usize, change: L4Change) -> Option<()> {
        let mangled = if change.zero_is_none {
            BPF_F_MARK_MANGLED_0 as u64
        } else {
            0
        };
        if !change.pseudo.is_none() {
            let diff = change.pseudo.to_wsum() as u64;
            let flags = mangled | BPF_F_PSEUDO_HDR as u64;
            let family = if F::IS_V6 { BPF_F_IPV6 } else { 0 };
            // A kernel without BPF_F_IPV6 refuses it.
            if self.l4_replace(offset, diff, flags | family) != 0
                && (!F::IS_V6 || self.l4_replace(offset, diff, flags) != 0)
            {
                return None;
            }
        }
        if !change.data.is_none()
            && self.l4_replace(offset, change.data.to_wsum() as u64, mangled) != 0
        {
            return None;
        }
        Some(())
    }

    #[inline(always)]
    fn note_change(&mut self, change: Diff) {
        // SAFETY: the context is valid while the program runs. A packet without such a sum is no error here.
        unsafe { bpf_csum_update(self.0, change.to_wsum()) };
    }

    #[inline(always)]
    fn gso_size(&self) -> u32 {
        // SAFETY: as in `at`.
        unsafe { (*self.0).gso_size }
    }

    #[inline(always)]
    fn checksum_is_partial(&mut self, offset: usize) -> bool {
        // A change outside the pseudo header does not touch a partial checksum: try one, and put it back.
        let Some(before) = self.load::<u16>(offset) else {
            return false;
        };
        self.l4_replace(offset, 1, 0);
        let Some(after) = self.load::<u16>(offset) else {
            return false;
        };
        self.store(offset, before);
        after == before
    }

    #[inline(always)]
    fn trim(&mut self, len: u32) -> Option<()> {
        // SAFETY: the helper checks the length.
        (unsafe { bpf_skb_change_tail(self.0, self.link_len() as u32 + len, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn grow_front(&mut self, len: u32) -> Option<()> {
        if self.link_len() != 0 {
            let macs = self.link_macs()?;
            return self.add_link(macs, len);
        }
        // Without a link header. To make room by `bpf_skb_change_head` would leave the kernel's place of the
        // network header, by which it cuts off what is before it, where a device takes no link header.
        // SAFETY: the helper checks the length.
        let grown = unsafe { bpf_skb_adjust_room(self.0, len as i32, BPF_ADJ_ROOM_MAC, 0) };
        (grown == 0).then_some(())
    }
}

/// The device at which the buffer is.
#[inline(always)]
pub fn here(skb: *mut __sk_buff) -> IfIndex {
    // SAFETY: the context is valid while the program runs.
    IfIndex(unsafe { (*skb).ifindex })
}

/// The tables, for a program at the buffer's device.
#[inline(always)]
fn tables(skb: *mut __sk_buff) -> Kernel {
    Kernel::new(skb.cast(), here(skb))
}

/// Is the packet another device's: does it carry a VLAN's tag, beside its bytes?
///
/// It comes by here on its way to or from the VLAN's own device, whose hook it is for. A tag of a priority alone makes no difference to the
/// stack on the way in, and is taken off.
#[inline(always)]
fn is_of_vlan(dir: Dir, skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid while the program runs.
    unsafe {
        if (*skb).vlan_present == 0 {
            return false;
        }
        let is_priority = (*skb).vlan_tci & VLAN_ID == 0;
        !(is_priority && dir as u8 == Dir::In as u8 && bpf_skb_vlan_pop(skb) == 0)
    }
}

/// Runs the fast path at a hook, and the slow one behind it.
#[inline(always)]
fn enter(hook: Hook, ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    if is_of_vlan(hook.edge.dir, skb) {
        return TC_ACT_UNSPEC;
    }
    enter_behind(hook, ctx, Ethernet)
}

/// The same at a device without a link header.
#[inline(always)]
fn enter_bare(hook: Hook, ctx: &TcContext) -> i32 {
    let skb = ctx.skb.skb;
    match (begins_with_network_header(skb), hook.edge.dir) {
        (Some(true), _) => enter_behind(hook, ctx, Bare),
        // Received again it is without what was around it.
        (Some(false), Dir::In) => redirect(here(skb), BPF_F_INGRESS as u64),
        // Too short to be told, it must not go round for ever.
        (None, _) | (Some(false), Dir::Out) => TC_ACT_UNSPEC,
    }
}

/// Does the packet of a device without a link header begin with its network header? `None`: it is shorter than one.
///
/// Tunnels of before 5.14 ("reset MAC header consistently across L3 virtual devices": `ipip`, `sit`, `gre`, `ip6tnl`) leave the headers that
/// were around it for a link header, and so does GRE without a remote end. A redirect to a device of their types cuts off what is
/// before the network header (net/core/filter.c, `__bpf_redirect_no_mac`).
#[inline(always)]
fn begins_with_network_header(skb: *mut __sk_buff) -> Option<bool> {
    let mut header = [0_u32; 4];
    let start = frame(skb, FAST_HEADERS, Bare).at(0, size_of::<[u32; 4]>())?;
    // SAFETY: the helper checks the packet's bounds, and writes as much as there is room for; `at` checked those of the start.
    unsafe {
        let found = bpf_skb_load_bytes_relative(
            skb.cast(),
            0,
            header.as_mut_ptr().cast(),
            size_of::<[u32; 4]>() as u32,
            BPF_HDR_START_NET,
        );
        if found != 0 {
            return None;
        }
        let start = start.cast::<u32>();
        Some(
            header[0] == *start
                && header[1] == *start.add(1)
                && header[2] == *start.add(2)
                && header[3] == *start.add(3),
        )
    }
}

#[inline(always)]
fn enter_behind<L: LinkHeader<__sk_buff>>(hook: Hook, ctx: &TcContext, link: L) -> i32 {
    let skb = ctx.skb.skb;
    let mut packet = frame(skb, FAST_HEADERS, link);
    let verdict = fast(hook, &mut packet, &tables(skb));
    if verdict.action == Action::Slow {
        let is_v6 = packet.ethertype() == Some(V6::ETHERTYPE);
        // SAFETY: the array holds programs of this type only. A call that fails comes back: the agent has not
        // filled the array, and the packet goes on as it is.
        unsafe { maps::SLOW_TC.tail_call(ctx, slow_index(hook.edge.dir, is_v6)) };
    }
    act(verdict, &mut packet)
}

/// Runs the slow path of a family and direction, for whichever hook the packet is at.
#[inline(always)]
fn enter_slow<F: ParseIp + AnswerIp + FamilyMaps>(dir: Dir, ctx: &TcContext) -> i32 {
    let Some(work) = F::work() else {
        return TC_ACT_UNSPEC;
    };
    let skb = ctx.skb.skb;
    let tables = tables(skb);
    let Some(device) = tables.device(tables.ifindex()) else {
        return TC_ACT_UNSPEC;
    };
    let hook = Hook::of_device(device.flags, dir);
    let mut packet = frame(skb, SLOW_HEADERS, Told::by(skb, device.flags));
    let verdict = slow::<F, _, _>(hook, &mut packet, &tables, work);
    act(verdict, &mut packet)
}

/// TC's action for a verdict.
#[inline(always)]
fn act<L: LinkHeader<__sk_buff>>(verdict: Verdict, packet: &mut Frame<__sk_buff, L>) -> i32 {
    let skb = packet.0;
    match verdict.action {
        // Not `TC_ACT_OK`, which would end the chain before other owners' programs.
        Action::Pass | Action::Translated | Action::Slow => TC_ACT_UNSPEC,
        Action::Drop => TC_ACT_SHOT,
        // Without a link header it is the kernel that sends, as in `send::is_sent_by_kernel`.
        Action::Transmit if packet.link_len() == 0 => neighbour(packet, here(skb)),
        Action::Transmit => redirect(here(skb), 0),
        Action::Redirect => redirect(verdict.ifindex, 0),
        Action::Receive => redirect(verdict.ifindex, BPF_F_INGRESS as u64),
        // SAFETY: as for the slow programs. A call that fails comes back, and the fragment goes on.
        Action::Fragment => unsafe {
            maps::SLOW_TC.tail_call(&TcContext::new(skb), FRAGMENT_INDEX);
            TC_ACT_UNSPEC
        },
        Action::Neighbour => neighbour(packet, verdict.ifindex),
    }
}

/// Out by a device; the kernel finds the next hop. It takes an Ethernet header off first, and drops what has none
/// (net/core/filter.c, `__bpf_redirect_neigh`).
#[inline(always)]
fn neighbour<L: LinkHeader<__sk_buff>>(packet: &mut Frame<__sk_buff, L>, ifindex: IfIndex) -> i32 {
    if packet.link_len() == 0 && packet.add_link(Macs::NONE, ETHERNET as u32).is_none() {
        return TC_ACT_SHOT;
    }
    // SAFETY: the helper checks the device; no next hop is given.
    unsafe { bpf_redirect_neigh(ifindex.0, core::ptr::null_mut(), 0, 0) as i32 }
}

#[inline(always)]
pub fn redirect(ifindex: IfIndex, flags: u64) -> i32 {
    // SAFETY: the helper checks the device and the flags.
    unsafe { bpf_redirect(ifindex.0, flags) as i32 }
}

/// "Go on": the next program of the chain, or the stack.
pub const TC_ACT_UNSPEC: i32 = -1;

/// The programs that are attached.
macro_rules! hooks {
    ($($hook:ident: $fast:ident by $enter:ident,)+) => {$(
        #[classifier]
        pub fn $fast(ctx: TcContext) -> i32 {
            $enter(Hook::$hook, &ctx)
        }
    )+};
}
hooks! {
    TC_UPLINK_IN: tc_uplink_in by enter,
    TC_UPLINK_OUT: tc_uplink_out by enter,
    TC_WORKLOAD_IN: tc_workload_in by enter,
    TC_WORKLOAD_OUT: tc_workload_out by enter,
    TC_LOOPBACK_OUT: tc_loopback_out by enter,
    TC_UPLINK_IN: tc_uplink_in_l3 by enter_bare,
    TC_UPLINK_OUT: tc_uplink_out_l3 by enter_bare,
    TC_WORKLOAD_IN: tc_workload_in_l3 by enter_bare,
    TC_WORKLOAD_OUT: tc_workload_out_l3 by enter_bare,
}

/// Those that they call.
macro_rules! slow_paths {
    ($($dir:ident $family:ident: $slow:ident,)+) => {$(
        #[classifier]
        #[inline(always)]
        pub fn $slow(ctx: TcContext) -> i32 {
            enter_slow::<$family>(Dir::$dir, &ctx)
        }
    )+};
}
slow_paths! {
    In V4: tc_in_slow4,
    In V6: tc_in_slow6,
    Out V4: tc_out_slow4,
    Out V6: tc_out_slow6,
}

/// Never attached. The agent runs it twice to learn the kernel's HZ: it returns the low 32 bits of jiffies.
#[classifier]
pub fn clock(_: TcContext) -> i32 {
    // SAFETY: no arguments.
    unsafe { bpf_jiffies64() as i32 }
}
