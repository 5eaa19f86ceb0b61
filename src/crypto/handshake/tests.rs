//! Whole handshakes, and everything an attacker can do to their bytes.

use super::*;
use crate::base::LinkId;
use crate::crypto::key_schedule::Role;
use crate::crypto::mac::CookieSecret;
use crate::wire::handshake::COOKIE_BYTES;
use crate::wire::header::{DATA_OVERHEAD_BYTES, DataHeader};

const SENDER: u32 = 0x0102_0304;

struct World {
    client: PrivateKey,
    server: PrivateKey,
    psk: PresharedKey,
}

fn world() -> World {
    World {
        client: PrivateKey::generate().unwrap(),
        server: PrivateKey::generate().unwrap(),
        psk: PresharedKey::generate().unwrap(),
    }
}

fn hello_payload() -> HelloPayload {
    HelloPayload {
        stamp: [1; 12],
        boot_id: [2; 8],
        cipher_bits: Cipher::Aes256Gcm.bits(),
        psk_kind: 0,
        features: 5,
        session_number: 0,
        link_count: 2,
        datagram_bytes_max: 1472,
        indexes: [9; 32],
    }
}

fn welcome_payload(cipher: u8) -> WelcomePayload {
    WelcomePayload {
        cipher,
        features: 4,
        boot_id: [3; 8],
        link_count: 2,
        datagram_bytes_max: 1472,
        hold_time_max_ms: 150,
        indexes: [8; 32],
    }
}

impl World {
    fn start(&self) -> (Initiator, [u8; HELLO_BYTES]) {
        let mut hello = [0; HELLO_BYTES];
        let (peer, psk) = (self.server.public(), Some(&self.psk));
        let payload = hello_payload();
        let initiator =
            Initiator::start(&self.client, peer, psk, SENDER, &payload, &mut hello).unwrap();
        (initiator, hello)
    }

    fn answer(&self, hello: &[u8]) -> (Established, [u8; WELCOME_BYTES]) {
        let mut welcome = [0; WELCOME_BYTES];
        let responder = Responder::read(&self.server, hello).unwrap();
        let payload = welcome_payload(Cipher::Aes256Gcm.code());
        let done = responder
            .finish(Some(&self.psk), 7, &payload, &mut welcome)
            .unwrap();
        (done, welcome)
    }
}

/// Whether what `from` seals on link 1 is opened by `to`.
fn talks(from: &Established, role: Role, to: &Established, other: Role) -> bool {
    let mut seal = from.secret.link_keys(role, LinkId(1), from.cipher).0;
    let mut open = to.secret.link_keys(other, LinkId(1), to.cipher).1;
    let mut datagram = [0x33; DATA_OVERHEAD_BYTES + 5];
    seal.seal(1, &mut datagram).unwrap();
    let header = DataHeader::parse(&datagram).unwrap();
    open.open(&header, &mut datagram)
        .is_ok_and(|plain| plain == [0x33; 5])
}

#[test]
fn both_sides_learn_who_the_other_is_and_can_talk() {
    let world = world();
    let (mut initiator, hello) = world.start();
    let responder = Responder::read(&world.server, &hello).unwrap();
    assert_eq!(responder.peer(), world.client.public());
    assert_eq!(
        (responder.sender_index(), *responder.payload()),
        (SENDER, hello_payload())
    );
    let (there, welcome) = world.answer(&hello);
    let here = initiator.finish(&welcome).unwrap();
    assert_eq!(
        (here.peer, here.cipher),
        (world.server.public(), Cipher::Aes256Gcm)
    );
    assert_eq!(here.payload, there.payload);
    assert_eq!(here.handshake_hash, there.handshake_hash);
    assert!(talks(&here, Role::Initiator, &there, Role::Responder));
    assert!(talks(&there, Role::Responder, &here, Role::Initiator));
    // A second answer to the same HELLO gives other keys, and the first handshake is over.
    let (again, welcome) = world.answer(&hello);
    assert!(!talks(&here, Role::Initiator, &again, Role::Responder));
    assert_eq!(
        initiator.finish(&welcome).err(),
        Some(DropReason::HandshakeRefused)
    );
}

#[test]
fn another_preshared_key_or_none_is_refused_and_the_right_one_still_works() {
    let world = world();
    let (mut initiator, hello) = world.start();
    let other = PresharedKey::generate().unwrap();
    for psk in [None, Some(&other)] {
        let mut welcome = [0; WELCOME_BYTES];
        let responder = Responder::read(&world.server, &hello).unwrap();
        responder
            .finish(psk, 7, &welcome_payload(1), &mut welcome)
            .unwrap();
        assert_eq!(
            initiator.finish(&welcome).err(),
            Some(DropReason::HandshakeRefused)
        );
    }
    let (there, welcome) = world.answer(&hello);
    let here = initiator.finish(&welcome).unwrap();
    assert!(talks(&here, Role::Initiator, &there, Role::Responder));
}

#[test]
fn every_flipped_bit_of_a_hello_is_refused_even_with_a_fresh_mac1() {
    let world = world();
    let (_, hello) = world.start();
    let noise = 8..HELLO_BYTES - 2 * MAC_BYTES;
    for bit in 0..(HELLO_BYTES - MAC_BYTES) * 8 {
        let mut forged = hello;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(
            Responder::read(&world.server, &forged).is_err(),
            "bit {bit}"
        );
        // Whoever knows our public key can make mac1, but not what is under it. One bit a byte: each try
        // costs a key agreement.
        if noise.contains(&(bit / 8)) && bit % 8 == (bit / 8) % 8 {
            let key = Mac1Key::new(world.server.public());
            sign_hello_mac1(&mut forged, |covered| key.sign(covered));
            let refused = Responder::read(&world.server, &forged).err();
            assert_eq!(refused, Some(DropReason::HandshakeRefused), "bit {bit}");
        }
    }
    assert!(Responder::read(&world.server, &hello).is_ok());
}

#[test]
fn no_forged_welcome_ends_or_spoils_a_pending_handshake() {
    let world = world();
    let (mut initiator, hello) = world.start();
    let (there, welcome) = world.answer(&hello);
    let noise = 12..WELCOME_BYTES - 2 * MAC_BYTES;
    for bit in 0..WELCOME_BYTES * 8 {
        let mut forged = welcome;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(initiator.finish(&forged).is_err(), "bit {bit}");
        if noise.contains(&(bit / 8)) && bit % 8 == (bit / 8) % 8 {
            let key = Mac1Key::new(world.client.public());
            sign_welcome_mac1(&mut forged, |covered| key.sign(covered));
            let refused = initiator.finish(&forged).err();
            assert_eq!(refused, Some(DropReason::HandshakeRefused), "bit {bit}");
        }
    }
    // An answer to another HELLO, with everything else in order.
    let mut astray = welcome;
    astray[8] ^= 1;
    let key = Mac1Key::new(world.client.public());
    sign_welcome_mac1(&mut astray, |covered| key.sign(covered));
    assert_eq!(
        initiator.finish(&astray).err(),
        Some(DropReason::UnknownIndex)
    );
    let here = initiator.finish(&welcome).unwrap();
    assert!(talks(&here, Role::Initiator, &there, Role::Responder));
}

#[test]
fn cut_and_lengthened_messages_are_refused() {
    let world = world();
    let (mut initiator, hello) = world.start();
    let (_, welcome) = world.answer(&hello);
    for change in 1..=64 {
        let longer = |bytes: &[u8]| [bytes, &[0; 64][..change]].concat();
        for hello in [&hello[..HELLO_BYTES - change], &longer(&hello)] {
            let refused = Responder::read(&world.server, hello).err();
            assert_eq!(refused, Some(DropReason::Malformed));
        }
        for welcome in [&welcome[..WELCOME_BYTES - change], &longer(&welcome)] {
            assert_eq!(initiator.finish(welcome).err(), Some(DropReason::Malformed));
        }
    }
}

#[test]
fn a_hello_for_another_server_and_a_welcome_for_another_hello_are_refused() {
    let (world, stranger) = (world(), PrivateKey::generate().unwrap());
    let (mut initiator, mut hello) = world.start();
    assert_eq!(
        Responder::read(&stranger, &hello).err(),
        Some(DropReason::HandshakeMac)
    );
    let (_, welcome_of_another) = world.answer(&world.start().1);
    assert_eq!(
        initiator.finish(&welcome_of_another).err(),
        Some(DropReason::HandshakeRefused)
    );
    sign_hello_mac1(&mut hello, |covered| {
        Mac1Key::new(stranger.public()).sign(covered)
    });
    assert_eq!(
        Responder::read(&stranger, &hello).err(),
        Some(DropReason::HandshakeRefused)
    );
}

#[test]
fn a_cipher_that_was_not_offered_is_refused() {
    let world = world();
    for (code, offered, accepted) in [
        (1, 3, true),
        (1, 1, false),
        (0, 3, true),
        (0, 1, true),
        (0, 0, true),
    ] {
        let payload = HelloPayload {
            cipher_bits: offered,
            ..hello_payload()
        };
        let (mut hello, mut welcome) = ([0; HELLO_BYTES], [0; WELCOME_BYTES]);
        let peer = world.server.public();
        let mut initiator =
            Initiator::start(&world.client, peer, None, 1, &payload, &mut hello).unwrap();
        let responder = Responder::read(&world.server, &hello).unwrap();
        responder
            .finish(None, 7, &welcome_payload(code), &mut welcome)
            .unwrap();
        assert_eq!(
            initiator.finish(&welcome).is_ok(),
            accepted,
            "{code} of {offered}"
        );
    }
    let responder = Responder::read(&world.server, &world.start().1).unwrap();
    let refused = responder.finish(None, 7, &welcome_payload(2), &mut [0; WELCOME_BYTES]);
    assert_eq!(refused.err(), Some(HandshakeError::Cipher(2)));
}

#[test]
fn a_cookie_reaches_its_initiator_and_changes_only_mac2() {
    let world = world();
    let (initiator, hello) = world.start();
    let mac1 = *Hello::parse(&hello).unwrap().mac1();
    let cookie = CookieSecret::new(&[1; 32], 0).cookie("192.0.2.1:1".parse().unwrap());
    let reply = CookieSeal::new(world.server.public()).seal(SENDER, [4; 12], &mac1, &cookie);
    for bit in 0..COOKIE_BYTES * 8 {
        let mut forged = reply;
        forged[bit / 8] ^= 1 << (bit % 8);
        assert!(initiator.open_cookie(&forged).is_err(), "bit {bit}");
    }
    let received = initiator.open_cookie(&reply).unwrap();
    let mut proven = hello;
    initiator.set_cookie(&mut proven, &received);
    let view = Hello::parse(&proven).unwrap();
    assert!(cookie.verify(view.before_mac2(), view.mac2()));
    assert_eq!(
        proven[..HELLO_BYTES - MAC_BYTES],
        hello[..HELLO_BYTES - MAC_BYTES]
    );
    assert!(Responder::read(&world.server, &proven).is_ok());
}

#[test]
fn a_public_key_of_low_order_is_never_greeted_nor_answered() {
    let world = world();
    let mut hello = [0; HELLO_BYTES];
    let low = PublicKey([0; 32]);
    let refused = Initiator::start(&world.client, low, None, 1, &hello_payload(), &mut hello).err();
    assert_eq!(refused, Some(HandshakeError::PeerKey));
    // The same as the ephemeral key of an otherwise good HELLO.
    let (_, mut hello) = world.start();
    hello[8..40].fill(0);
    let key = Mac1Key::new(world.server.public());
    sign_hello_mac1(&mut hello, |covered| key.sign(covered));
    let refused = Responder::read(&world.server, &hello).err();
    assert_eq!(refused, Some(DropReason::HandshakeRefused));
}
