//! Which cipher seals the data: the one that is fast on both hosts.
//!
//! The handshake always uses ChaCha20-Poly1305. For data, AES-256-GCM is chosen when both hosts have AES
//! instructions; without them AES is slow and its timing depends on the key, so ChaCha20-Poly1305 is taken.

use aws_lc_rs::aead;

/// A data cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM (NIST SP 800-38D).
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305,
}

/// Bit of a host that can do ChaCha20-Poly1305: every host.
const CHACHA_BIT: u8 = 1;
/// Bit of a host whose CPU has AES and carry-less multiplication.
const AES_BIT: u8 = 2;

impl Cipher {
    /// The name in configuration and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    /// What this host offers in a HELLO.
    pub fn local_bits() -> u8 {
        if cpu_has_aes() {
            CHACHA_BIT | AES_BIT
        } else {
            CHACHA_BIT
        }
    }

    /// The bits of a host that offers this cipher (and ChaCha20-Poly1305, which is never missing).
    pub const fn bits(self) -> u8 {
        match self {
            Self::Aes256Gcm => CHACHA_BIT | AES_BIT,
            Self::ChaCha20Poly1305 => CHACHA_BIT,
        }
    }

    /// The best cipher of two hosts.
    pub const fn choose(a: u8, b: u8) -> Self {
        if a & b & AES_BIT != 0 {
            Self::Aes256Gcm
        } else {
            Self::ChaCha20Poly1305
        }
    }

    /// The number in a WELCOME.
    pub const fn code(self) -> u8 {
        match self {
            Self::ChaCha20Poly1305 => 0,
            Self::Aes256Gcm => 1,
        }
    }

    /// The cipher of a number in a WELCOME, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::ChaCha20Poly1305),
            1 => Some(Self::Aes256Gcm),
            _ => None,
        }
    }

    /// The key schedule inside of the crypto library; its memory is wiped there when it is freed.
    pub(super) fn key(self, bytes: &[u8; 32]) -> aead::LessSafeKey {
        let algorithm = match self {
            Self::Aes256Gcm => &aead::AES_256_GCM,
            Self::ChaCha20Poly1305 => &aead::CHACHA20_POLY1305,
        };
        let key = aead::UnboundKey::new(algorithm, bytes);
        aead::LessSafeKey::new(key.expect("both ciphers take keys of 32 bytes"))
    }
}

#[cfg(target_arch = "x86_64")]
fn cpu_has_aes() -> bool {
    std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
}

#[cfg(target_arch = "aarch64")]
fn cpu_has_aes() -> bool {
    std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const fn cpu_has_aes() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aes_is_taken_only_when_both_have_it() {
        for (a, b, best) in [
            (3, 3, Cipher::Aes256Gcm),
            (3, 1, Cipher::ChaCha20Poly1305),
            (1, 3, Cipher::ChaCha20Poly1305),
            (1, 1, Cipher::ChaCha20Poly1305),
            (0, 0xff, Cipher::ChaCha20Poly1305),
        ] {
            assert_eq!(Cipher::choose(a, b), best, "{a} {b}");
        }
        assert_eq!(Cipher::local_bits() & CHACHA_BIT, CHACHA_BIT);
    }

    #[test]
    fn codes_survive_the_wire_and_unknown_ones_are_not_guessed() {
        for cipher in [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305] {
            assert_eq!(Cipher::from_code(cipher.code()), Some(cipher));
        }
        assert_eq!(Cipher::from_code(2), None);
    }
}
