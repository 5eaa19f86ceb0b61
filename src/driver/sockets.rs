//! Which socket carries which link.
//!
//! Client: one connected socket for each link, key = link number. Server: one listening socket for each port
//! (key = its number), and one connected socket for each link of a client once its address is proven: then the
//! kernel finds the socket by the whole address pair and runs need no address. What must not go to the proven
//! address (answers to handshakes, challenges) leaves by the listener.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::base::LinkId;
use crate::endpoint::{SessionId, Transmit};
use crate::session::path::Origin;
use crate::sys::{Datapath, DatapathError, UdpConfig, UdpError, UdpSocket};

/// Socket buffers asked for; what is granted stands in status. 7 MiB is 56 ms at 1 Gbit/s.
pub const BUFFER_BYTES: usize = 7 << 20;
/// Longest datagram that a listener takes; longer ones are truncated and fail to parse.
const DATAGRAM_BYTES_MAX: usize = 16_384;
/// Keys of connected sockets start here; those of listeners are below.
const FIRST_LINK_KEY: u32 = 256;

/// Why a link has no socket of its own.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The socket.
    #[error(transparent)]
    Udp(#[from] UdpError),
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

#[derive(Debug)]
struct LinkSocket {
    socket: UdpSocket,
    key: u32,
    origin: Option<Origin>,
}

/// Both ends of a link's socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ends {
    /// Ours.
    pub own: Option<SocketAddr>,
    /// The peer's, when the socket is connected.
    pub peer: Option<SocketAddr>,
}

/// All sockets of the data thread.
#[derive(Debug)]
pub struct Sockets {
    listeners: Vec<UdpSocket>,
    links: BTreeMap<(SessionId, LinkId), LinkSocket>,
    by_key: BTreeMap<u32, (SessionId, LinkId)>,
    /// UDP_SEGMENT of each link's socket, the next one included.
    segments: BTreeMap<(SessionId, LinkId), u16>,
    next_key: u32,
    /// UDP segmentation and coalescing are wanted.
    offload: bool,
    buffer: Vec<u8>,
}

impl Sockets {
    /// The server's listeners. Every worker sends by them; one of them reads.
    pub fn listening(
        listeners: Vec<UdpSocket>,
        reads: bool,
        offload: bool,
        datapath: &mut Datapath,
    ) -> Result<Self, DatapathError> {
        for (key, socket) in (0_u32..).zip(&listeners).filter(|_| reads) {
            datapath.add_listener(key, socket)?;
        }
        Ok(Self::empty(listeners, offload))
    }

    /// The connected sockets of a client's session, in the order of the links.
    pub fn connected(
        session: SessionId,
        sockets: Vec<UdpSocket>,
        offload: bool,
        datapath: &mut Datapath,
    ) -> Result<Self, DatapathError> {
        let mut all = Self::empty(Vec::new(), offload);
        for (number, socket) in (0_u8..).zip(sockets) {
            let key = u32::from(number);
            datapath.add_socket(key, &socket, offload)?;
            all.by_key.insert(key, (session, LinkId(number)));
            all.links.insert(
                (session, LinkId(number)),
                LinkSocket {
                    socket,
                    key,
                    origin: None,
                },
            );
        }
        Ok(all)
    }

    fn empty(listeners: Vec<UdpSocket>, offload: bool) -> Self {
        Self {
            listeners,
            links: BTreeMap::new(),
            by_key: BTreeMap::new(),
            segments: BTreeMap::new(),
            next_key: FIRST_LINK_KEY,
            offload,
            buffer: vec![0; DATAGRAM_BYTES_MAX],
        }
    }

    /// The datapath's key of the socket that carries a transmit; `None` = it must leave by the listener.
    pub fn key_for(&self, transmit: &Transmit) -> Option<u32> {
        let link = self.links.get(&transmit.link?)?;
        (link.origin == transmit.origin).then_some(link.key)
    }

    /// Sends a run by the listener, datagram by datagram; returns how many the kernel refused.
    pub fn send_unconnected(&self, transmit: &Transmit, bytes: &[u8]) -> u64 {
        let Some(origin) = transmit.origin else {
            return 1;
        };
        let Some(listener) = self.listeners.get(usize::from(origin.port)) else {
            return 1;
        };
        let refused = bytes
            .chunks(usize::from(transmit.segment).max(1))
            .filter(|datagram| {
                listener
                    .send_from(datagram, origin.address, origin.local)
                    .is_err()
            })
            .count();
        refused as u64
    }

    /// One datagram from a listener; `None` when there is none.
    pub fn receive(&mut self, key: u32) -> Option<(&mut [u8], Origin)> {
        let port = u16::try_from(key).ok()?;
        let listener = self.listeners.get(usize::from(port))?;
        // An error is an earlier ICMP message about somebody else's datagram.
        let (bytes, address, local) = listener.receive_local(&mut self.buffer).ok()?;
        Some((
            &mut self.buffer[..bytes],
            Origin {
                port,
                address,
                local,
            },
        ))
    }

    /// Where the datagrams of a connected socket come from.
    pub fn origin_of(&self, key: u32) -> Option<Origin> {
        self.links.get(self.by_key.get(&key)?)?.origin
    }

    /// The link of a connected socket.
    pub fn link_of(&self, key: u32) -> Option<(SessionId, LinkId)> {
        self.by_key.get(&key).copied()
    }

    /// Gives a link a socket connected to its proven address, or connects the one it has anew.
    pub fn connect(
        &mut self,
        session: SessionId,
        link: LinkId,
        origin: Origin,
        datapath: &mut Datapath,
    ) -> Result<(), ConnectError> {
        let listener = self.listeners.get(usize::from(origin.port));
        let Some(source) = listener.and_then(|socket| socket.local_addr().ok()) else {
            return Ok(());
        };
        self.drop_link(session, link, datapath);
        let config = UdpConfig {
            source: SocketAddr::new(origin.local.unwrap_or(source.ip()), source.port()),
            device: None,
            reuse_port: true,
            buffer_bytes: BUFFER_BYTES,
        };
        let socket = UdpSocket::bind(config)?;
        socket.connect(origin.address)?;
        let key = self.free_key();
        datapath.add_socket(key, &socket, self.offload)?;
        if let Some(&segment) = self.segments.get(&(session, link))
            && self.offload
        {
            datapath.set_segment(key, segment);
        }
        self.by_key.insert(key, (session, link));
        self.links.insert(
            (session, link),
            LinkSocket {
                socket,
                key,
                origin: Some(origin),
            },
        );
        Ok(())
    }

    /// A key that no socket has. Keys are used in turn, so that one comes back late: there are far more of them than
    /// the datapath takes sockets.
    fn free_key(&mut self) -> u32 {
        loop {
            let key = self.next_key;
            self.next_key = if key + 1 < crate::sys::datapath::KEYS_MAX {
                key + 1
            } else {
                FIRST_LINK_KEY
            };
            if !self.by_key.contains_key(&key) {
                return key;
            }
        }
    }

    /// Longest datagram that the route of a link's socket takes, if the kernel knows; even, because symbols are.
    pub fn path_limit(&self, session: SessionId, link: LinkId) -> Option<usize> {
        let socket = &self.links.get(&(session, link))?.socket;
        let headers = if socket.local_addr().ok()?.is_ipv4() {
            28
        } else {
            48
        };
        let bytes = socket.path_mtu().ok()?.checked_sub(headers)?;
        usize::try_from(bytes & !1).ok()
    }

    /// Tells a link's socket how long the datagrams of a run are.
    pub fn set_segment(
        &mut self,
        session: SessionId,
        link: LinkId,
        bytes: usize,
        datapath: &mut Datapath,
    ) {
        let bytes = u16::try_from(bytes).unwrap_or(0);
        self.segments.insert((session, link), bytes);
        if self.offload
            && let Some(link) = self.links.get(&(session, link))
        {
            datapath.set_segment(link.key, bytes);
        }
    }

    /// Closes the sockets of a server's session that ended. A client keeps its sockets to dial again.
    pub fn forget(&mut self, session: SessionId, datapath: &mut Datapath) {
        if self.listeners.is_empty() {
            return;
        }
        let links: Vec<_> = self
            .links
            .range((session, LinkId(0))..=(session, LinkId(u8::MAX)))
            .map(|(key, _)| key.1)
            .collect();
        for link in links {
            self.drop_link(session, link, datapath);
        }
    }

    fn drop_link(&mut self, session: SessionId, link: LinkId, datapath: &mut Datapath) {
        if let Some(old) = self.links.remove(&(session, link)) {
            datapath.remove_socket(old.key);
            self.by_key.remove(&old.key);
        }
    }

    /// Both ends of the links' sockets.
    pub fn ends(&self) -> Vec<((SessionId, LinkId), Ends)> {
        let ends = |socket: &UdpSocket| Ends {
            own: socket.local_addr().ok(),
            peer: socket.peer_addr().ok(),
        };
        self.links
            .iter()
            .map(|(id, link)| (*id, ends(&link.socket)))
            .collect()
    }

    /// Whether an error of a send says that the link itself cannot carry anything now.
    pub const fn is_link_down(errno: i32) -> bool {
        use nix::libc::{EADDRNOTAVAIL, EHOSTUNREACH, ENETDOWN, ENETUNREACH, ENODEV, ENXIO};
        matches!(
            errno,
            ENETDOWN | ENETUNREACH | EHOSTUNREACH | EADDRNOTAVAIL | ENODEV | ENXIO
        )
    }

    /// Whether an error of a send says that the datagram is longer than the device or the route takes.
    pub const fn is_too_long(errno: i32) -> bool {
        errno == libc::EMSGSIZE
    }
}
