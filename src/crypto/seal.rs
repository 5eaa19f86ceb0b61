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
mod tests {
    use super::*;
    use crate::base::Rng;

    const CIPHERS: [Cipher; 2] = [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305];
    const INDEX: u32 = 0xdead_beef;

    fn pair(cipher: Cipher) -> (SealKey, OpenKey) {
        (
            SealKey::new(cipher, &[3; 32], [5; 12]),
            OpenKey::new(cipher, &[3; 32], [5; 12]),
        )
    }

    fn sealed(key: &mut SealKey, plaintext: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xaa; DATA_HEADER_BYTES];
        datagram.extend(plaintext);
        datagram.extend([0xbb; TAG_BYTES]);
        key.seal(INDEX, &mut datagram).unwrap();
        datagram
    }

    fn open<'a>(key: &mut OpenKey, datagram: &'a mut [u8]) -> Result<&'a mut [u8], DropReason> {
        let header = DataHeader::parse(datagram)?;
        key.open(&header, datagram)
    }

    /// RFC 8439, section 2.8.2, and test case 16 of the GCM specification (McGrew and Viega).
    #[test]
    fn known_answers_of_both_ciphers() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = (0..hex.len()).step_by(2);
            digits
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
                .collect()
        };
        let rfc8439 = (
            Cipher::ChaCha20Poly1305,
            "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            "070000004041424344454647",
            "50515253c0c1c2c3c4c5c6c7",
            "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a\
             204966204920636f756c64206f6666657220796f75206f6e6c79206f6e652074697020666f72207468\
             65206675747572652c2073756e73637265656e20776f756c642062652069742e",
            "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282\
             fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab3\
             24e4fad675945585808b4831d7bc3ff4def08e4b7a9de576d26586cec64b6116",
            "1ae10b594f09e26a7e902ecbd0600691",
        );
        let gcm16 = (
            Cipher::Aes256Gcm,
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            "cafebabefacedbaddecaf888",
            "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c959568095\
             32fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3\
             da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            "76fc6ece0f4e1768cddf8853bb2d551b",
        );
        for (cipher, key, iv, associated, plaintext, ciphertext, tag) in [rfc8439, gcm16] {
            let key = cipher.key(&bytes(key).try_into().unwrap());
            let iv: [u8; IV_BYTES] = bytes(iv).try_into().unwrap();
            let mut body = bytes(plaintext);
            let associated = aead::Aad::from(bytes(associated));
            // Packet number 0 leaves the nonce as the iv is.
            let sealed = key.seal_in_place_separate_tag(nonce(&iv, 0), associated, &mut body);
            assert_eq!(body, bytes(ciphertext), "{cipher:?}");
            assert_eq!(sealed.unwrap().as_ref(), bytes(tag), "{cipher:?}");
        }
    }

    #[test]
    fn a_plaintext_from_elsewhere_makes_the_same_datagram() {
        for cipher in CIPHERS {
            let ((mut in_place, _), (mut from, _)) = (pair(cipher), pair(cipher));
            for length in [0, 1, 15, 16, 17, 255, 1420] {
                let plaintext: Vec<u8> = (0_u8..=255).cycle().take(length).collect();
                let mut datagram = vec![0xcc; length + DATA_OVERHEAD_BYTES];
                assert!(from.seal_from(INDEX, &plaintext, &mut datagram).is_ok());
                assert_eq!(datagram, sealed(&mut in_place, &plaintext));
            }
            from.lower_limits(0, 0);
            assert_eq!(
                from.seal_from(INDEX, b"", &mut [0; DATA_OVERHEAD_BYTES]),
                Err(KeyExhausted)
            );
        }
    }

    #[test]
    fn what_is_sealed_opens_once_in_any_order() {
        for cipher in CIPHERS {
            let (mut seal, mut key) = pair(cipher);
            let mut rng = Rng::new(1);
            let mut datagrams: Vec<_> = (0..200_u8)
                .map(|i| sealed(&mut seal, &vec![i; usize::from(i) * 7]))
                .collect();
            assert_eq!(seal.packets(), 200);
            while !datagrams.is_empty() {
                let pick = usize::try_from(rng.below(datagrams.len() as u64)).unwrap();
                let mut datagram = datagrams.swap_remove(pick);
                let mut again = datagram.clone();
                let number = u8::try_from(DataHeader::parse(&datagram).unwrap().packet_number);
                let number = number.unwrap();
                let plaintext = open(&mut key, &mut datagram).unwrap();
                assert_eq!(plaintext, vec![number; usize::from(number) * 7]);
                assert_eq!(open(&mut key, &mut again), Err(DropReason::ReplayDuplicate));
            }
            assert_eq!((key.largest(), key.forgeries()), (199, 0));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_wrong_length_is_refused_and_changes_nothing() {
        for cipher in CIPHERS {
            let (mut seal, mut key) = pair(cipher);
            for _ in 0..100 {
                open(&mut key, &mut sealed(&mut seal, b"before")).unwrap();
            }
            let datagram = sealed(&mut seal, b"some inner packet");
            for bit in 0..datagram.len() * 8 {
                let mut forged = datagram.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                // A flipped bit in the packet number may name an old packet: refused even before the tag.
                assert!(open(&mut key, &mut forged).is_err(), "{cipher:?} bit {bit}");
            }
            for change in 1..=64 {
                let shorter = datagram.len().saturating_sub(change);
                let mut short = datagram[..shorter].to_vec();
                assert!(
                    open(&mut key, &mut short).is_err(),
                    "{cipher:?} cut to {shorter}"
                );
                let mut long = datagram.clone();
                long.resize(datagram.len() + change, 0);
                assert_eq!(
                    open(&mut key, &mut long),
                    Err(DropReason::AuthFailed),
                    "{change}"
                );
            }
            assert_eq!(key.largest(), 99);
            assert_eq!(
                open(&mut key, &mut datagram.clone()).unwrap(),
                b"some inner packet"
            );
        }
    }

    #[test]
    fn a_key_asks_for_rotation_and_then_stops() {
        let (mut seal, _) = pair(Cipher::Aes256Gcm);
        seal.lower_limits(100, 200);
        let (mut small, mut large) = (vec![0; 2048], vec![0; 2049]);
        for _ in 0..3 {
            seal.seal(INDEX, &mut large).unwrap();
        }
        assert!(!seal.wants_rotation());
        for _ in 0..4 {
            seal.seal(INDEX, &mut small).unwrap();
        }
        assert!(seal.wants_rotation() && !seal.exhausted());
        for _ in 0..3 {
            seal.seal(INDEX, &mut large).unwrap();
        }
        // 196 of 200 are spent: a large one does not fit, and small ones must not overtake it afterwards.
        let before = large.clone();
        assert_eq!(seal.seal(INDEX, &mut large), Err(KeyExhausted));
        assert_eq!(seal.seal(INDEX, &mut small), Err(KeyExhausted));
        assert!(seal.exhausted() && large == before && seal.packets() == 10);
        // ChaCha20-Poly1305 does not care about the length.
        let (mut seal, _) = pair(Cipher::ChaCha20Poly1305);
        seal.lower_limits(1, 2);
        assert_eq!(
            (seal.seal(INDEX, &mut large), seal.wants_rotation()),
            (Ok(0), true)
        );
        assert_eq!(seal.seal(INDEX, &mut large), Ok(1));
        assert_eq!(seal.seal(INDEX, &mut large), Err(KeyExhausted));
        seal.lower_limits(u64::MAX, u64::MAX);
        assert!(seal.exhausted(), "limits are never raised");
    }

    #[test]
    fn too_many_forgeries_close_the_key() {
        let (mut seal, mut key) = pair(Cipher::ChaCha20Poly1305);
        key.lower_limits(2, 3);
        let good = sealed(&mut seal, b"good");
        for forgery in 1..=3 {
            let mut bad = good.clone();
            bad[20] ^= 1;
            assert_eq!(open(&mut key, &mut bad), Err(DropReason::AuthFailed));
            assert_eq!(
                (key.wants_rotation(), key.exhausted()),
                (forgery >= 2, forgery >= 3)
            );
        }
        assert_eq!(
            open(&mut key, &mut good.clone()),
            Err(DropReason::EpochExpired)
        );
    }

    #[test]
    fn keys_can_move_to_another_thread_and_do_not_print() {
        fn assert_send<T: Send>(_: &T) {}
        let (seal, key) = pair(Cipher::Aes256Gcm);
        assert_send(&seal);
        assert_send(&key);
        assert_eq!(format!("{seal:?} {key:?}"), "SealKey OpenKey");
    }
}
