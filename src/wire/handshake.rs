//! HELLO, WELCOME and COOKIE: the three datagrams of the handshake.
//!
//! This file knows places and ranges. It never decrypts, never checks a MAC and keeps no state.
//!
//! ```text
//! HELLO    392: start u16 | version u8 | zero u8 | sender u32 |
//!               e 32 | sealed static 32+16 | sealed payload 256+16 | mac1 16 | mac2 16
//! WELCOME  348: start u16 | version u8 | zero u8 | sender u32 | receiver u32 |
//!               e 32 | sealed payload 256+16 | mac1 16 | mac2 16 (always zero)
//! COOKIE    52: start u16 | zero u16 | receiver u32 | nonce 12 | sealed cookie 16+16
//! ```
//!
//! Invariants: every size is constant, and HELLO > WELCOME > COOKIE, so that an answer is never longer than the
//! question it answers: nobody can use us to amplify traffic. The start word is that of `wire::header`.

mod payload;

pub use payload::{HelloPayload, WelcomePayload};

use super::header::{Kind, TAG_BYTES, emit_start};
use crate::base::DropReason;

/// Version of the whole protocol, named in HELLO and WELCOME and bound into the keys. Another one is not answered.
pub const VERSION: u8 = 1;
/// Length of a HELLO.
pub const HELLO_BYTES: usize = 392;
/// Length of a WELCOME.
pub const WELCOME_BYTES: usize = 348;
/// Length of a COOKIE.
pub const COOKIE_BYTES: usize = 52;
/// Length of the payload inside HELLO and WELCOME: room for 32 indexes and as much again for later fields.
pub const PAYLOAD_BYTES: usize = 256;
/// Length of mac1, of mac2 and of a cookie.
pub const MAC_BYTES: usize = 16;
/// Length of the nonce in a COOKIE.
pub const COOKIE_NONCE_BYTES: usize = 12;
/// Length of an X25519 public key.
const KEY_BYTES: usize = 32;

const HELLO_NOISE: usize = 8;
const HELLO_MAC1: usize =
    HELLO_NOISE + KEY_BYTES + (KEY_BYTES + TAG_BYTES) + (PAYLOAD_BYTES + TAG_BYTES);
const HELLO_MAC2: usize = HELLO_MAC1 + MAC_BYTES;
const WELCOME_NOISE: usize = 12;
const WELCOME_MAC1: usize = WELCOME_NOISE + KEY_BYTES + (PAYLOAD_BYTES + TAG_BYTES);
const WELCOME_MAC2: usize = WELCOME_MAC1 + MAC_BYTES;
const COOKIE_NONCE: usize = 8;
const COOKIE_SEALED: usize = COOKIE_NONCE + COOKIE_NONCE_BYTES;

const _: () = assert!(HELLO_MAC2 + MAC_BYTES == HELLO_BYTES);
const _: () = assert!(WELCOME_MAC2 + MAC_BYTES == WELCOME_BYTES);
const _: () = assert!(COOKIE_SEALED + MAC_BYTES + TAG_BYTES == COOKIE_BYTES);
const _: () = assert!(HELLO_BYTES > WELCOME_BYTES && WELCOME_BYTES > COOKIE_BYTES);

/// A HELLO whose fixed parts were checked; keys and MACs were not.
#[derive(Clone, Copy, Debug)]
pub struct Hello<'a>(&'a [u8; HELLO_BYTES]);

impl<'a> Hello<'a> {
    /// Checks length, kind, version and the zero byte.
    ///
    /// # Errors
    /// [`DropReason::HandshakeVersion`] for another version, [`DropReason::Malformed`] for all else.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let bytes = exactly(datagram, Kind::Hello)?;
        check_version(bytes[2], bytes[3])?;
        Ok(Self(bytes))
    }

    /// The number by which the sender finds this handshake again; comes back as the receiver of the answer.
    pub fn sender(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// The initiator's ephemeral public key.
    pub fn ephemeral(&self) -> &'a [u8; KEY_BYTES] {
        array_at(self.0, HELLO_NOISE)
    }

    /// The Noise message: ephemeral key, sealed static key, sealed payload.
    pub fn noise(&self) -> &'a [u8] {
        &self.0[HELLO_NOISE..HELLO_MAC1]
    }

    /// Proof that the sender knows our public key.
    pub fn mac1(&self) -> &'a [u8; MAC_BYTES] {
        array_at(self.0, HELLO_MAC1)
    }

    /// What mac1 covers.
    pub fn before_mac1(&self) -> &'a [u8] {
        &self.0[..HELLO_MAC1]
    }

    /// Proof that the sender receives at its address; all zero when it has no cookie.
    pub fn mac2(&self) -> &'a [u8; MAC_BYTES] {
        array_at(self.0, HELLO_MAC2)
    }

    /// What mac2 covers.
    pub fn before_mac2(&self) -> &'a [u8] {
        &self.0[..HELLO_MAC2]
    }
}

/// Writes the fixed parts of a HELLO; mac1 and mac2 become zero. Gives back the room for the Noise message.
pub fn emit_hello(out: &mut [u8; HELLO_BYTES], sender: u32) -> &mut [u8] {
    out.fill(0);
    emit_start(out, Kind::Hello);
    out[2] = VERSION;
    out[4..8].copy_from_slice(&sender.to_le_bytes());
    &mut out[HELLO_NOISE..HELLO_MAC1]
}

/// Writes mac1 of a HELLO, as `mac` makes it from the bytes it covers.
pub fn sign_hello_mac1(
    hello: &mut [u8; HELLO_BYTES],
    mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
) -> [u8; MAC_BYTES] {
    let mac1 = mac(&hello[..HELLO_MAC1]);
    hello[HELLO_MAC1..HELLO_MAC2].copy_from_slice(&mac1);
    mac1
}

/// Writes mac2 of a HELLO, as `mac` makes it from the bytes it covers.
pub fn sign_hello_mac2(hello: &mut [u8; HELLO_BYTES], mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES]) {
    let mac2 = mac(&hello[..HELLO_MAC2]);
    hello[HELLO_MAC2..].copy_from_slice(&mac2);
}

/// A WELCOME whose fixed parts were checked; keys and mac1 were not.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a>(&'a [u8; WELCOME_BYTES]);

impl<'a> Welcome<'a> {
    /// Checks length, kind, version, the zero byte and that mac2 is zero.
    ///
    /// # Errors
    /// [`DropReason::HandshakeVersion`] for another version, [`DropReason::Malformed`] for all else.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let bytes = exactly(datagram, Kind::Welcome)?;
        check_version(bytes[2], bytes[3])?;
        if bytes[WELCOME_MAC2..] != [0; MAC_BYTES] {
            return Err(DropReason::Malformed);
        }
        Ok(Self(bytes))
    }

    /// The responder's number of this handshake.
    pub fn sender(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// The sender number of the HELLO that is answered.
    pub fn receiver(&self) -> u32 {
        u32_at(self.0, 8)
    }

    /// The Noise message: ephemeral key and sealed payload.
    pub fn noise(&self) -> &'a [u8] {
        &self.0[WELCOME_NOISE..WELCOME_MAC1]
    }

    /// Proof that the sender knows the initiator's public key.
    pub fn mac1(&self) -> &'a [u8; MAC_BYTES] {
        array_at(self.0, WELCOME_MAC1)
    }

    /// What mac1 covers.
    pub fn before_mac1(&self) -> &'a [u8] {
        &self.0[..WELCOME_MAC1]
    }
}

/// Writes the fixed parts of a WELCOME; mac1 and mac2 become zero. Gives back the room for the Noise message.
pub fn emit_welcome(out: &mut [u8; WELCOME_BYTES], sender: u32, receiver: u32) -> &mut [u8] {
    out.fill(0);
    emit_start(out, Kind::Welcome);
    out[2] = VERSION;
    out[4..8].copy_from_slice(&sender.to_le_bytes());
    out[8..12].copy_from_slice(&receiver.to_le_bytes());
    &mut out[WELCOME_NOISE..WELCOME_MAC1]
}

/// Writes mac1 of a WELCOME, as `mac` makes it from the bytes it covers.
pub fn sign_welcome_mac1(
    welcome: &mut [u8; WELCOME_BYTES],
    mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
) {
    let mac1 = mac(&welcome[..WELCOME_MAC1]);
    welcome[WELCOME_MAC1..WELCOME_MAC2].copy_from_slice(&mac1);
}

/// A COOKIE whose fixed parts were checked; its seal was not.
#[derive(Clone, Copy, Debug)]
pub struct CookieReply<'a>(&'a [u8; COOKIE_BYTES]);

impl<'a> CookieReply<'a> {
    /// Checks length, kind and the zero bytes.
    ///
    /// # Errors
    /// [`DropReason::Malformed`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DropReason> {
        let bytes = exactly(datagram, Kind::Cookie)?;
        if bytes[2..4] != [0; 2] {
            return Err(DropReason::Malformed);
        }
        Ok(Self(bytes))
    }

    /// The sender number of the HELLO that is answered.
    pub fn receiver(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// The nonce of the seal.
    pub fn nonce(&self) -> &'a [u8; COOKIE_NONCE_BYTES] {
        array_at(self.0, COOKIE_NONCE)
    }

    /// Cookie and tag.
    pub fn sealed(&self) -> &'a [u8; MAC_BYTES + TAG_BYTES] {
        array_at(self.0, COOKIE_SEALED)
    }
}

/// Writes a COOKIE.
pub fn emit_cookie(
    receiver: u32,
    nonce: &[u8; COOKIE_NONCE_BYTES],
    sealed: &[u8; MAC_BYTES + TAG_BYTES],
) -> [u8; COOKIE_BYTES] {
    let mut out = [0; COOKIE_BYTES];
    emit_start(&mut out, Kind::Cookie);
    out[4..8].copy_from_slice(&receiver.to_le_bytes());
    out[COOKIE_NONCE..COOKIE_SEALED].copy_from_slice(nonce);
    out[COOKIE_SEALED..].copy_from_slice(sealed);
    out
}

/// The datagram as an array if it has exactly the length and the start word of `kind`.
fn exactly<const N: usize>(datagram: &[u8], kind: Kind) -> Result<&[u8; N], DropReason> {
    let bytes: &[u8; N] = datagram.try_into().map_err(|_| DropReason::Malformed)?;
    let mut start = [0; N];
    emit_start(&mut start, kind);
    if bytes[..2] == start[..2] {
        Ok(bytes)
    } else {
        Err(DropReason::Malformed)
    }
}

const fn check_version(version: u8, zero: u8) -> Result<(), DropReason> {
    match (version, zero) {
        (VERSION, 0) => Ok(()),
        (VERSION, _) => Err(DropReason::Malformed),
        _ => Err(DropReason::HandshakeVersion),
    }
}

/// `N` bytes from `at` on; offsets are constants of this file, inside the fixed sizes.
fn array_at<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    bytes[at..]
        .first_chunk()
        .expect("an offset of this file lies inside its datagram")
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hello_both_ways() {
        let mut hello = [0xee; HELLO_BYTES];
        emit_hello(&mut hello, 0x0403_0201).fill(7);
        sign_hello_mac1(&mut hello, |covered| {
            [u8::try_from(covered.len() - 352).unwrap(); 16]
        });
        sign_hello_mac2(&mut hello, |covered| {
            [u8::try_from(covered.len() - 367).unwrap(); 16]
        });
        // 392 = 0x188, kind 0.
        let mut golden = vec![0x88, 0x01, 1, 0, 1, 2, 3, 4];
        golden.resize(360, 7);
        golden.resize(376, 8);
        golden.resize(392, 9);
        assert_eq!(hello[..], golden);
        let view = Hello::parse(&golden).unwrap();
        assert_eq!(view.sender(), 0x0403_0201);
        assert_eq!((view.ephemeral(), view.noise()), (&[7; 32], &[7; 352][..]));
        assert_eq!((view.mac1(), view.mac2()), (&[8; 16], &[9; 16]));
        assert_eq!(
            (view.before_mac1(), view.before_mac2()),
            (&golden[..360], &golden[..376])
        );
    }

    #[test]
    fn golden_welcome_both_ways() {
        let mut welcome = [0xee; WELCOME_BYTES];
        emit_welcome(&mut welcome, 0x0403_0201, 0x0807_0605).fill(7);
        sign_welcome_mac1(&mut welcome, |covered| {
            [u8::try_from(covered.len() - 308).unwrap(); 16]
        });
        // 348 = 0x15c, kind 1 in the two high bits.
        let mut golden = vec![0x5c, 0x41, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8];
        golden.resize(316, 7);
        golden.resize(332, 8);
        golden.resize(348, 0);
        assert_eq!(welcome[..], golden);
        let view = Welcome::parse(&golden).unwrap();
        assert_eq!((view.sender(), view.receiver()), (0x0403_0201, 0x0807_0605));
        assert_eq!((view.noise(), view.mac1()), (&[7; 304][..], &[8; 16]));
        assert_eq!(view.before_mac1(), &golden[..316]);
    }

    #[test]
    fn golden_cookie_both_ways() {
        let cookie = emit_cookie(0x0403_0201, &[7; 12], &[8; 32]);
        // 52 = 0x34, kind 2 in the two high bits.
        let mut golden = vec![0x34, 0x80, 0, 0, 1, 2, 3, 4];
        golden.resize(20, 7);
        golden.resize(52, 8);
        assert_eq!(cookie[..], golden);
        let view = CookieReply::parse(&golden).unwrap();
        assert_eq!(
            (view.receiver(), view.nonce(), view.sealed()),
            (0x0403_0201, &[7; 12], &[8; 32])
        );
    }

    #[test]
    fn any_other_length_kind_version_or_filler_is_refused() {
        let mut hello = [0; HELLO_BYTES + 64];
        let mut welcome = [0; WELCOME_BYTES + 64];
        let mut cookie = [0; COOKIE_BYTES + 64];
        emit_hello((&mut hello[..HELLO_BYTES]).try_into().unwrap(), 1);
        emit_welcome((&mut welcome[..WELCOME_BYTES]).try_into().unwrap(), 1, 2);
        cookie[..COOKIE_BYTES].copy_from_slice(&emit_cookie(1, &[2; 12], &[3; 32]));
        for length in 0..=HELLO_BYTES + 64 {
            assert_eq!(
                Hello::parse(&hello[..length]).is_ok(),
                length == HELLO_BYTES
            );
            if length <= welcome.len() {
                assert_eq!(
                    Welcome::parse(&welcome[..length]).is_ok(),
                    length == WELCOME_BYTES
                );
            }
            if length <= cookie.len() {
                assert_eq!(
                    CookieReply::parse(&cookie[..length]).is_ok(),
                    length == COOKIE_BYTES
                );
            }
        }
        for bit in 0..32 {
            let flip = |bytes: &[u8]| {
                let mut bytes = bytes.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                bytes
            };
            let expected = if bit / 8 == 2 {
                DropReason::HandshakeVersion
            } else {
                DropReason::Malformed
            };
            assert_eq!(
                Hello::parse(&flip(&hello[..HELLO_BYTES])).err(),
                Some(expected)
            );
            assert_eq!(
                Welcome::parse(&flip(&welcome[..WELCOME_BYTES])).err(),
                Some(expected)
            );
            let dropped = CookieReply::parse(&flip(&cookie[..COOKIE_BYTES])).err();
            assert_eq!(dropped, Some(DropReason::Malformed));
        }
    }
}
