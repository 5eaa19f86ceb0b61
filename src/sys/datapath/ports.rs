//! The descriptors of a datapath: TUN queue, sockets, listeners, wakes.
//!
//! A port's index is also its place in io_uring's table of registered files and its buffer number. A
//! generation tells completions of a removed port from those of its successor.
//!
//! Invariant: a port with operations in flight keeps its index, also when it is closing.

use std::os::fd::{AsFd, OwnedFd};

use super::DatapathError;
use super::zero_copy::{Verdict, ZeroCopy};
use crate::sys::arena::Arena;
use crate::sys::udp;

/// Keys are indexes into a table, so they must be small.
pub const KEYS_MAX: u32 = 65_536;

/// One descriptor.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) kind: Kind,
    pub(super) key: u32,
    pub(super) generation: u16,
    /// Our own copy of the descriptor.
    pub(super) fd: OwnedFd,
    /// UDP_SEGMENT as set on the socket; 0 when off.
    pub(super) segment: u16,
    /// Whether its runs leave without a copy.
    pub(super) zero_copy: Verdict,
    /// Reads and polls that io_uring has not finished.
    pub(super) in_flight: u8,
    /// Removed; waits for `in_flight` to reach 0.
    pub(super) closing: bool,
    /// Memory of the one-shot tier's reads.
    pub(super) buffers: Option<ReadBuffers>,
}

impl Port {
    /// Sets UDP_SEGMENT; `false` when the kernel refuses.
    pub(super) fn set_segment(&mut self, bytes: u16) -> bool {
        if self.segment == bytes {
            return true;
        }
        let set = udp::set_segment(self.fd.as_fd(), bytes).is_ok();
        self.segment = udp::segment(self.fd.as_fd());
        set
    }
}

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tun,
    Socket,
    Readable,
    Wake,
}

/// Read buffers of one port in the one-shot tier.
#[derive(Debug)]
pub(super) struct ReadBuffers {
    pub(super) arena: Arena,
    pub(super) buffer_bytes: usize,
    /// Registered with the ring under the port's buffer number.
    pub(super) fixed: bool,
}

/// All ports and how to find them.
#[derive(Debug)]
pub(super) struct Ports {
    ports: Vec<Option<Port>>,
    /// Key to index; [`NONE`] where unused. Grows when a port is added.
    by_key: Vec<u16>,
    /// Free indexes, lowest on top.
    free: Vec<u16>,
    /// Counts up whenever an index is given out.
    generations: Vec<u16>,
    tun: Option<u16>,
    /// Whether runs of new sockets leave without a copy.
    zero_copy: ZeroCopy,
}

const NONE: u16 = u16::MAX;

impl Ports {
    /// Room for `count` ports.
    pub(super) fn new(count: u16, zero_copy: ZeroCopy) -> Self {
        let count = count.clamp(2, NONE - 1);
        Self {
            ports: (0..count).map(|_| None).collect(),
            by_key: Vec::new(),
            free: (0..count).rev().collect(),
            generations: vec![0; usize::from(count)],
            tun: None,
            zero_copy,
        }
    }

    /// The kernel has no such operation.
    pub(super) fn without_zero_copy(&mut self) {
        self.zero_copy = ZeroCopy::Off;
    }

    /// Most ports at one time.
    pub(super) fn capacity(&self) -> usize {
        self.ports.len()
    }

    /// Makes fewer ports available: the ring took a smaller file table. Only before the first port.
    pub(super) fn limit(&mut self, count: usize) {
        self.free.retain(|&index| usize::from(index) < count);
    }

    /// Adds a port and returns its index.
    pub(super) fn insert(
        &mut self,
        kind: Kind,
        key: u32,
        fd: OwnedFd,
    ) -> Result<u16, DatapathError> {
        let keyed = matches!(kind, Kind::Socket | Kind::Readable);
        let taken = match kind {
            Kind::Tun => self.tun.is_some(),
            Kind::Wake => false,
            Kind::Socket | Kind::Readable => key >= KEYS_MAX || self.by_key(key).is_some(),
        };
        if taken {
            return Err(DatapathError::Key(key));
        }
        let index = self.free.pop().ok_or(DatapathError::PortsFull)?;
        let generation = &mut self.generations[usize::from(index)];
        *generation = generation.wrapping_add(1);
        let segment = if kind == Kind::Socket {
            udp::segment(fd.as_fd())
        } else {
            0
        };
        self.ports[usize::from(index)] = Some(Port {
            kind,
            key,
            generation: *generation,
            fd,
            segment,
            zero_copy: Verdict::new(self.zero_copy),
            in_flight: 0,
            closing: false,
            buffers: None,
        });
        if kind == Kind::Tun {
            self.tun = Some(index);
        }
        if keyed {
            let at = key as usize; // below KEYS_MAX
            if self.by_key.len() <= at {
                self.by_key.resize(at + 1, NONE);
            }
            self.by_key[at] = index;
        }
        Ok(index)
    }

    /// The index of a live port.
    pub(super) fn by_key(&self, key: u32) -> Option<u16> {
        let index = *self.by_key.get(usize::try_from(key).ok()?)?;
        (index != NONE).then_some(index)
    }

    /// The index of the TUN queue.
    pub(super) const fn tun(&self) -> Option<u16> {
        self.tun
    }

    /// A port that is known to exist.
    pub(super) fn port(&self, index: u16) -> &Port {
        self.ports[usize::from(index)]
            .as_ref()
            .expect("an index in use has a port")
    }

    /// A port that is known to exist, to change.
    pub(super) fn port_mut(&mut self, index: u16) -> &mut Port {
        self.ports[usize::from(index)]
            .as_mut()
            .expect("an index in use has a port")
    }

    /// The port if it is still the one of `generation` and not closing.
    pub(super) fn live(&self, index: u16, generation: u16) -> Option<&Port> {
        let port = self.ports.get(usize::from(index))?.as_ref()?;
        (port.generation == generation && !port.closing).then_some(port)
    }

    /// Makes a key unknown and its port closing; returns the index.
    pub(super) fn close(&mut self, key: u32) -> Option<u16> {
        let index = self.by_key(key)?;
        self.by_key[key as usize] = NONE;
        self.port_mut(index).closing = true;
        Some(index)
    }

    /// Drops a port at once and frees its index.
    pub(super) fn forget(&mut self, index: u16) -> Option<Port> {
        let port = self.ports[usize::from(index)].take()?;
        if self.by_key(port.key) == Some(index) {
            self.by_key[port.key as usize] = NONE;
        }
        if self.tun == Some(index) {
            self.tun = None;
        }
        self.free.push(index);
        Some(port)
    }

    /// See [`Arena::leak`].
    pub(super) fn leak(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            if let Some(buffers) = &mut port.buffers {
                buffers.arena.leak();
            }
        }
    }

    /// Sets UDP_SEGMENT of a socket; without success it is off.
    pub(super) fn set_segment(&mut self, key: u32, bytes: u16) -> bool {
        let Some(index) = self.by_key(key) else {
            return false;
        };
        self.port_mut(index).set_segment(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn fd() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_key_is_used_once_and_free_again_after_closing() {
        let mut ports = Ports::new(2, ZeroCopy::Auto);
        let first = ports.insert(Kind::Readable, 7, fd()).unwrap();
        assert!(matches!(
            ports.insert(Kind::Readable, 7, fd()),
            Err(DatapathError::Key(7))
        ));
        let generation = ports.port(first).generation;
        assert!(ports.live(first, generation).is_some());
        assert_eq!(ports.close(7), Some(first));
        assert!(ports.live(first, generation).is_none() && ports.by_key(7).is_none());
        let second = ports.insert(Kind::Readable, 7, fd()).unwrap();
        assert_ne!(first, second);
        // Forgetting the closed port must not take the key away from its successor.
        ports.forget(first);
        assert_eq!(ports.by_key(7), Some(second));
        let third = ports.insert(Kind::Wake, 0, fd()).unwrap();
        assert_eq!(third, first);
        assert_ne!(ports.port(third).generation, generation);
    }

    #[test]
    fn large_keys_and_too_many_ports_are_refused() {
        let mut ports = Ports::new(2, ZeroCopy::Auto);
        assert!(ports.insert(Kind::Socket, KEYS_MAX, fd()).is_err());
        ports.insert(Kind::Tun, 0, fd()).unwrap();
        assert!(matches!(
            ports.insert(Kind::Tun, 0, fd()),
            Err(DatapathError::Key(_))
        ));
        ports.insert(Kind::Wake, 0, fd()).unwrap();
        assert!(matches!(
            ports.insert(Kind::Wake, 0, fd()),
            Err(DatapathError::PortsFull)
        ));
    }
}
