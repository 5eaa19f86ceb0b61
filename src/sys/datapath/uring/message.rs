//! Headers for runs whose datagrams are not as long as their socket's segment: `sendmsg` with the length in a control
//! message.
//!
//! Invariants: a header lies at one address as long as this value lives, and is written only while no operation of
//! its slot is in flight.

/// One control message: `CMSG_DATA` follows the header at once on all machines, whose words are no longer than it.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    segment: u16,
    padding: [u16; 3],
}

/// What the kernel reads of one send.
struct Message {
    control: Control,
    part: libc::iovec,
    header: libc::msghdr,
}

/// One header for each slot.
pub(super) struct Messages(Box<[Message]>);

impl Messages {
    /// Headers for `count` slots.
    pub(super) fn new(count: usize) -> Self {
        // SAFETY: all fields are integers and pointers, for which zero is a value.
        let empty = || unsafe { std::mem::zeroed::<Message>() };
        Self((0..count).map(|_| empty()).collect())
    }

    /// Keeps the headers for ever: the kernel may still read them.
    pub(super) fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.0));
    }

    /// Makes the header of a slot say: these bytes, in datagrams of `segment`. Returns where it lies.
    pub(super) fn fill(
        &mut self,
        slot: u16,
        address: *const u8,
        bytes: usize,
        segment: u16,
    ) -> *const libc::msghdr {
        let Message {
            control,
            part,
            header,
        } = &mut self.0[usize::from(slot)];
        control.header.cmsg_level = libc::SOL_UDP;
        control.header.cmsg_type = libc::UDP_SEGMENT;
        // The types of these lengths differ between C libraries.
        control.header.cmsg_len = (size_of::<libc::cmsghdr>() + size_of::<u16>()) as _;
        control.segment = segment;
        part.iov_base = address.cast_mut().cast();
        part.iov_len = bytes;
        header.msg_iov = part;
        header.msg_iovlen = 1;
        header.msg_control = std::ptr::from_mut(control).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Messages").field(&self.0.len()).finish()
    }
}
