//! Long-term keys: X25519 pairs and preshared keys, as text that `wg` reads and writes too.
//!
//! Secrets are wiped when dropped, have no `Clone`, and print as their type's name.

use std::fmt;

use aws_lc_rs::agreement;
use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::debug_name_only;

/// Length of every key here.
pub const KEY_BYTES: usize = 32;
/// Length of a key as text: base64 with its one `=`.
const KEY_CHARS: usize = 44;

/// Secret half of a host's identity.
pub struct PrivateKey {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    public: PublicKey,
}

impl PrivateKey {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Random`] when that generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let mut secret = random_bytes()?;
        // X25519 ignores these bits; `wg` stores keys with them set like this, so we do too (RFC 7748, section 5).
        secret[0] &= 0b1111_1000;
        secret[31] = secret[31] & 0b0111_1111 | 0b0100_0000;
        Self::from_secret(secret)
    }

    /// Reads the 44 characters of `wg genkey`; white space around them is allowed.
    ///
    /// # Errors
    /// [`KeyError::Length`] or [`KeyError::Encoding`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_secret(decode(text)?)
    }

    /// The key as text; wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.secret.as_slice()))
    }

    /// The public half.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The raw bytes, for the handshake only.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.secret
    }

    fn from_secret(secret: Zeroizing<[u8; KEY_BYTES]>) -> Result<Self, KeyError> {
        let key = agreement::PrivateKey::from_private_key(&agreement::X25519, &*secret)
            .map_err(|_| KeyError::Encoding)?;
        let public = key.compute_public_key().map_err(|_| KeyError::Encoding)?;
        let public = public.as_ref().try_into().map_err(|_| KeyError::Encoding)?;
        Ok(Self {
            secret,
            public: PublicKey(public),
        })
    }
}

debug_name_only!(PrivateKey, PresharedKey);

/// A host's identity; safe to show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl PublicKey {
    /// Reads the 44 characters of `wg pubkey`; white space around them is allowed.
    ///
    /// # Errors
    /// [`KeyError::Length`] or [`KeyError::Encoding`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Ok(Self(*decode(text)?))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; KEY_CHARS];
        let written = STANDARD
            .encode_slice(self.0, &mut text)
            .map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..written]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// Secret that both hosts of one pair know beforehand. Protects recorded traffic even if X25519 falls.
pub struct PresharedKey(Zeroizing<[u8; KEY_BYTES]>);

impl PresharedKey {
    /// A new key from the system's random generator.
    ///
    /// # Errors
    /// [`KeyError::Random`] when that generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        Ok(Self(random_bytes()?))
    }

    /// Reads the 44 characters of `wg genpsk`; white space around them is allowed.
    ///
    /// # Errors
    /// [`KeyError::Length`] or [`KeyError::Encoding`].
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Ok(Self(decode(text)?))
    }

    /// The key as text; wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.as_slice()))
    }

    /// The raw bytes, for the handshake only.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Why a key could not be read or made. Never quotes the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 44 characters.
    #[error("a key has {KEY_CHARS} characters, this text has {0}")]
    Length(usize),
    /// Not base64 of 32 bytes.
    #[error("a key is base64 of {KEY_BYTES} bytes, this text is not")]
    Encoding,
    /// The system gave no random bytes.
    #[error("the system's random generator failed")]
    Random,
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let text = text.trim();
    if text.len() != KEY_CHARS {
        return Err(KeyError::Length(text.chars().count()));
    }
    // One byte more than a key: 44 characters without padding would be 33 bytes.
    let mut room = Zeroizing::new([0; KEY_BYTES + 1]);
    let written = STANDARD
        .decode_slice(text, &mut *room)
        .map_err(|_| KeyError::Encoding)?;
    let (Some(bytes), KEY_BYTES) = (room.first_chunk(), written) else {
        return Err(KeyError::Encoding);
    };
    Ok(Zeroizing::new(*bytes))
}

fn random_bytes() -> Result<Zeroizing<[u8; KEY_BYTES]>, KeyError> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(&mut *bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748, section 6.1, Alice; as base64.
    const ALICE_PRIVATE: &str = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    const ALICE_PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn the_public_half_is_that_of_rfc_7748() {
        let key = PrivateKey::from_base64(ALICE_PRIVATE).unwrap();
        assert_eq!(key.public().to_string(), ALICE_PUBLIC);
        assert_eq!(
            key.public(),
            PublicKey::from_base64(&format!("{ALICE_PUBLIC}\n")).unwrap()
        );
        assert_eq!(*key.to_base64(), ALICE_PRIVATE);
    }

    #[test]
    fn generated_keys_differ_are_clamped_and_survive_text() {
        let (a, b) = (
            PrivateKey::generate().unwrap(),
            PrivateKey::generate().unwrap(),
        );
        assert_ne!(a.public(), b.public());
        assert_eq!((a.expose()[0] & 7, a.expose()[31] & 0xc0), (0, 0x40));
        let again = PrivateKey::from_base64(&a.to_base64()).unwrap();
        assert_eq!(again.public(), a.public());
        let psk = PresharedKey::generate().unwrap();
        let again = PresharedKey::from_base64(&psk.to_base64()).unwrap();
        assert_eq!(again.expose(), psk.expose());
    }

    #[test]
    fn text_that_is_no_key_is_refused() {
        for (text, error) in [
            ("", KeyError::Length(0)),
            (&ALICE_PRIVATE[1..], KeyError::Length(43)),
            // 33 bytes, a character outside of the alphabet, padding bits that are not zero.
            (
                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
                KeyError::Encoding,
            ),
            (
                "!wdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=",
                KeyError::Encoding,
            ),
            (
                "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCp=",
                KeyError::Encoding,
            ),
        ] {
            assert_eq!(PublicKey::from_base64(text), Err(error), "{text}");
            assert_eq!(PrivateKey::from_base64(text).err(), Some(error), "{text}");
            assert_eq!(PresharedKey::from_base64(text).err(), Some(error), "{text}");
        }
    }

    #[test]
    fn secrets_print_as_their_name_only() {
        let key = PrivateKey::from_base64(ALICE_PRIVATE).unwrap();
        let psk = PresharedKey::from_base64(ALICE_PRIVATE).unwrap();
        assert_eq!(format!("{key:?} {psk:?}"), "PrivateKey PresharedKey");
    }
}
