//! Floor 2: everything that touches a key. Primitives come from aws-lc-rs, the handshake's state machine from snow.
//!
//! ```text
//! keys ──► noise (Dh, Cipher, Hash, Random for snow)
//!            │
//!        handshake ──► EpochSecret ──► key_schedule ──► SealKey, OpenKey (seal) ──► replay
//! mac: mac1, mac2, cookies, before any of the above is touched
//! ```
//!
//! No type that holds a secret can be printed, copied by accident or serialised; comparisons of secrets and MACs
//! take the same time whatever the bytes are.
#![forbid(unsafe_code)]

pub mod cipher;
pub mod handshake;
pub mod key_schedule;
pub mod keys;
pub mod mac;
mod noise;
pub mod replay;
pub mod seal;

pub use cipher::Cipher;

/// `Debug` that prints the name of the type and nothing of its content.
macro_rules! debug_name_only {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}
use debug_name_only;
