//! Two sessions with real keys, joined by memory.
#![allow(dead_code, clippy::unwrap_used)] // each test uses its part

pub mod hostile;

use std::net::SocketAddr;
use std::time::Duration;

use chainlightning::base::{FRAME_BYTES_MAX, Instant, LinkId, WanId};
use chainlightning::crypto::Cipher;
use chainlightning::crypto::handshake::{Established, Initiator, Responder};
use chainlightning::crypto::key_schedule::Role;
use chainlightning::crypto::keys::PrivateKey;
use chainlightning::fec::protection::{Mode as FecMode, RESIDUAL};
use chainlightning::session::config::{Equalise, Mode, SessionConfig, WanConfig};
use chainlightning::session::epochs::{EpochKeys, LinkKeys};
use chainlightning::session::path::Origin;
use chainlightning::session::{Event, RUN_BYTES_MAX, Session, SessionParameters};
use chainlightning::wire::handshake::{HELLO_BYTES, HelloPayload, WELCOME_BYTES, WelcomePayload};

/// Receiver index of a link, the same for both ends.
pub const fn index_of(link: u8) -> u32 {
    1000 + link as u32
}

/// Both ends of a handshake: initiator's, responder's.
pub fn handshake() -> (Established, Established) {
    let (client, server) = (
        PrivateKey::generate().unwrap(),
        PrivateKey::generate().unwrap(),
    );
    let hello_payload = HelloPayload {
        stamp: [1; 12],
        boot_id: [1; 8],
        cipher_bits: Cipher::local_bits(),
        psk_kind: 0,
        features: 0,
        session_number: 0,
        link_count: 1,
        datagram_bytes_max: 1472,
        indexes: [0; 32],
    };
    let welcome_payload = WelcomePayload {
        cipher: Cipher::choose(Cipher::local_bits(), Cipher::local_bits()).code(),
        features: 0,
        boot_id: [2; 8],
        link_count: 1,
        datagram_bytes_max: 1472,
        hold_time_max_ms: 150,
        indexes: [0; 32],
    };
    let mut hello = [0; HELLO_BYTES];
    let peer = server.public();
    let mut initiator =
        Initiator::start(&client, peer, None, 7, &hello_payload, &mut hello).unwrap();
    let responder = Responder::read(&server, &hello).unwrap();
    let mut welcome = [0; WELCOME_BYTES];
    let far = responder
        .finish(None, 8, &welcome_payload, &mut welcome)
        .unwrap();
    (initiator.finish(&welcome).unwrap(), far)
}

/// Keys of one end for its links.
pub fn keys(established: &Established, role: Role, links: u8, now: Instant) -> EpochKeys {
    let links = (0..links).map(|link| {
        let (seal, open) = established
            .secret
            .link_keys(role, LinkId(link), established.cipher);
        LinkKeys {
            seal,
            open,
            receiver_index: index_of(link),
            sent_base: 0,
            received_base: None,
        }
    });
    EpochKeys {
        id: 1,
        tag: 1,
        links: links.collect(),
        established_at: now,
    }
}

pub fn config() -> SessionConfig {
    SessionConfig {
        mode: Mode::Balanced,
        fec: FecMode::Adaptive {
            ceiling: 0.25,
            residual: RESIDUAL,
        },
        rtt_weight: 0.7,
        loss_weight: 0.3,
        heartbeat: Duration::from_millis(100),
        reorder_max: None,
        equalise: Equalise::Auto,
        gso: chainlightning::link::gso::Wanted::Auto,
        classes: Vec::new(),
        mss_max: None,
    }
}

pub fn session(initiator: bool, links: u8, now: Instant) -> Session {
    let wans = (0..links).map(|number| WanConfig::plain(WanId(number), format!("wan{number}")));
    let parameters = SessionParameters {
        initiator,
        link_count: links,
        wans: wans.collect(),
        wan_of_link: (0..links).map(WanId).collect(),
        datagram_bytes_max: 1472,
        seed: 3,
    };
    Session::new(&parameters, config(), now)
}

/// Where a link's datagrams come from, at the server.
pub fn origin(link: u8) -> Origin {
    Origin {
        port: u16::from(link),
        address: SocketAddr::from(([192, 0, 2, link], 4000)),
        local: None,
    }
}

/// Two sessions and the memory between them.
pub struct Pair {
    pub client: Session,
    pub server: Session,
    /// Every n-th datagram is lost; 0 = none.
    pub lose_each: u64,
    /// What happens to segmented sends of the client: from its datagrams, whether each is lost.
    pub spoil: fn(segments: usize, even: bool, index: usize) -> bool,
    /// Whether the client's socket is to cut runs.
    segmented: bool,
    pub carried: u64,
    pub delivered: [u64; 2],
    buffer: Vec<u8>,
    frame: Vec<u8>,
}

impl Pair {
    pub fn new(links: u8, now: Instant) -> Self {
        let (near, far) = handshake();
        let (mut client, mut server) = (session(true, links, now), session(false, links, now));
        client.install_epoch(keys(&near, Role::Initiator, links, now), now);
        server.install_epoch(keys(&far, Role::Responder, links, now), now);
        Self {
            client,
            server,
            lose_each: 0,
            spoil: |_, _, _| false,
            segmented: true,
            carried: 0,
            delivered: [0; 2],
            buffer: vec![0; RUN_BYTES_MAX + 1024],
            frame: vec![0; FRAME_BYTES_MAX],
        }
    }

    /// Everything that can happen at this instant.
    pub fn turn(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.server.handle_timeout(now);
        while let Some(event) = self.client.poll_event() {
            if let Event::SegmentChanged { bytes, .. } = event {
                self.segmented = bytes > 0;
            }
        }
        while self.server.poll_event().is_some() {}
        while self.carry(true, now) || self.carry(false, now) {}
    }

    fn carry(&mut self, up: bool, now: Instant) -> bool {
        let (from, to) = if up {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        let Some(transmit) = from.poll_transmit(now, &mut self.buffer) else {
            return false;
        };
        let link = transmit.link;
        let run = &mut self.buffer[..transmit.bytes];
        let segment = usize::from(transmit.segment);
        let (segments, even) = (
            run.len().div_ceil(segment),
            run.len().is_multiple_of(segment),
        );
        for (index, datagram) in run.chunks_mut(segment).enumerate() {
            self.carried += 1;
            if up && self.segmented && segments > 1 && (self.spoil)(segments, even, index) {
                continue;
            }
            if self.lose_each > 0 && self.carried.is_multiple_of(self.lose_each) {
                continue;
            }
            let from = up.then(|| origin(link.0));
            let _ = to.handle_datagram(1, link, datagram, from, now);
        }
        while to.poll_frame(now, &mut self.frame).is_some() {
            self.delivered[usize::from(up)] += 1;
        }
        true
    }
}

/// A frame with a UDP packet of this length, of one of several flows.
pub fn frame(flow: u16, packet_bytes: usize) -> Vec<u8> {
    let mut frame = vec![0; 10 + packet_bytes];
    let packet = &mut frame[10..];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(packet_bytes).unwrap().to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..16].copy_from_slice(&[10, 99, 0, 2]);
    packet[16..20].copy_from_slice(&[10, 99, 0, 1]);
    packet[20..22].copy_from_slice(&flow.to_be_bytes());
    packet[22..24].copy_from_slice(&5001_u16.to_be_bytes());
    frame
}
