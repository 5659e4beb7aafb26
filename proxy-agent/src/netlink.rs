//! Questions to the kernel by netlink that `rtnetlink` has no words for.
//!
//! In: the number of a message, and its body. Out: the body of what the kernel answers, or its refusal. How a message and an attribute
//! lie in memory is `netlink-packet-core`'s to know; the numbers of a family stand with whoever asks it.

use std::io;

use rtnetlink::{
    packet_core::{
        DefaultNla, Emitable, NLA_F_NESTED, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer,
        NetlinkHeader, NlasIterator,
    },
    sys::{self, SocketAddr},
};

pub use rtnetlink::{
    packet_core::{NLM_F_ACK, NLM_F_DUMP, NLMSG_DONE},
    sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE},
};

/// Size of a message's header.
const HEADER: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("asking by netlink")]
    Failed(#[source] io::Error),
    /// The kernel's own word.
    #[error(transparent)]
    Refused(io::Error),
    #[error("the kernel's answer is cut short")]
    Short,
}

/// One message that answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub body: &'a [u8],
}

/// A conversation with the kernel, in the network namespace of the thread that began it. One question is open at a time.
pub struct Conversation(sys::Socket);

impl Conversation {
    /// # Errors
    /// Where the kernel has no such protocol, or gives no socket.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = sys::Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Sends a request. `flags` are those besides `NLM_F_REQUEST`.
    ///
    /// # Errors
    /// Where it cannot be sent.
    pub fn send(&self, kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
        let message = message(kind, NLM_F_REQUEST | flags, body);
        self.0.send(&message, 0).map(drop)
    }

    /// What comes next: one message or several, for [`messages`].
    ///
    /// # Errors
    /// Where nothing can be received.
    pub fn receive(&self) -> io::Result<Vec<u8>> {
        self.0.recv_from_full().map(|(bytes, _)| bytes)
    }

    /// Asks one question, and gives the kind and the body of the first message that answers it. An acknowledgement has no body.
    ///
    /// # Errors
    /// Where the kernel cannot be asked, or says no.
    pub fn ask(&self, kind: u16, flags: u16, body: &[u8]) -> Result<(u16, Vec<u8>), Error> {
        self.send(kind, flags, body).map_err(Error::Failed)?;
        let bytes = self.receive().map_err(Error::Failed)?;
        let message = messages(&bytes).next().ok_or(Error::Short)?;
        message.accepted()?;
        let body = match message.kind {
            NLMSG_ERROR => Vec::new(),
            _ => message.body.to_vec(),
        };
        Ok((message.kind, body))
    }
}

impl Message<'_> {
    /// The kernel's refusal, if it is one. An acknowledgement is none.
    ///
    /// # Errors
    /// That refusal.
    pub fn accepted(&self) -> Result<(), Error> {
        if self.kind != NLMSG_ERROR {
            return Ok(());
        }
        match i32::from_ne_bytes(*self.body.first_chunk().ok_or(Error::Short)?) {
            0 => Ok(()),
            code => Err(Error::Refused(io::Error::from_raw_os_error(-code))),
        }
    }
}

/// One message. Sequence and port stay 0: the kernel fills in the port.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.length = (HEADER + body.len()) as u32;
    header.message_type = kind;
    header.flags = flags;
    let mut bytes = vec![0; HEADER];
    header.emit(&mut bytes);
    bytes.extend(body);
    bytes
}

/// The messages that were received together.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let (kind, body) = (message.message_type(), message.payload());
        let length = (message.length() as usize).next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

/// One attribute, filled up to four bytes.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    bytes
}

/// An attribute that holds others.
pub fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
    attribute(kind | NLA_F_NESTED, &parts.concat())
}

/// The value of the first attribute of this kind.
pub fn find(attributes: &[u8], kind: u16) -> Option<&[u8]> {
    let mut all = NlasIterator::new(attributes).map_while(Result::ok);
    let found = all.find(|attribute| attribute.kind() == kind)?;
    let length = usize::from(found.length());
    found.into_inner().get(4..length)
}

/// The same for a number of 16 bits.
pub fn find_u16(attributes: &[u8], kind: u16) -> Option<u16> {
    Some(u16::from_ne_bytes(find(attributes, kind)?.try_into().ok()?))
}

/// Families of generic netlink, each of which is asked by a number that the kernel has given it.
pub mod generic {
    use std::ffi::CString;

    use super::{Conversation, Error, NETLINK_GENERIC, attribute, find_u16};

    /// `nlctrl` (include/uapi/linux/genetlink.h): its own number, the command that looks a family up, its attributes.
    const GENL_ID_CTRL: u16 = 16;
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    /// `struct genlmsghdr`.
    const HEADER: usize = 4;

    /// A family that the kernel has.
    pub struct Family {
        number: u16,
        conversation: Conversation,
    }

    impl Family {
        /// # Errors
        /// Where the kernel has no family of that name.
        pub fn open(name: &str) -> Result<Self, Error> {
            let conversation = Conversation::open(NETLINK_GENERIC).map_err(Error::Failed)?;
            let name = CString::new(name).map_err(|error| Error::Failed(error.into()))?;
            let asked = attribute(CTRL_ATTR_FAMILY_NAME, name.as_bytes_with_nul());
            let answer = ask(&conversation, GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, &asked)?;
            let number = find_u16(&answer, CTRL_ATTR_FAMILY_ID).ok_or(Error::Short)?;
            Ok(Self {
                number,
                conversation,
            })
        }

        /// Asks one question; gives the attributes of the answer.
        ///
        /// # Errors
        /// Where the kernel cannot be asked, or says no.
        pub fn ask(&self, command: u8, flags: u16, attributes: &[u8]) -> Result<Vec<u8>, Error> {
            let Self {
                number,
                conversation,
            } = self;
            ask(conversation, *number, flags, command, attributes)
        }
    }

    fn ask(
        conversation: &Conversation,
        family: u16,
        flags: u16,
        command: u8,
        attributes: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let body = [&[command, 1, 0, 0], attributes].concat();
        let (_, answer) = conversation.ask(family, flags, &body)?;
        Ok(answer.get(HEADER..).unwrap_or_default().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_found_behind_others_and_inside_of_them() {
        let inner = [attribute(2, b"abc"), attribute(3, &9_u16.to_ne_bytes())];
        let all = [attribute(1, &[7]), nested(4, &inner)].concat();
        assert_eq!(find(&all, 1), Some(&[7][..]));
        let held = find(&all, 4).unwrap();
        assert_eq!(find(held, 2), Some(&b"abc"[..]));
        assert_eq!(find_u16(held, 3), Some(9));
        assert_eq!(find_u16(held, 2), None, "another length");
        assert_eq!(find(&all, 2), None);
        for length in 0..all.len() {
            assert_eq!(find(&all[..length], 4), None, "cut at {length}");
        }
    }

    #[test]
    fn messages_are_told_apart_and_refusals_from_acknowledgements() {
        let message = |kind, body: &[u8]| {
            let mut bytes = super::message(kind, 0, body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let bytes = [message(20, b"abcde"), message(21, b"fg")].concat();
        let found: Vec<_> = messages(&bytes).map(|one| (one.kind, one.body)).collect();
        assert_eq!(found, [(20, &b"abcde"[..]), (21, &b"fg"[..])]);
        assert_eq!(messages(&bytes[..10]).count(), 0);
        let said = |code: i32| {
            let bytes = message(NLMSG_ERROR, &(-code).to_ne_bytes());
            messages(&bytes).next().unwrap().accepted()
        };
        assert!(said(0).is_ok());
        assert!(matches!(said(1), Err(Error::Refused(error)) if error.raw_os_error() == Some(1)));
        let short = message(NLMSG_ERROR, &[1]);
        assert!(matches!(
            messages(&short).next().unwrap().accepted(),
            Err(Error::Short)
        ));
    }
}
