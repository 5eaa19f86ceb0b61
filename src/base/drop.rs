//! Every way to lose a packet, with a name and a counter.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        /// Why something was discarded. One counter each; the same words stand in status and documents.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason { $($(#[$doc])* $name),* }

        impl DropReason {
            /// All reasons, in counter order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The reason's name in status, metrics and documents.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),* }
            }
        }
    };
}

drop_reasons! {
    /// A datagram too short, too long or with a length field that does not match.
    Malformed = "malformed",
    /// An authenticated datagram whose frames cannot be parsed.
    BadFrame = "bad_frame",
    /// No session knows the receiver index.
    UnknownIndex = "unknown_index",
    /// The epoch's keys are gone.
    EpochExpired = "epoch_expired",
    /// The tag does not verify.
    AuthFailed = "auth_failed",
    /// Packet number seen before.
    ReplayDuplicate = "replay_duplicate",
    /// Packet number older than the window.
    ReplayTooOld = "replay_too_old",
    /// Handshake of another protocol version.
    HandshakeVersion = "handshake_version",
    /// Handshake with a wrong mac1: not for us, or not from someone who knows our key.
    HandshakeMac = "handshake_mac",
    /// Handshake that does not decrypt or comes from an unknown key.
    HandshakeRefused = "handshake_refused",
    /// Handshake with an old stamp.
    HandshakeReplay = "handshake_replay",
    /// Handshake beyond the rate limit.
    HandshakeLimited = "handshake_limited",
    /// Pinned to a WAN that is down, without a fallback.
    PinnedDown = "pinned_down",
    /// A TUN frame that is not an IP packet.
    NotIp = "not_ip",
    /// Inner source address outside of the peer's allowed prefixes.
    InnerSource = "inner_source",
    /// No peer owns the inner destination address.
    NoPeer = "no_peer",
    /// There is no session yet, or not a single link.
    NoSession = "no_session",
    /// A virtio header that does not fit its frame.
    BadVirtio = "bad_virtio",
    /// Queue discipline at the TUN: CoDel dropped it to keep the queue short.
    Aqm = "aqm",
    /// Queue discipline at the TUN: the queue was full.
    QueueFull = "queue_full",
    /// No free symbol or frame slot.
    NoBuffer = "no_buffer",
    /// A symbol that was received or recovered before.
    DuplicateSymbol = "duplicate_symbol",
    /// A symbol of a group that is no longer held.
    StaleGroup = "stale_group",
    /// A symbol that contradicts its group.
    InconsistentGroup = "inconsistent_group",
    /// A repair symbol that was not needed.
    RepairUnused = "repair_unused",
    /// A frame that was already released or skipped and is not worth delivering twice.
    DuplicateFrame = "duplicate_frame",
    /// Parts of a frame that never became whole.
    IncompleteFrame = "incomplete_frame",
    /// The reorder buffer was full.
    ReorderFull = "reorder_full",
    /// The kernel refused a datagram (no route, message too long, interface down).
    SendFailed = "send_failed",
    /// The kernel refused a frame on the TUN.
    TunWriteFailed = "tun_write_failed",
    /// Sent on a link that died, and too old to be sent again.
    Expired = "expired",
    /// Another worker's queue was full.
    HandoverFull = "handover_full",
    /// Control frames beyond the rate limit.
    ControlLimited = "control_limited",
}

/// One counter for each [`DropReason`].
#[derive(Clone, Debug)]
pub struct DropCounters([u64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([0; DropReason::ALL.len()])
    }
}

impl DropCounters {
    /// Counts one.
    pub const fn count(&mut self, reason: DropReason) {
        self.count_many(reason, 1);
    }

    /// Counts `n`.
    pub const fn count_many(&mut self, reason: DropReason, n: u64) {
        self.0[reason as usize] += n;
    }

    /// The counter of one reason.
    pub const fn get(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// All reasons with their counters.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL
            .iter()
            .map(|&reason| (reason, self.get(reason)))
    }

    /// Adds another set, counter by counter.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_reason_and_names_are_unique() {
        let mut counters = DropCounters::default();
        counters.count(DropReason::Aqm);
        counters.count_many(DropReason::Expired, 3);
        assert_eq!(counters.get(DropReason::Aqm), 1);
        assert_eq!(counters.iter().map(|(_, n)| n).sum::<u64>(), 4);
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
    }
}
