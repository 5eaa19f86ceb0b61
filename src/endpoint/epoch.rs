//! From the end of a handshake to the keys of all links.

use crate::base::id::LINKS_MAX;
use crate::base::{Instant, LinkId};
use crate::crypto::handshake::Established;
use crate::crypto::key_schedule::Role;
use crate::crypto::mac::SecretNumbers;
use crate::session::epochs::{EpochKeys, LinkKeys};

/// Feature bit: "I hold no tunnel state of you"; whoever reads it forgets its own.
pub const FEATURE_FRESH: u32 = 1;

/// Keys of all links of an epoch.
pub fn epoch_keys(
    established: &Established,
    role: Role,
    id: u32,
    tag: u8,
    link_count: u8,
    peer_indexes: &[u32; LINKS_MAX],
    now: Instant,
) -> EpochKeys {
    let links = (0..link_count)
        .map(LinkId)
        .map(|link| {
            let (seal, open) = established.secret.link_keys(role, link, established.cipher);
            LinkKeys {
                seal,
                open,
                receiver_index: peer_indexes[link.index()],
                sent_base: 0,
                received_base: None,
            }
        })
        .collect();
    EpochKeys {
        id,
        tag,
        links,
        established_at: now,
    }
}

/// Random receiver indexes that are not in use.
pub fn draw_indexes(
    count: u8,
    numbers: &mut SecretNumbers,
    is_used: impl Fn(u32) -> bool,
) -> [u32; LINKS_MAX] {
    let mut indexes = [0_u32; LINKS_MAX];
    for at in 0..usize::from(count).min(LINKS_MAX) {
        loop {
            let index = numbers.next_u32();
            if index != 0 && !is_used(index) && !indexes[..at].contains(&index) {
                indexes[at] = index;
                break;
            }
        }
    }
    indexes
}
