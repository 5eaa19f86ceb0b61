//! `genkey`, `genpsk`, `pubkey`: filters between standard input and output, as those of `wg` are.
//!
//! Keys are never arguments: arguments stand in the process list.

use std::io::Read;

use zeroize::Zeroizing;

use super::{EXIT_FAILED, Failure};
use crate::crypto::keys::{KeyError, PresharedKey, PrivateKey};

/// Longest input of `pubkey`: a key, and white space that someone pasted with it.
const INPUT_BYTES_MAX: u64 = 256;

/// A new private key and its line end.
///
/// # Errors
/// The system's random source fails.
pub fn genkey() -> Result<Zeroizing<String>, Failure> {
    let key = PrivateKey::generate().map_err(|error| failed("make a key", error))?;
    Ok(line(&key.to_base64()))
}

/// A new preshared key and its line end.
///
/// # Errors
/// The system's random source fails.
pub fn genpsk() -> Result<Zeroizing<String>, Failure> {
    let key = PresharedKey::generate().map_err(|error| failed("make a key", error))?;
    Ok(line(&key.to_base64()))
}

/// The public key of the private key in `input`, and its line end.
///
/// # Errors
/// The input cannot be read or holds no key. Never quotes the input.
pub fn pubkey(input: impl Read) -> Result<String, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = input.take(INPUT_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| Failure::new(EXIT_FAILED, format!("standard input: {error}")))?;
    let key = PrivateKey::from_base64(text.trim()).map_err(|error| {
        failed(
            "standard input holds no private key (use: chainlightning pubkey < private.key)",
            error,
        )
    })?;
    Ok(format!("{}\n", key.public()))
}

fn line(key: &str) -> Zeroizing<String> {
    let mut line = Zeroizing::new(String::with_capacity(key.len() + 1));
    line.push_str(key);
    line.push('\n');
    line
}

fn failed(what: &str, error: KeyError) -> Failure {
    Failure::new(EXIT_FAILED, format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_goes_through_pubkey_and_is_never_the_same() {
        let (a, b) = (genkey().unwrap(), genkey().unwrap());
        assert_ne!(*a, *b);
        assert_eq!(a.len(), 45);
        let public = pubkey(a.as_bytes()).unwrap();
        assert_eq!(public, pubkey(a.trim().as_bytes()).unwrap());
        assert_eq!(public.len(), 45);
        assert_ne!(public, pubkey(b.as_bytes()).unwrap());
        assert_ne!(*genpsk().unwrap(), *genpsk().unwrap());
    }

    /// Alice's pair of RFC 7748, section 6.1, in base64.
    #[test]
    fn pubkey_agrees_with_the_published_pair() {
        let public = pubkey("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n".as_bytes()).unwrap();
        assert_eq!(
            public.trim(),
            "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
        );
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_quoted() {
        for bad in ["", "x", "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LC"] {
            let failure = pubkey(bad.as_bytes()).unwrap_err();
            assert_eq!(failure.exit_code, EXIT_FAILED);
            assert!(bad.len() < 2 || !failure.message.contains(bad));
        }
    }
}
