//! What protects a handshake before any key agreement: mac1, mac2 and cookies.
//!
//! * mac1 proves that the sender knows our public key; without it we are silent.
//! * A cookie is a MAC over the sender's address under a secret that lives two minutes. It travels sealed under our
//!   public key and bound to mac1 of the HELLO, so that only someone who sees that HELLO can read it.
//! * mac2 is a MAC under the cookie: proof that the sender receives at its address.
//!
//! The construction is WireGuard's (section 5.4.4 and 5.4.7 of its paper) with HMAC-SHA-256, cut to 16 bytes, and
//! AES-256-GCM-SIV, which does not break when a nonce comes twice.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{aead, constant_time, digest, hmac};
use zeroize::Zeroizing;

use super::debug_name_only;
use super::keys::PublicKey;
use crate::base::DropReason;
use crate::wire::handshake::{
    COOKIE_BYTES, COOKIE_NONCE_BYTES, CookieReply, MAC_BYTES, emit_cookie,
};
use crate::wire::header::TAG_BYTES;

const LABEL_MAC1: &[u8] = b"chainlightning v1 mac1";
const LABEL_COOKIE: &[u8] = b"chainlightning v1 cookie";

/// Key of mac1 towards the owner of one public key.
pub struct Mac1Key(hmac::Key);

impl Mac1Key {
    /// The key for datagrams that `receiver` reads.
    pub fn new(receiver: PublicKey) -> Self {
        Self(hmac::Key::new(
            hmac::HMAC_SHA256,
            labelled(LABEL_MAC1, receiver).as_ref(),
        ))
    }

    /// mac1 over `covered`.
    pub fn sign(&self, covered: &[u8]) -> [u8; MAC_BYTES] {
        short_mac(&self.0, covered)
    }

    /// Compares in constant time.
    ///
    /// # Errors
    /// [`DropReason::HandshakeMac`].
    pub fn verify(&self, covered: &[u8], mac1: &[u8; MAC_BYTES]) -> Result<(), DropReason> {
        if equal(&self.sign(covered), mac1) {
            Ok(())
        } else {
            Err(DropReason::HandshakeMac)
        }
    }
}

/// Proof of an address, as the initiator keeps it. Good for the address it was sent from, for two minutes at most.
#[derive(Clone, Copy)]
pub struct Cookie([u8; MAC_BYTES]);

impl Cookie {
    /// mac2 over `covered`.
    pub fn mac2(&self, covered: &[u8]) -> [u8; MAC_BYTES] {
        short_mac(&hmac::Key::new(hmac::HMAC_SHA256, &self.0), covered)
    }

    /// Whether `mac2` is this cookie's; constant time.
    pub fn verify(&self, covered: &[u8], mac2: &[u8; MAC_BYTES]) -> bool {
        equal(&self.mac2(covered), mac2)
    }
}

/// Secret from which the responder makes cookies, so that it need not remember them.
pub struct CookieSecret(KeyedHash);

impl CookieSecret {
    /// The secret number `period` of a responder that was started with `seed`.
    pub fn new(seed: &[u8; 32], period: u64) -> Self {
        let mut label = *b"cookie secret ........";
        label[14..].copy_from_slice(&period.to_le_bytes());
        Self(KeyedHash::new(seed, &label))
    }

    /// The cookie of one address and port. IPv4 in IPv6 clothes is the same address.
    pub fn cookie(&self, from: SocketAddr) -> Cookie {
        let address = match from.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let mut input = [0; 18];
        input[..16].copy_from_slice(&address.octets());
        input[16..].copy_from_slice(&from.port().to_le_bytes());
        Cookie(self.0.hash(&input))
    }
}

/// Seals and opens the COOKIE datagrams of the owner of one public key.
pub struct CookieSeal(aead::LessSafeKey);

impl CookieSeal {
    /// The seal of `responder`.
    pub fn new(responder: PublicKey) -> Self {
        let key = labelled(LABEL_COOKIE, responder);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM_SIV, key.as_ref());
        Self(aead::LessSafeKey::new(
            key.expect("a SHA-256 value has the length of the key"),
        ))
    }

    /// The COOKIE datagram that answers a HELLO with `mac1` and the sender number `receiver`.
    pub fn seal(
        &self,
        receiver: u32,
        nonce: [u8; COOKIE_NONCE_BYTES],
        mac1: &[u8; MAC_BYTES],
        cookie: &Cookie,
    ) -> [u8; COOKIE_BYTES] {
        let mut sealed = [0; MAC_BYTES + TAG_BYTES];
        sealed[..MAC_BYTES].copy_from_slice(&cookie.0);
        let tag = self.0.seal_in_place_separate_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(mac1),
            &mut sealed[..MAC_BYTES],
        );
        let tag = tag.expect("16 bytes are far below the cipher's limit");
        sealed[MAC_BYTES..].copy_from_slice(tag.as_ref());
        emit_cookie(receiver, &nonce, &sealed)
    }

    /// The cookie inside an answer to our HELLO with `mac1`.
    ///
    /// # Errors
    /// [`DropReason::AuthFailed`].
    pub fn open(
        &self,
        reply: &CookieReply<'_>,
        mac1: &[u8; MAC_BYTES],
    ) -> Result<Cookie, DropReason> {
        let nonce = aead::Nonce::assume_unique_for_key(*reply.nonce());
        let mut bytes = *reply.sealed();
        self.0
            .open_in_place(nonce, aead::Aad::from(mac1), &mut bytes)
            .ok()
            .and_then(|cookie| cookie.first_chunk())
            .map(|cookie| Cookie(*cookie))
            .ok_or(DropReason::AuthFailed)
    }
}

/// A hash that only this process can compute: for its own tables, nonces and secrets.
pub struct KeyedHash(hmac::Key);

impl KeyedHash {
    /// The hash named `label` of a process that was started with the random `seed`.
    pub fn new(seed: &[u8; 32], label: &[u8]) -> Self {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let key = Zeroizing::new(short_mac::<32>(&seed, label));
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*key))
    }

    /// `N` bytes, at most 32.
    pub fn hash<const N: usize>(&self, data: &[u8]) -> [u8; N] {
        short_mac(&self.0, data)
    }
}

/// Numbers that nobody can guess from earlier ones: receiver indexes, challenges, seeds. Same seed, same numbers.
pub struct SecretNumbers {
    hash: KeyedHash,
    drawn: u64,
}

impl SecretNumbers {
    /// The row named `label` of a process that was started with the random `seed`.
    pub fn new(seed: &[u8; 32], label: &[u8]) -> Self {
        Self {
            hash: KeyedHash::new(seed, label),
            drawn: 0,
        }
    }

    /// The same from a short seed: as hard to guess as that, however many numbers are known.
    pub fn from_number(seed: u64, label: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self::new(&bytes, label)
    }

    /// The next 8 bytes.
    pub fn next_bytes(&mut self) -> [u8; 8] {
        self.drawn += 1;
        self.hash.hash(&self.drawn.to_le_bytes())
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next_bytes())
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.next_bytes();
        u32::from_le_bytes([a, b, c, d])
    }
}

debug_name_only!(
    Mac1Key,
    Cookie,
    CookieSecret,
    CookieSeal,
    KeyedHash,
    SecretNumbers
);

/// The first `N` bytes, at most 32, of HMAC-SHA-256.
fn short_mac<const N: usize>(key: &hmac::Key, data: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let tag = hmac::sign(key, data);
    *tag.as_ref().first_chunk().expect("the MAC has 32 bytes")
}

fn labelled(label: &[u8], key: PublicKey) -> digest::Digest {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(label);
    context.update(&key.0);
    context.finish()
}

fn equal(a: &[u8; MAC_BYTES], b: &[u8; MAC_BYTES]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVER: PublicKey = PublicKey([0x42; 32]);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn cookie(period: u64, from: &str) -> Cookie {
        CookieSecret::new(&[7; 32], period).cookie(from.parse().unwrap())
    }

    /// The expected bytes were computed with Python's `hmac` and `cryptography` from the construction above.
    #[test]
    fn golden_macs_and_cookie() {
        let mac1 = Mac1Key::new(RECEIVER).sign(b"covered");
        assert_eq!(hex(&mac1), "8bba9395dc1b21c01006c859e6d0ce72");
        let cookie = cookie(9, "192.0.2.1:51820");
        assert_eq!(
            hex(&cookie.mac2(b"covered")),
            "de95d9a0ae3f594c6bab870db1ea0b8b"
        );
        let reply = CookieSeal::new(RECEIVER).seal(0x0403_0201, [1; 12], &[2; 16], &cookie);
        assert_eq!(
            hex(&reply[20..]),
            "044d9c5b97ab19cd6e0546ae5a5f21e149f226feb277f97c11be3c53c56344b4"
        );
    }

    #[test]
    fn a_cookie_belongs_to_one_address_port_and_period() {
        let mac2 = cookie(1, "192.0.2.1:1000").mac2(b"covered");
        assert!(cookie(1, "192.0.2.1:1000").verify(b"covered", &mac2));
        assert!(cookie(1, "[::ffff:192.0.2.1]:1000").verify(b"covered", &mac2));
        assert!(!cookie(1, "192.0.2.1:1001").verify(b"covered", &mac2));
        assert!(!cookie(1, "192.0.2.2:1000").verify(b"covered", &mac2));
        assert!(!cookie(2, "192.0.2.1:1000").verify(b"covered", &mac2));
        assert!(!cookie(1, "192.0.2.1:1000").verify(b"Covered", &mac2));
    }

    #[test]
    fn every_flipped_bit_of_a_cookie_reply_is_refused() {
        let (seal, mac1) = (CookieSeal::new(RECEIVER), [2; 16]);
        let cookie = cookie(1, "192.0.2.1:1000");
        let reply = seal.seal(7, [1; 12], &mac1, &cookie);
        let open = |reply: &[u8], mac1: &[u8; 16]| {
            let reply = CookieReply::parse(reply)?;
            if reply.receiver() == 7 {
                seal.open(&reply, mac1)
            } else {
                Err(DropReason::UnknownIndex)
            }
        };
        assert_eq!(open(&reply, &mac1).unwrap().0, cookie.0);
        for bit in 0..COOKIE_BYTES * 8 {
            let mut forged = reply;
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&forged, &mac1).is_err(), "bit {bit}");
        }
        // Bound to one HELLO and to one responder.
        assert_eq!(open(&reply, &[3; 16]).err(), Some(DropReason::AuthFailed));
        let other = CookieSeal::new(PublicKey([0x43; 32]));
        let reply = CookieReply::parse(&reply).unwrap();
        assert_eq!(
            other.open(&reply, &mac1).err(),
            Some(DropReason::AuthFailed)
        );
    }
}
