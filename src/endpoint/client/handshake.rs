//! The client's part of the handshake: the HELLO it begins with, and what follows from a WELCOME.
//!
//! Never repeats a HELLO by itself: when and on which link copies leave is [`super::dial`]'s affair.

use std::time::Duration;

use super::Client;
use super::dial::{ATTEMPT, Dial};
use crate::base::id::LINKS_MAX;
use crate::base::{DropReason, Instant, LinkId};
use crate::crypto::handshake::Initiator;
use crate::crypto::key_schedule::Role;
use crate::endpoint::epoch::{FEATURE_FRESH, draw_indexes, epoch_keys};
use crate::endpoint::{Event, Transmit};
use crate::session::{Session, SessionParameters};
use crate::wire::handshake::{HELLO_BYTES, HelloPayload, WelcomePayload};

/// Attempts are longer by up to this at random, so that many clients do not come at once.
const ATTEMPT_JITTER: Duration = Duration::from_millis(333);
/// Rotation happens within this part of the interval around it, so that many clients do not come at once.
const ROTATION_JITTER: f64 = 0.1;

impl Client {
    pub(super) fn start_dial(&mut self, now: Instant) {
        self.dial_at = now + ATTEMPT + ATTEMPT_JITTER.mul_f64(self.rng.unit());
        let Self {
            numbers,
            indexes: used,
            ..
        } = self;
        let indexes = draw_indexes(
            u8::try_from(self.config.wan_of_link.len().min(LINKS_MAX)).unwrap_or(u8::MAX),
            numbers,
            |index| used.contains_key(&index),
        );
        self.epoch_count = self.epoch_count.wrapping_add(1);
        #[allow(clippy::cast_possible_truncation)] // the low byte names the epoch
        let tag = self.epoch_count as u8;
        let sender_index = self.numbers.next_u32() << 8 | u32::from(tag);
        let payload = HelloPayload {
            stamp: self.stamp(now),
            boot_id: self.config.boot_id,
            cipher_bits: self.config.cipher_bits,
            psk_kind: 0,
            features: if self.session.is_some() {
                0
            } else {
                FEATURE_FRESH
            },
            session_number: self.config.workers.own,
            link_count: self.link_count(),
            datagram_bytes_max: self.config.datagram_bytes_max,
            indexes,
        };
        let mut hello = Box::new([0; HELLO_BYTES]);
        let config = &self.config;
        let psk = config.preshared_key.as_ref();
        match Initiator::start(
            &config.private_key,
            config.server_key,
            psk,
            sender_index,
            &payload,
            &mut hello,
        ) {
            Ok(initiator) => {
                self.handshakes += 1;
                self.dial = Some(Dial::new(initiator, hello, indexes, tag, now));
            }
            Err(_) => self.drops.count(DropReason::HandshakeRefused),
        }
    }

    /// Seconds and nanoseconds since 1970, big-endian so that they compare as bytes.
    fn stamp(&self, now: Instant) -> [u8; 12] {
        let time = self.config.unix_time_at_zero + Duration::from_nanos(now.as_nanos());
        let mut stamp = [0; 12];
        stamp[..8].copy_from_slice(&time.as_secs().to_be_bytes());
        stamp[8..].copy_from_slice(&time.subsec_nanos().to_be_bytes());
        stamp
    }

    pub(super) fn on_welcome(&mut self, datagram: &[u8], now: Instant) -> Result<(), DropReason> {
        let dial = self.dial.as_mut().ok_or(DropReason::UnknownIndex)?;
        let established = dial.finish(datagram)?;
        let Some(dial) = self.dial.take() else {
            return Ok(());
        };
        let welcome = established.payload;
        let links = self.link_count().min(welcome.link_count);
        let id = self.epoch_count;
        let keys = epoch_keys(
            &established,
            Role::Initiator,
            id,
            dial.tag,
            links,
            &welcome.indexes,
            now,
        );
        let fresh = self.session.is_none()
            || welcome.features & FEATURE_FRESH != 0
            || welcome.boot_id != self.server_boot_id;
        self.server_boot_id = welcome.boot_id;
        self.cipher = Some(established.cipher);
        if fresh {
            self.indexes.clear();
            self.session = Some(self.new_session(&welcome, links, now));
        }
        for link in (0..links).map(LinkId) {
            self.indexes.insert(dial.indexes[link.index()], (id, link));
        }
        let id_of = self.id();
        if let Some(session) = &mut self.session {
            session.install_epoch(keys, now);
            self.events.push_back(Event::Established {
                session: id_of,
                fresh,
            });
        }
        self.refresh_presence(now);
        self.dial_at = Instant::FAR;
        let jitter = 1.0 - ROTATION_JITTER + 2.0 * ROTATION_JITTER * self.rng.unit();
        self.rotate_at = now + self.config.rekey_interval.mul_f64(jitter);
        Ok(())
    }

    fn new_session(&mut self, welcome: &WelcomePayload, link_count: u8, now: Instant) -> Session {
        let parameters = SessionParameters {
            initiator: true,
            link_count,
            wans: self.config.wans.clone(),
            wan_of_link: self.config.wan_of_link.clone(),
            datagram_bytes_max: usize::from(
                self.config
                    .datagram_bytes_max
                    .min(welcome.datagram_bytes_max),
            ),
            seed: self.numbers.next_u64(),
        };
        let mut session = Session::new(&parameters, self.config.session.clone(), now);
        session.set_siblings(self.config.workers.own, self.joined, now);
        session
    }

    pub(super) fn poll_hello(&mut self, now: Instant, out: &mut [u8]) -> Option<Transmit> {
        let link_count = self.link_count();
        let id = self.id();
        let dial = self.dial.as_mut()?;
        let link = dial.poll(link_count, now)?;
        out[..HELLO_BYTES].copy_from_slice(&dial.hello[..]);
        Some(Transmit {
            link: Some((id, link)),
            origin: None,
            bytes: HELLO_BYTES,
            segment: u16::try_from(HELLO_BYTES).unwrap_or(u16::MAX),
        })
    }
}
