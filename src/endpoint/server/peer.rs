//! One client as the server knows it: its session, the session that would replace it, and its last handshake.

use super::config::PeerConfig;
use crate::base::{Instant, WanId};
use crate::crypto::Cipher;
use crate::endpoint::admission::PeerGate;
use crate::session::config::{SessionConfig, WanConfig};
use crate::session::epochs::EpochKeys;
use crate::session::{Session, SessionParameters};
use crate::wire::handshake::WELCOME_BYTES;

/// One client.
pub(super) struct Peer {
    pub(super) config: PeerConfig,
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
    pub(super) fn new(config: PeerConfig) -> Self {
        Self {
            config,
            session: None,
            waiting: None,
            boot_id: [0; 8],
            superseded: false,
            gate: PeerGate::default(),
            answered: None,
            epoch: 0,
            cipher: None,
        }
    }
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
