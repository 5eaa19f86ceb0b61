//! Known answers, and what is refused.

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
