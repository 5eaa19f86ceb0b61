//! Sealing and opening of DATA, in place, one key a link and direction.
//!
//! ```text
//! | header 12: associated data | plaintext, becomes ciphertext | tag 16 |
//! nonce = iv xor (48 zero bits | 48-bit packet number, big-endian)
//! ```
//!
//! Invariants: a [`SealKey`] never uses a packet number twice and stops for good at its limit; an [`OpenKey`] changes
//! its window only after the tag was verified. Neither allocates.
//!
//! Limits follow the bounds for AES-GCM and ChaCha20-Poly1305 that RFC 9001 (appendix B) gives for QUIC.

use aws_lc_rs::aead;

use super::replay::Window;
use super::{Cipher, debug_name_only};
use crate::base::DropReason;
use crate::wire::header::{DATA_HEADER_BYTES, DATA_OVERHEAD_BYTES, DataHeader, TAG_BYTES};

/// Length of a key.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce.
pub const IV_BYTES: usize = 12;

/// AES-GCM's confidentiality bound depends on the number of blocks: up to this length 2^28 packets are safe, above
/// it (up to 2^14 bytes) 2^23.
const SMALL_DATAGRAM_BYTES: usize = 2048;
/// So a larger datagram costs as much of the budget as this many small ones.
const LARGE_WEIGHT: u64 = 1 << (28 - 23);
/// Small packets under one AES-256-GCM key before a new epoch is wanted, and before the key refuses.
const AES_ROTATE: u64 = 1 << 27;
const AES_STOP: u64 = 1 << 28;
/// The same for ChaCha20-Poly1305, which has no such bound: the packet number's 48 bits must not run out.
const CHACHA_ROTATE: u64 = 1 << 46;
const CHACHA_STOP: u64 = 1 << 47;
/// Forged packets against one AES-256-GCM key before a new epoch is wanted, and before the key opens nothing more.
const AES_FORGERIES_ROTATE: u64 = 1 << 40;
const AES_FORGERIES_STOP: u64 = 1 << 52;
/// The same for ChaCha20-Poly1305, whose authenticator is shorter-lived.
const CHACHA_FORGERIES_ROTATE: u64 = 1 << 34;
const CHACHA_FORGERIES_STOP: u64 = 1 << 36;

/// Seals what this host sends on one link in one epoch.
pub struct SealKey {
    key: aead::LessSafeKey,
    iv: [u8; IV_BYTES],
    cipher: Cipher,
    /// Packet number of the next datagram.
    next: u64,
    budget: Budget,
}

impl SealKey {
    pub(super) fn new(cipher: Cipher, key: &[u8; KEY_BYTES], iv: [u8; IV_BYTES]) -> Self {
        let (rotate, stop) = seal_limits(cipher);
        Self {
            key: cipher.key(key),
            iv,
            cipher,
            next: 0,
            budget: Budget::new(rotate, stop),
        }
    }

    /// Seals a whole datagram: 12 bytes for the header, the plaintext, 16 bytes for the tag. Writes the header and
    /// gives back the packet number.
    ///
    /// # Errors
    /// [`KeyExhausted`] when the key has sealed all it may; the datagram is untouched then.
    ///
    /// # Panics
    /// If the datagram is shorter than header and tag or longer than the length field can name; sizes are ours.
    pub fn seal(&mut self, receiver_index: u32, datagram: &mut [u8]) -> Result<u64, KeyExhausted> {
        let packet_number = self.begin(receiver_index, datagram)?;
        let (header, rest) = datagram.split_at_mut(DATA_HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let sealed = self.key.seal_in_place_separate_tag(
            nonce(&self.iv, packet_number),
            aead::Aad::from(&*header),
            body,
        );
        let sealed = sealed.expect("a datagram is far below the cipher's length limit");
        tag.copy_from_slice(sealed.as_ref());
        Ok(packet_number)
    }

    /// The same for a plaintext that lies elsewhere and stays as it is: `datagram` is [`DATA_OVERHEAD_BYTES`] longer,
    /// and what it holds before is of no matter.
    ///
    /// # Errors
    /// As [`SealKey::seal`].
    ///
    /// # Panics
    /// As [`SealKey::seal`], and if the lengths do not fit.
    pub fn seal_from(
        &mut self,
        receiver_index: u32,
        plaintext: &[u8],
        datagram: &mut [u8],
    ) -> Result<u64, KeyExhausted> {
        let packet_number = self.begin(receiver_index, datagram)?;
        let (header, rest) = datagram.split_at_mut(DATA_HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        let sealed = self.key.seal_out_of_place_scatter(
            nonce(&self.iv, packet_number),
            aead::Aad::from(&*header),
            plaintext,
            body,
            &[],
            tag,
        );
        sealed.expect("the lengths fit, and are far below the cipher's limit");
        Ok(packet_number)
    }

    /// Spends the key's budget on a datagram and writes its header; gives its packet number.
    fn begin(&mut self, receiver_index: u32, datagram: &mut [u8]) -> Result<u64, KeyExhausted> {
        if !self.budget.spend(weight(datagram, self.cipher)) {
            return Err(KeyExhausted);
        }
        let packet_number = self.next;
        self.next += 1;
        DataHeader {
            receiver_index,
            packet_number,
        }
        .emit(datagram);
        Ok(packet_number)
    }

    /// Packets sealed; also the next packet number.
    pub const fn packets(&self) -> u64 {
        self.next
    }

    /// Whether enough was sealed to ask for a new epoch.
    pub const fn wants_rotation(&self) -> bool {
        self.budget.wants_rotation()
    }

    /// Whether nothing may be sealed any more.
    pub const fn exhausted(&self) -> bool {
        self.budget.exhausted()
    }

    /// Lowers the limits, in packets of up to 2048 bytes, so that tests reach them. Never raises them.
    pub fn lower_limits(&mut self, rotate: u64, stop: u64) {
        self.budget.lower(rotate, stop);
    }
}

/// Opens what this host receives on one link in one epoch, each packet once.
pub struct OpenKey {
    key: aead::LessSafeKey,
    iv: [u8; IV_BYTES],
    cipher: Cipher,
    window: Window,
    forgeries: Budget,
    /// What the peer has sealed under its key, as far as it came: only the initiator can ask for new keys, so it
    /// watches both directions.
    opened: Budget,
}

impl OpenKey {
    pub(super) fn new(cipher: Cipher, key: &[u8; KEY_BYTES], iv: [u8; IV_BYTES]) -> Self {
        let (opened_rotate, opened_stop) = seal_limits(cipher);
        let (rotate, stop) = match cipher {
            Cipher::Aes256Gcm => (AES_FORGERIES_ROTATE, AES_FORGERIES_STOP),
            Cipher::ChaCha20Poly1305 => (CHACHA_FORGERIES_ROTATE, CHACHA_FORGERIES_STOP),
        };
        let forgeries = Budget::new(rotate, stop);
        Self {
            key: cipher.key(key),
            iv,
            cipher,
            window: Window::default(),
            forgeries,
            opened: Budget::new(opened_rotate, opened_stop),
        }
    }

    /// Opens a whole datagram whose header was parsed from it. The order is fixed: window, tag, window again.
    ///
    /// # Errors
    /// [`DropReason::Malformed`], [`DropReason::ReplayTooOld`], [`DropReason::ReplayDuplicate`];
    /// [`DropReason::AuthFailed`] (the datagram's content is lost then); [`DropReason::EpochExpired`] when so much
    /// was forged that the key must not be trusted any more.
    pub fn open<'a>(
        &mut self,
        header: &DataHeader,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        if datagram.len() < DATA_OVERHEAD_BYTES {
            return Err(DropReason::Malformed);
        }
        if self.forgeries.exhausted() {
            return Err(DropReason::EpochExpired);
        }
        self.window.check(header.packet_number)?;
        let weight = weight(datagram, self.cipher);
        let (associated, rest) = datagram.split_at_mut(DATA_HEADER_BYTES);
        let (body, tag) = rest.split_at_mut(rest.len() - TAG_BYTES);
        // With the tag apart, the library does not move the plaintext once more.
        let opened = self.key.open_in_place_separate_tag(
            nonce(&self.iv, header.packet_number),
            aead::Aad::from(&*associated),
            tag,
            body,
        );
        let Ok(plaintext) = opened else {
            self.forgeries.spend(1);
            return Err(DropReason::AuthFailed);
        };
        self.window.insert(header.packet_number)?;
        self.opened.spend(weight);
        Ok(plaintext)
    }

    /// Largest packet number opened; 0 before the first.
    pub const fn largest(&self) -> u64 {
        self.window.largest()
    }

    /// Datagrams whose tag was wrong.
    pub const fn forgeries(&self) -> u64 {
        self.forgeries.spent
    }

    /// Whether so much was forged, or received, that a new epoch is wanted.
    pub const fn wants_rotation(&self) -> bool {
        self.forgeries.wants_rotation() || self.opened.wants_rotation()
    }

    /// Whether so much was forged that nothing is opened any more.
    pub const fn exhausted(&self) -> bool {
        self.forgeries.exhausted()
    }

    /// Lowers the limits on forgeries, so that tests reach them. Never raises them.
    pub fn lower_limits(&mut self, rotate: u64, stop: u64) {
        self.forgeries.lower(rotate, stop);
    }
}

debug_name_only!(SealKey, OpenKey);

/// Budget of a sealing key: when to ask for a new one, and when to stop.
const fn seal_limits(cipher: Cipher) -> (u64, u64) {
    match cipher {
        Cipher::Aes256Gcm => (AES_ROTATE, AES_STOP),
        Cipher::ChaCha20Poly1305 => (CHACHA_ROTATE, CHACHA_STOP),
    }
}

/// What sealing a datagram costs of the budget.
fn weight(datagram: &[u8], cipher: Cipher) -> u64 {
    if datagram.len() > SMALL_DATAGRAM_BYTES && cipher == Cipher::Aes256Gcm {
        LARGE_WEIGHT
    } else {
        1
    }
}

/// The key has sealed all it may: a new epoch is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key has sealed as many packets as its cipher allows")]
pub struct KeyExhausted;

/// Counts up to two limits.
struct Budget {
    spent: u64,
    rotate: u64,
    stop: u64,
}

impl Budget {
    const fn new(rotate: u64, stop: u64) -> Self {
        Self {
            spent: 0,
            rotate,
            stop,
        }
    }

    /// Spends `weight` if it fits; else the budget is closed for good, also for smaller weights.
    const fn spend(&mut self, weight: u64) -> bool {
        let fits = self.spent + weight <= self.stop;
        self.spent = if fits { self.spent + weight } else { self.stop };
        fits
    }

    const fn wants_rotation(&self) -> bool {
        self.spent >= self.rotate
    }

    const fn exhausted(&self) -> bool {
        self.spent >= self.stop
    }

    fn lower(&mut self, rotate: u64, stop: u64) {
        self.rotate = self.rotate.min(rotate);
        self.stop = self.stop.min(stop);
    }
}

fn nonce(iv: &[u8; IV_BYTES], packet_number: u64) -> aead::Nonce {
    let mut nonce = *iv;
    for (byte, number) in nonce[4..].iter_mut().zip(packet_number.to_be_bytes()) {
        *byte ^= number;
    }
    aead::Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
