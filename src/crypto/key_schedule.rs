//! From one handshake to the keys of every link and direction.
//!
//! ```text
//! root        = HKDF-Extract(salt = handshake hash, ikm = both Noise split keys)
//! link secret = HKDF-Expand(root, "chainlightning v1 links", 32)
//! key | iv    = HKDF-Expand(link secret, "chainlightning v1 link" | direction u8 | link u8, 32 + 12)
//! ```
//!
//! Root and split keys are wiped at once; only the link secret stays, for links that are added later. Each link has
//! its own key, packet numbers and replay window: links of different delay never share a window, and the cipher's
//! limits count a link at a time.
//!
//! Invariant: (link, direction) gives one key for the life of an epoch, so a `LinkId` must not be derived twice for
//! sealing within one epoch: its packet numbers would start at 0 again.
//!
//! Reference: RFC 5869 with SHA-256.

use std::time::Duration;

use aws_lc_rs::hkdf;
use zeroize::Zeroizing;

use super::seal::{IV_BYTES, KEY_BYTES, OpenKey, SealKey};
use super::{Cipher, debug_name_only};
use crate::base::LinkId;

/// Age at which an epoch asks for a new one (before jitter); WireGuard's value.
pub const ROTATE_AFTER: Duration = Duration::from_secs(120);
/// Age at which an epoch is neither sealed nor opened with any more; WireGuard's value.
pub const STOP_AFTER: Duration = Duration::from_secs(180);
/// Least time for which the keys of the previous epoch are kept, for packets still under way on slow links.
pub const OVERLAP_MIN: Duration = Duration::from_secs(10);

const LABEL_LINKS: &[u8] = b"chainlightning v1 links";
const LABEL_LINK: &[u8] = b"chainlightning v1 link";

/// Which side of the handshake this host was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sent the HELLO.
    Initiator,
    /// Sent the WELCOME.
    Responder,
}

impl Role {
    /// The direction byte of what this side sends.
    const fn sends(self) -> u8 {
        match self {
            Self::Initiator => 0,
            Self::Responder => 1,
        }
    }

    /// The direction byte of what this side receives.
    const fn receives(self) -> u8 {
        1 - self.sends()
    }
}

/// What an epoch keeps of its handshake. Wiped when dropped.
pub struct EpochSecret(Zeroizing<[u8; 32]>);

impl EpochSecret {
    /// From the end of a handshake.
    pub(super) fn new(handshake_hash: &[u8; 32], split: &Zeroizing<[u8; 64]>) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, handshake_hash).extract(&**split);
        Self(expand(&root, &[LABEL_LINKS]))
    }

    /// The keys of one link: what this side seals with, and what it opens with.
    pub fn link_keys(&self, role: Role, link: LinkId, cipher: Cipher) -> (SealKey, OpenKey) {
        let (key, iv) = self.derive(role.sends(), link);
        let seal = SealKey::new(cipher, &key, *iv);
        let (key, iv) = self.derive(role.receives(), link);
        (seal, OpenKey::new(cipher, &key, *iv))
    }

    fn derive(
        &self,
        direction: u8,
        link: LinkId,
    ) -> (Zeroizing<[u8; KEY_BYTES]>, Zeroizing<[u8; IV_BYTES]>) {
        let secret = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*self.0);
        let okm: Zeroizing<[u8; KEY_BYTES + IV_BYTES]> =
            expand(&secret, &[LABEL_LINK, &[direction, link.0]]);
        let (mut key, mut iv) = (
            Zeroizing::new([0; KEY_BYTES]),
            Zeroizing::new([0; IV_BYTES]),
        );
        key.copy_from_slice(&okm[..KEY_BYTES]);
        iv.copy_from_slice(&okm[KEY_BYTES..]);
        (key, iv)
    }
}

debug_name_only!(EpochSecret);

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(prk: &hkdf::Prk, info: &[&[u8]]) -> Zeroizing<[u8; N]>
where
    [u8; N]: zeroize::Zeroize,
{
    let mut out = Zeroizing::new([0; N]);
    prk.expand(info, Length(N))
        .and_then(|okm| okm.fill(&mut *out))
        .expect("HKDF-SHA-256 gives up to 8160 bytes");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, DataHeader};

    fn secret(byte: u8) -> EpochSecret {
        EpochSecret::new(&[0x11; 32], &Zeroizing::new([byte; 64]))
    }

    fn sealed(key: &mut SealKey) -> Vec<u8> {
        let mut datagram = vec![0; DATA_OVERHEAD_BYTES + 11];
        datagram[DATA_HEADER_BYTES..][..11].copy_from_slice(b"hello links");
        key.seal(0x0403_0201, &mut datagram).unwrap();
        datagram
    }

    fn opens(key: &mut OpenKey, mut datagram: Vec<u8>) -> bool {
        let header = DataHeader::parse(&datagram).unwrap();
        key.open(&header, &mut datagram)
            .is_ok_and(|plain| plain == b"hello links")
    }

    /// The expected bytes were computed with Python's `hmac` and `cryptography` from the formulas above.
    #[test]
    fn golden_datagrams_from_a_known_handshake() {
        let golden = [
            (Role::Initiator, 3, Cipher::Aes256Gcm, GOLDEN_AES),
            (Role::Responder, 31, Cipher::ChaCha20Poly1305, GOLDEN_CHACHA),
        ];
        for (role, link, cipher, expected) in golden {
            let (mut seal, _) = secret(0x22).link_keys(role, LinkId(link), cipher);
            let _ = sealed(&mut seal); // the second packet: its number must reach the nonce
            let hex: String = sealed(&mut seal)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            assert_eq!(hex, expected, "{cipher:?}");
        }
    }

    const GOLDEN_AES: &str =
        "27c0000001020304010000008c31a83d06b24586077f5f2ad1fb250d5119a4a35418a413f79b6c";
    const GOLDEN_CHACHA: &str =
        "27c0000001020304010000001a4ebf2880787e994e462d90825200839bb9b24c15051f44b497b4";

    #[test]
    fn what_one_side_seals_only_the_other_opens_on_the_same_link_and_epoch() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            let keys = |byte, role, link| secret(byte).link_keys(role, LinkId(link), cipher);
            for (from, to) in [
                (Role::Initiator, Role::Responder),
                (Role::Responder, Role::Initiator),
            ] {
                let datagram = sealed(&mut keys(1, from, 5).0);
                assert!(opens(&mut keys(1, to, 5).1, datagram.clone()));
                assert!(
                    !opens(&mut keys(1, from, 5).1, datagram.clone()),
                    "own direction"
                );
                assert!(
                    !opens(&mut keys(1, to, 6).1, datagram.clone()),
                    "other link"
                );
                assert!(!opens(&mut keys(2, to, 5).1, datagram), "other epoch");
            }
        }
    }
}
