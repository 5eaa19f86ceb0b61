//! One handshake, one round trip: Noise_IKpsk2_25519_ChaChaPoly_SHA256 with mac1 around it.
//!
//! ```text
//!   Initiator::start ──────────── HELLO ──────────► Responder::read   (peer known, payload readable)
//!      │   ▲ open_cookie, set_cookie ◄── COOKIE ──   (admission, under load)
//!      ▼   │                                             │ is the peer allowed? which PSK?
//!   Initiator::finish ◄────────── WELCOME ───────── Responder::finish
//!      └─► Established                                   └─► Established
//! ```
//!
//! Nothing here keeps time, sends again or knows addresses. The same HELLO may go out on many links: only mac2
//! differs, and it is outside of what Noise sees. A WELCOME that does not verify leaves the [`Initiator`] as it was.
//!
//! The initiator may use the keys at once. The responder must not seal before it opened a packet under them: a
//! HELLO may be a recording, and whoever replays it does not have the keys.
//!
//! snow does not wipe its state; each half is therefore dropped as soon as its last message is done.

use zeroize::Zeroizing;

use super::key_schedule::EpochSecret;
use super::keys::{PresharedKey, PrivateKey, PublicKey};
use super::mac::{Cookie, CookieSeal, Mac1Key};
use super::noise::Resolver;
use super::{Cipher, debug_name_only};
use crate::base::DropReason;
use crate::wire::handshake::{
    CookieReply, HELLO_BYTES, Hello, HelloPayload, MAC_BYTES, PAYLOAD_BYTES, VERSION,
    WELCOME_BYTES, Welcome, WelcomePayload, emit_hello, emit_welcome, sign_hello_mac1,
    sign_hello_mac2, sign_welcome_mac1,
};

const PATTERN: &str = "Noise_IKpsk2_25519_ChaChaPoly_SHA256";
/// Bound into every key: another protocol or version cannot be made to agree with ours.
const PROLOGUE: &[u8; 15] = b"chainlightning\x01";
const _: () = assert!(PROLOGUE[14] == VERSION);
/// Stands for "no preshared key", as in WireGuard.
const NO_PSK: [u8; 32] = [0; 32];
/// Where IKpsk2 mixes the preshared key in: at the end of the second message.
const PSK_PLACE: u8 = 2;

/// The side that sent a HELLO and waits for the WELCOME.
pub struct Initiator {
    noise: Box<snow::HandshakeState>,
    local: PublicKey,
    peer: PublicKey,
    sender_index: u32,
    cipher_bits: u8,
    mac1: [u8; MAC_BYTES],
}

impl Initiator {
    /// Writes a HELLO with mac1, and mac2 zero. `sender_index` is what the answer will name.
    ///
    /// # Errors
    /// [`HandshakeError::PeerKey`] when the peer's key cannot be agreed with, [`HandshakeError::Random`].
    pub fn start(
        local: &PrivateKey,
        peer: PublicKey,
        psk: Option<&PresharedKey>,
        sender_index: u32,
        payload: &HelloPayload,
        out: &mut [u8; HELLO_BYTES],
    ) -> Result<Self, HandshakeError> {
        let mut noise = builder(local, psk_bytes(psk))?
            .remote_public_key(&peer.0)?
            .build_initiator()?;
        let room = emit_hello(out, sender_index);
        let written = noise.write_message(&payload.emit(), room)?;
        debug_assert_eq!(written, room.len());
        let mac1 = sign_hello_mac1(out, |covered| Mac1Key::new(peer).sign(covered));
        Ok(Self {
            noise: Box::new(noise),
            local: local.public(),
            peer,
            sender_index,
            cipher_bits: payload.cipher_bits,
            mac1,
        })
    }

    /// The number the answers name.
    pub const fn sender_index(&self) -> u32 {
        self.sender_index
    }

    /// Whom the HELLO is for.
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// Reads a COOKIE that answers this HELLO. The cookie is good for later HELLOs from the same address too, for
    /// two minutes at most.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], [`DropReason::UnknownIndex`] when it answers another HELLO,
    /// [`DropReason::AuthFailed`].
    pub fn open_cookie(&self, datagram: &[u8]) -> Result<Cookie, DropReason> {
        let reply = CookieReply::parse(datagram)?;
        if reply.receiver() != self.sender_index {
            return Err(DropReason::UnknownIndex);
        }
        CookieSeal::new(self.peer).open(&reply, &self.mac1)
    }

    /// Writes mac2 into a copy of the HELLO for the address that the cookie belongs to.
    pub fn set_cookie(&self, hello: &mut [u8; HELLO_BYTES], cookie: &Cookie) {
        debug_assert_eq!(
            Hello::parse(hello).map(|h| *h.mac1()),
            Ok(self.mac1),
            "another HELLO"
        );
        sign_hello_mac2(hello, |covered| cookie.mac2(covered));
    }

    /// Reads the WELCOME. On an error nothing has changed, and a better WELCOME may still come.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], [`DropReason::HandshakeVersion`], [`DropReason::UnknownIndex`] when it answers
    /// another HELLO, [`DropReason::HandshakeMac`], [`DropReason::HandshakeRefused`] when it does not decrypt (for
    /// example because the preshared keys differ) or names a cipher that was not offered.
    pub fn finish(&mut self, welcome: &[u8]) -> Result<Established, DropReason> {
        let view = Welcome::parse(welcome)?;
        if view.receiver() != self.sender_index {
            return Err(DropReason::UnknownIndex);
        }
        Mac1Key::new(self.local).verify(view.before_mac1(), view.mac1())?;
        let mut payload = [0; PAYLOAD_BYTES];
        self.noise
            .read_message(view.noise(), &mut payload)
            .map_err(|_| DropReason::HandshakeRefused)?;
        let payload = WelcomePayload::parse(&payload)?;
        let cipher = Cipher::from_code(payload.cipher).ok_or(DropReason::HandshakeRefused)?;
        if cipher.bits() & !(self.cipher_bits | Cipher::ChaCha20Poly1305.bits()) != 0 {
            return Err(DropReason::HandshakeRefused);
        }
        Ok(Established::new(
            &mut self.noise,
            self.peer,
            cipher,
            payload,
        ))
    }
}

/// The side that read a HELLO and may answer it.
pub struct Responder {
    noise: Box<snow::HandshakeState>,
    peer: PublicKey,
    receiver: u32,
    payload: HelloPayload,
}

impl Responder {
    /// Checks mac1 and opens a HELLO: two key agreements, so admission comes first. Keeps nothing on an error.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], [`DropReason::HandshakeVersion`], [`DropReason::HandshakeMac`],
    /// [`DropReason::HandshakeRefused`] when it does not decrypt, [`DropReason::BadFrame`] for a payload out of range.
    pub fn read(local: &PrivateKey, hello: &[u8]) -> Result<Self, DropReason> {
        let view = Hello::parse(hello)?;
        Mac1Key::new(local.public()).verify(view.before_mac1(), view.mac1())?;
        let refused = |_| DropReason::HandshakeRefused;
        // The right preshared key is known only once the peer is; Noise does not need it before the WELCOME.
        let mut noise = builder(local, &NO_PSK)
            .and_then(snow::Builder::build_responder)
            .map_err(refused)?;
        let mut payload = [0; PAYLOAD_BYTES];
        noise
            .read_message(view.noise(), &mut payload)
            .map_err(refused)?;
        let peer = noise.get_remote_static().and_then(<[u8]>::first_chunk);
        Ok(Self {
            peer: PublicKey(*peer.ok_or(DropReason::HandshakeRefused)?),
            receiver: view.sender(),
            payload: HelloPayload::parse(&payload)?,
            noise: Box::new(noise),
        })
    }

    /// Who sent the HELLO. It may be a recording: see the stamp, and the head of this file.
    pub const fn peer(&self) -> PublicKey {
        self.peer
    }

    /// What the HELLO says.
    pub const fn payload(&self) -> &HelloPayload {
        &self.payload
    }

    /// The initiator's number of this handshake.
    pub const fn sender_index(&self) -> u32 {
        self.receiver
    }

    /// Writes the WELCOME. `sender_index` is this side's number of the handshake.
    ///
    /// # Errors
    /// [`HandshakeError::Cipher`] when `payload` names no cipher, [`HandshakeError::PeerKey`],
    /// [`HandshakeError::Random`].
    pub fn finish(
        mut self,
        psk: Option<&PresharedKey>,
        sender_index: u32,
        payload: &WelcomePayload,
        out: &mut [u8; WELCOME_BYTES],
    ) -> Result<Established, HandshakeError> {
        let cipher =
            Cipher::from_code(payload.cipher).ok_or(HandshakeError::Cipher(payload.cipher))?;
        self.noise.set_psk(usize::from(PSK_PLACE), psk_bytes(psk))?;
        let room = emit_welcome(out, sender_index, self.receiver);
        let written = self.noise.write_message(&payload.emit(), room)?;
        debug_assert_eq!(written, room.len());
        sign_welcome_mac1(out, |covered| Mac1Key::new(self.peer).sign(covered));
        Ok(Established::new(
            &mut self.noise,
            self.peer,
            cipher,
            *payload,
        ))
    }
}

/// The end of a handshake, the same on both sides.
pub struct Established {
    /// Gives the keys of every link.
    pub secret: EpochSecret,
    /// The other side.
    pub peer: PublicKey,
    /// The cipher of the epoch.
    pub cipher: Cipher,
    /// What the WELCOME says: received by the initiator, sent by the responder.
    pub payload: WelcomePayload,
    /// Names this handshake and nothing else; not secret.
    pub handshake_hash: [u8; 32],
}

impl Established {
    fn new(
        noise: &mut snow::HandshakeState,
        peer: PublicKey,
        cipher: Cipher,
        payload: WelcomePayload,
    ) -> Self {
        let mut handshake_hash = [0; 32];
        handshake_hash.copy_from_slice(noise.get_handshake_hash());
        let mut split = Zeroizing::new([0; 64]);
        let keys = Zeroizing::new(noise.dangerously_get_raw_split());
        split[..32].copy_from_slice(&keys.0);
        split[32..].copy_from_slice(&keys.1);
        let secret = EpochSecret::new(&handshake_hash, &split);
        Self {
            secret,
            peer,
            cipher,
            payload,
            handshake_hash,
        }
    }
}

debug_name_only!(Initiator, Responder, Established);

/// Why this side could not write its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// X25519 with the peer's key gives no secret: the key is one of the few of low order.
    #[error("the peer's public key is unusable (low order); check it")]
    PeerKey,
    /// The system gave no random bytes.
    #[error("the system's random generator failed")]
    Random,
    /// The WELCOME would name a cipher that does not exist.
    #[error("there is no cipher number {0}")]
    Cipher(u8),
    /// The state machine refused a call that is right by construction.
    #[error("the handshake's state machine refused")]
    State,
}

impl From<snow::Error> for HandshakeError {
    fn from(error: snow::Error) -> Self {
        match error {
            snow::Error::Dh => Self::PeerKey,
            snow::Error::Rng => Self::Random,
            _ => Self::State,
        }
    }
}

/// The preshared key, or the zeros that stand for none.
fn psk_bytes(psk: Option<&PresharedKey>) -> &[u8; 32] {
    psk.map_or(&NO_PSK, PresharedKey::expose)
}

fn builder<'a>(local: &'a PrivateKey, psk: &'a [u8; 32]) -> Result<snow::Builder<'a>, snow::Error> {
    snow::Builder::with_resolver(PATTERN.parse()?, Box::new(Resolver))
        .prologue(PROLOGUE)?
        .local_private_key(local.expose())?
        .psk(PSK_PLACE, psk)
}

#[cfg(test)]
mod tests;
