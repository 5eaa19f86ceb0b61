//! One client as the server knows it: its sessions, of each the one that would replace it, and the last handshake.

use std::collections::BTreeMap;

use super::config::PeerConfig;
use crate::base::id::SESSIONS_MAX;
use crate::base::{Instant, WanId};
use crate::crypto::Cipher;
use crate::endpoint::admission::PeerGate;
use crate::endpoint::mail::{Presence, Workers, pick};
use crate::endpoint::{PeerId, SessionId};
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::epochs::EpochKeys;
use crate::session::{Session, SessionParameters};
use crate::wire::handshake::{MAC_BYTES, WELCOME_BYTES};

/// Numbers that a session may have.
#[allow(clippy::cast_possible_truncation)] // 16
pub(super) const SESSION_COUNT_MAX: u8 = SESSIONS_MAX as u8;

/// One client.
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    /// What this worker owns of it, by number of the session.
    pub(super) parts: BTreeMap<u8, Part>,
    /// Numbers of the sessions that this worker owns if they exist, by bit.
    pub(super) own: u16,
    /// Sessions of all workers: those that there are, and those that frames have a way through.
    pub(super) joined: u16,
    pub(super) usable: u16,
    /// mac1 of the HELLOs that other workers answered last, to find them by their copies.
    pub(super) passed_on: BTreeMap<u8, [u8; MAC_BYTES]>,
}

/// One session of a client, if there is one, and what led to it.
#[derive(Default)]
pub(super) struct Part {
    pub(super) session: Option<Session>,
    /// Keys that are not confirmed: the client restarted, or is new.
    pub(super) waiting: Option<Waiting>,
    /// The client's start that `session` belongs to.
    pub(super) boot_id: [u8; 8],
    /// The client has said since that it knows nothing of `session`.
    pub(super) superseded: bool,
    pub(super) gate: PeerGate,
    pub(super) answered: Option<Answered>,
    pub(super) epoch: u32,
    pub(super) cipher: Option<Cipher>,
}

/// The last handshake of a peer, kept for the copies of its HELLO that come by other links.
pub(super) struct Answered {
    /// The HELLO but for mac2, which differs from link to link.
    pub(super) hello: Box<[u8]>,
    pub(super) welcome: Box<[u8; WELCOME_BYTES]>,
    /// Copies that may still be answered, and until when.
    pub(super) copies_left: u16,
    pub(super) until: Instant,
}

/// A session to be. Its memory is taken when the first datagram under its keys comes, which whoever replays a HELLO
/// cannot make.
pub(super) struct Waiting {
    keys: Option<EpochKeys>,
    parameters: SessionParameters,
    session: Option<Session>,
    pub(super) boot_id: [u8; 8],
    /// The stamp of the HELLO was old: it may be a recording.
    pub(super) old: bool,
    /// When it is forgotten.
    pub(super) until: Instant,
}

impl Peer {
    /// A client that nothing is known of but its number and what is configured.
    pub(super) fn new(config: PeerConfig, id: PeerId, workers: &Workers) -> Self {
        let numbers = (0..SESSION_COUNT_MAX).map(|number| SessionId { peer: id, number });
        let owned = numbers.filter(|session| owner(*session, workers) == workers.own);
        let own = owned.fold(0, |set, session| set | 1 << session.number);
        // There is always one place to show a client in status.
        let first = (own & 1 == 1).then(|| (0, Part::default()));
        Self {
            config,
            parts: first.into_iter().collect(),
            own,
            joined: 0,
            usable: 0,
            passed_on: BTreeMap::new(),
        }
    }

    /// The session of this worker with that number.
    pub(super) fn session(&mut self, number: u8) -> Option<&mut Session> {
        self.parts.get_mut(&number)?.session.as_mut()
    }

    /// Notes what a session is; whether this is news.
    pub(super) fn note(&mut self, number: u8, presence: Presence) -> bool {
        let before = (self.joined, self.usable);
        let set = |set: &mut u16, on: bool| *set = *set & !(1 << number) | u16::from(on) << number;
        set(&mut self.joined, presence != Presence::Gone);
        set(&mut self.usable, presence == Presence::Usable);
        before != (self.joined, self.usable)
    }

    /// The session that carries a flow: one of this worker if there is one, because the kernel reads a flow where its
    /// answers were written; rather one with a way than one without.
    pub(super) fn pick(&self, flow: u64) -> Option<u8> {
        let sets = [
            self.usable & self.own,
            self.usable,
            self.joined & self.own,
            self.joined,
        ];
        sets.into_iter().find_map(|set| pick(set, flow))
    }
}

/// The worker of a session. Sessions of one client go to different workers, and so do clients with one session.
pub(super) fn owner(session: SessionId, workers: &Workers) -> u8 {
    let sum = u32::from(session.peer.0) + u32::from(session.number);
    u8::try_from(sum % u32::from(workers.count.max(1))).unwrap_or(0)
}

impl Waiting {
    pub(super) const fn new(
        keys: EpochKeys,
        parameters: SessionParameters,
        boot_id: [u8; 8],
        old: bool,
        until: Instant,
    ) -> Self {
        Self {
            keys: Some(keys),
            parameters,
            session: None,
            boot_id,
            old,
            until,
        }
    }

    /// The session, made when it is needed first.
    pub(super) fn session(&mut self, config: &SessionConfig, now: Instant) -> &mut Session {
        let Self {
            keys,
            parameters,
            session,
            ..
        } = self;
        session.get_or_insert_with(|| {
            let mut session = Session::new(parameters, config.clone(), now);
            if let Some(keys) = keys.take() {
                session.install_epoch(keys, now);
            }
            session
        })
    }

    pub(super) fn into_session(self) -> Option<Session> {
        self.session
    }
}

/// A session whose links and WANs the client will describe. There are at most as many WANs as links.
pub(super) fn session_parameters(
    link_count: u8,
    datagram_bytes_max: u16,
    seed: u64,
) -> SessionParameters {
    let wans = (0..link_count)
        .map(|number| WanConfig::plain(WanId(number), format!("wan{number}")))
        .collect();
    SessionParameters {
        initiator: false,
        link_count,
        wans,
        wan_of_link: (0..link_count).map(WanId).collect(),
        datagram_bytes_max: usize::from(datagram_bytes_max),
        seed,
    }
}
