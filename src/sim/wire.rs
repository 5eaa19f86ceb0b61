//! The links of a world as cables: both directions, what travels on them, and the address that a NAT shows to the server.

use std::net::SocketAddr;

use super::impairment::{Impairment, Payload};
use crate::base::{Instant, Rng};
use crate::session::config::WIRE_OVERHEAD_BYTES;
use crate::session::path::Origin;
use crate::wire::virtio::VIRTIO_BYTES;

/// The first port of a NAT's outside, and how many follow before it gives the next one to a worker.
const FIRST_PORT: u16 = 40_000;
const WORKERS_MAX: u16 = 16;
/// Datagrams that arrive together and have one length reach the endpoint in one buffer, as UDP GRO would do.
const GRO_DATAGRAMS_MAX: usize = 32;

/// What travels on a link.
#[derive(Clone, Debug)]
pub(super) enum Parcel {
    /// A datagram of the tunnel.
    Datagram {
        bytes: Vec<u8>,
        /// The server's end: our port there and the client's address as the server sees it.
        origin: Origin,
    },
    /// A frame of foreign traffic: an IP packet that was never in the tunnel.
    Foreign {
        frame: Vec<u8>,
        /// Its checksum says so, and its host throws it away.
        damaged: bool,
    },
}

impl Payload for Parcel {
    fn wire_bytes(&self) -> u32 {
        match self {
            Self::Datagram { bytes, .. } => bytes.wire_bytes() + WIRE_OVERHEAD_BYTES,
            Self::Foreign { frame, .. } => frame[VIRTIO_BYTES..].len().try_into().unwrap_or(0),
        }
    }

    fn corrupt(&mut self, rng: &mut Rng) {
        match self {
            Self::Datagram { bytes, .. } => bytes.corrupt(rng),
            Self::Foreign { damaged, .. } => *damaged = true,
        }
    }

    fn duplicate(&self) -> Option<Self> {
        Some(self.clone())
    }
}

/// One link: both directions and the address that the NAT shows to the server.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) up: Impairment<Parcel>,
    pub(super) down: Impairment<Parcel>,
    /// One for each worker of the client.
    pub(super) origins: Vec<Origin>,
    /// Longest packet that the device at either end takes: longer ones are refused, not lost.
    pub(super) device_mtu: Option<u32>,
    pub(super) rebinds: u16,
    /// Datagrams to addresses that the NAT has forgotten.
    pub(super) nat_drops: u64,
}

impl Wire {
    /// The longest datagram that leaves either end, when this one is longer.
    pub(super) fn refusal(&self, datagram: &[u8]) -> Option<usize> {
        let room = self.device_mtu?.saturating_sub(WIRE_OVERHEAD_BYTES) as usize;
        (datagram.len() > room).then_some(room)
    }
}

/// What reached the far end of a link by now. Neighbours of one length and origin share a buffer, the last of which
/// may be shorter, as UDP GRO delivers them. `foreign` gets the frames of foreign traffic.
pub(super) fn gather(
    direction: &mut Impairment<Parcel>,
    now: Instant,
    out: &mut Vec<(Vec<u8>, Origin)>,
    foreign: &mut Vec<Vec<u8>>,
) {
    let (mut segment, mut count) = (0, 0);
    while let Some(parcel) = direction.poll(now) {
        let (bytes, origin) = match parcel {
            Parcel::Datagram { bytes, origin } => (bytes, origin),
            Parcel::Foreign { damaged: true, .. } => continue,
            Parcel::Foreign { frame, .. } => {
                foreign.push(frame);
                continue;
            }
        };
        if let Some((buffer, from)) = out.last_mut()
            && *from == origin
            && bytes.len() <= segment
            && buffer.len() == segment * count
            && count < GRO_DATAGRAMS_MAX
        {
            buffer.extend_from_slice(&bytes);
            count += 1;
            continue;
        }
        (segment, count) = (bytes.len(), 1);
        out.push((bytes, origin));
    }
}

/// The address that the server sees of a link of a client's worker after some rebinds.
pub(super) fn address(client: u8, worker: u8, port: u16, rebinds: u16) -> SocketAddr {
    let link = u8::try_from(port).unwrap_or(u8::MAX);
    let outside = FIRST_PORT + rebinds * WORKERS_MAX + u16::from(worker);
    SocketAddr::from(([198, 51, client, link], outside))
}

/// The client and its worker behind an address.
pub(super) fn client_of(address: SocketAddr) -> (u8, u8) {
    let worker = address.port().saturating_sub(FIRST_PORT) % WORKERS_MAX;
    let worker = u8::try_from(worker).unwrap_or(0);
    match address {
        SocketAddr::V4(v4) => (v4.ip().octets()[2], worker),
        SocketAddr::V6(_) => (u8::MAX, worker),
    }
}
