//! The primitives that snow's Noise state machine asks for, all from aws-lc-rs: X25519, ChaCha20-Poly1305, SHA-256
//! and the system's random generator. Nothing else is offered, so nothing else can be negotiated.
//!
//! Reference: the Noise Protocol Framework, revision 34, sections 4 and 12.

use aws_lc_rs::{aead, agreement, digest, rand};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types;

const KEY_BYTES: usize = 32;
const HASH_BYTES: usize = 32;
const TAG_BYTES: usize = 16;

/// Hands the primitives to snow.
pub(super) struct Resolver;

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn types::Random>> {
        Some(Box::new(SystemRandom))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn types::Dh>> {
        matches!(choice, DHChoice::Curve25519).then(|| Box::new(X25519::default()) as _)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn types::Hash>> {
        matches!(choice, HashChoice::SHA256).then(|| Box::new(Sha256::default()) as _)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn types::Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(ChaChaPoly(None)) as _)
    }
}

struct SystemRandom;

impl types::Random for SystemRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        rand::fill(dest).map_err(|_| snow::Error::Rng)
    }
}

/// One key pair. The secret lives in the crypto library only, which wipes it when it is freed.
#[derive(Default)]
struct X25519 {
    key: Option<agreement::PrivateKey>,
    public: [u8; KEY_BYTES],
}

impl X25519 {
    fn take(&mut self, key: Result<agreement::PrivateKey, aws_lc_rs::error::Unspecified>) -> bool {
        let Ok(key) = key else { return false };
        let Ok(public) = key.compute_public_key() else {
            return false;
        };
        let Ok(public) = public.as_ref().try_into() else {
            return false;
        };
        self.public = public;
        self.key = Some(key);
        true
    }
}

impl types::Dh for X25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        KEY_BYTES
    }

    fn priv_len(&self) -> usize {
        KEY_BYTES
    }

    /// A key that the library refuses leaves none behind, and every agreement with it fails.
    fn set(&mut self, privkey: &[u8]) {
        self.key = None;
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, privkey);
        let _ = self.take(key.map_err(|_| aws_lc_rs::error::Unspecified));
    }

    fn generate(&mut self, _: &mut dyn types::Random) -> Result<(), snow::Error> {
        let key = agreement::PrivateKey::generate(&agreement::X25519);
        if self.take(key) {
            Ok(())
        } else {
            Err(snow::Error::Rng)
        }
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    /// Not handed out: snow asks only when it makes key pairs for a caller, and ours are made in `crypto::keys`.
    fn privkey(&self) -> &[u8] {
        &[]
    }

    /// Fails for public keys of low order, whose product is all zero (RFC 7748, section 6.1).
    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), snow::Error> {
        let (Some(key), Some(pubkey)) = (&self.key, pubkey.first_chunk::<KEY_BYTES>()) else {
            return Err(snow::Error::Dh);
        };
        let peer = agreement::UnparsedPublicKey::new(&agreement::X25519, pubkey);
        agreement::agree(key, peer, snow::Error::Dh, |product| {
            out[..KEY_BYTES].copy_from_slice(product);
            Ok(())
        })
    }
}

struct ChaChaPoly(Option<aead::LessSafeKey>);

impl ChaChaPoly {
    /// Noise, section 12.3: 32 zero bits, then the counter in little-endian.
    fn nonce(counter: u64) -> aead::Nonce {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

impl types::Cipher for ChaChaPoly {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; KEY_BYTES]) {
        let key = aead::UnboundKey::new(&aead::CHACHA20_POLY1305, key);
        self.0 = Some(aead::LessSafeKey::new(
            key.expect("the cipher takes keys of 32 bytes"),
        ));
    }

    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let key = self.0.as_ref().expect("snow sets a key before it encrypts");
        let (body, tag) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let sealed =
            key.seal_in_place_separate_tag(Self::nonce(nonce), aead::Aad::from(authtext), body);
        let sealed = sealed.expect("handshake messages are far below the cipher's limit");
        tag[..TAG_BYTES].copy_from_slice(sealed.as_ref());
        plaintext.len() + TAG_BYTES
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, snow::Error> {
        let key = self.0.as_ref().ok_or(snow::Error::Decrypt)?;
        let (body, tag) = ciphertext
            .split_last_chunk::<TAG_BYTES>()
            .ok_or(snow::Error::Decrypt)?;
        let out = out.get_mut(..body.len()).ok_or(snow::Error::Decrypt)?;
        key.open_separate_gather(
            Self::nonce(nonce),
            aead::Aad::from(authtext),
            body,
            tag,
            out,
        )
        .map_err(|_| snow::Error::Decrypt)?;
        Ok(body.len())
    }
}

struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl types::Hash for Sha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        HASH_BYTES
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let done = std::mem::take(self);
        out[..HASH_BYTES].copy_from_slice(done.0.finish().as_ref());
    }
}

#[cfg(test)]
mod tests {
    use snow::types::{Dh as _, Hash as _};

    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        assert!(hex.len().is_multiple_of(2));
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    }

    /// The vector of the "cacophony" collection for exactly our suite.
    #[test]
    fn the_public_vector_of_ikpsk2_is_met() {
        let psk: [u8; 32] =
            bytes("54686973206973206d7920417573747269616e20706572737065637469766521")
                .try_into()
                .unwrap();
        let build = |secret: &str, ephemeral: &str, peer: Option<&str>| {
            let (secret, ephemeral) = (bytes(secret), bytes(ephemeral));
            let peer = peer.map(bytes);
            let pattern = "Noise_IKpsk2_25519_ChaChaPoly_SHA256".parse().unwrap();
            let mut builder = snow::Builder::with_resolver(pattern, Box::new(Resolver))
                .prologue(b"John Galt")
                .and_then(|b| b.psk(2, &psk))
                .and_then(|b| b.local_private_key(&secret))
                .unwrap()
                .fixed_ephemeral_key_for_testing_only(&ephemeral);
            if let Some(peer) = &peer {
                builder = builder.remote_public_key(peer).unwrap();
                builder.build_initiator().unwrap()
            } else {
                builder.build_responder().unwrap()
            }
        };
        let mut initiator = build(
            "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
            "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
            Some("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62"),
        );
        let mut responder = build(
            "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
            "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
            None,
        );
        let first = "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944\
                     2ec9b09893d0f510791784c10cbc959f25b1766e0def6e301d14fbca1c7790ac\
                     829b8b3674f5f649a5f0e98479662cbfbf2b2c47cd4b09fcd266cd29d7cb675f\
                     1808849707847840f6d178ec4d3733aa";
        let second = "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088439\
                      a1b3cebf680b2c74217fcb5eba4ff58a9468cd90c4aca6194f57479b379a7";
        let (mut message, mut payload) = ([0; 256], [0; 256]);

        let length = initiator
            .write_message(b"Ludwig von Mises", &mut message)
            .unwrap();
        assert_eq!(message[..length], bytes(first));
        let length = responder
            .read_message(&message[..length], &mut payload)
            .unwrap();
        assert_eq!(&payload[..length], b"Ludwig von Mises");
        let length = responder
            .write_message(b"Murray Rothbard", &mut message)
            .unwrap();
        assert_eq!(message[..length], bytes(second));
        let length = initiator
            .read_message(&message[..length], &mut payload)
            .unwrap();
        assert_eq!(&payload[..length], b"Murray Rothbard");

        let hash = bytes("8310f86394dc0dabb40beb8210031556db4403ab1202db7034c526232147a700");
        assert_eq!(initiator.get_handshake_hash(), hash);
        assert_eq!(responder.get_handshake_hash(), hash);
        assert_eq!(
            initiator.dangerously_get_raw_split(),
            responder.dangerously_get_raw_split()
        );
        // The third message of the vector is a transport message: it proves the split as well.
        let mut transport = initiator.into_transport_mode().unwrap();
        let length = transport
            .write_message(b"F. A. Hayek", &mut message)
            .unwrap();
        let third = "a8fde7a0accec190cd306c5950d4fd8e04a205ec288aa747d8b347";
        assert_eq!(message[..length], bytes(third));
    }

    #[test]
    fn public_keys_of_low_order_give_no_secret() {
        let mut key = X25519::default();
        key.generate(&mut SystemRandom).unwrap();
        // Order 1, 2, 4 and 8 and the same values beyond the field's prime: the list of cr.yp.to/ecdh.html.
        for low in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
            "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ] {
            assert_eq!(
                key.dh(&bytes(low), &mut [0; 56]),
                Err(snow::Error::Dh),
                "{low}"
            );
        }
    }

    #[test]
    fn a_hash_starts_anew_after_its_result() {
        // FIPS 180-2, appendix B.1: "abc".
        let abc = bytes("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let mut hash = Sha256::default();
        for _ in 0..2 {
            let mut out = [0; 64];
            hash.input(b"abc");
            hash.result(&mut out);
            assert_eq!(out[..32], abc);
        }
    }
}
