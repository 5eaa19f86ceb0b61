//! Floor 2: Reed-Solomon protection of symbols.
//!
//! `encoder` numbers source symbols and says when a group is closed, `codec` computes, `decoder` keeps what
//! arrived and recovers what did not, `protection` decides how much repair is sent. Source symbols travel
//! unchanged the moment they exist; nothing here delays them.
#![forbid(unsafe_code)]

pub mod codec;
pub mod decoder;
mod direct;
pub mod encoder;
mod group;
mod held;
pub mod protection;
mod way;

/// Most symbols of a group, source and repair together: indexes travel in a byte.
pub const GROUP_SYMBOLS_MAX: usize = 255;

/// Bytes in front of a body inside the code: its length, so that a recovered symbol knows where it ends.
pub const LENGTH_BYTES: usize = 2;

/// Symbol size of a group whose longest body has `body_bytes`: with its length, rounded up to an even number
/// because the code works on 16-bit elements.
pub const fn symbol_bytes(body_bytes: usize) -> usize {
    (LENGTH_BYTES + body_bytes).next_multiple_of(2)
}
