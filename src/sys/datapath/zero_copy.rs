//! Whether runs of one socket leave without a copy (SEND_ZC, Linux 6.0), judged by what the kernel says it did.
//!
//! ```text
//!            TRIAL notifications, at most 5 % "copied"
//!   Trying ─────────────────────────────────────────────► goes on, judged anew every TRIAL notifications
//!      └─ more than that, or the kernel refuses ─► Off, until the socket is replaced
//! ```
//!
//! A send without a copy costs a second completion and pins pages. It pays when the device takes the pages as they
//! are; veth, loopback, TUN, and devices without scatter and checksum offload copy all the same. Never sends.

/// Shortest run for which sparing the copy is worth a second completion.
pub(super) const BYTES_MIN: usize = 16 << 10;
/// Notifications between two judgements.
const TRIAL: u32 = 32;
/// One in this many may say "copied".
const COPIED_SHARE: u32 = 20;

/// What the configuration wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroCopy {
    /// Where it spares a copy, found out socket by socket.
    #[default]
    Auto,
    /// Always, also where the kernel copies.
    On,
    /// Never.
    Off,
}

/// What is known about one socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verdict {
    mode: ZeroCopy,
    notified: u32,
    copied: u32,
}

impl Verdict {
    pub(super) const fn new(mode: ZeroCopy) -> Self {
        Self {
            mode,
            notified: 0,
            copied: 0,
        }
    }

    /// Whether a run of this length is sent without a copy.
    pub(super) const fn wants(&self, bytes: usize) -> bool {
        !matches!(self.mode, ZeroCopy::Off) && bytes >= BYTES_MIN
    }

    /// The kernel is done with a run. `true` when that was the one that ended it.
    pub(super) fn on_notification(&mut self, copied: bool) -> bool {
        self.notified += 1;
        self.copied += u32::from(copied);
        if self.notified < TRIAL {
            return false;
        }
        let in_vain = self.copied * COPIED_SHARE > self.notified;
        (self.notified, self.copied) = (0, 0);
        if in_vain && self.mode == ZeroCopy::Auto {
            self.mode = ZeroCopy::Off;
            return true;
        }
        false
    }

    /// The kernel does not do it on this socket.
    pub(super) fn refuse(&mut self) {
        self.mode = ZeroCopy::Off;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_end_it_after_one_trial_and_only_where_nobody_insists() {
        for (mode, ends) in [(ZeroCopy::Auto, true), (ZeroCopy::On, false)] {
            let mut verdict = Verdict::new(mode);
            for count in 1..=TRIAL {
                assert!(verdict.wants(BYTES_MIN));
                let ended = verdict.on_notification(true);
                assert_eq!(ended, ends && count == TRIAL);
            }
            assert_eq!(verdict.wants(BYTES_MIN), !ends);
        }
        assert!(!Verdict::new(ZeroCopy::Off).wants(BYTES_MIN));
    }

    #[test]
    fn one_copy_in_a_trial_is_forgiven_and_a_change_of_the_device_is_noticed() {
        let mut verdict = Verdict::new(ZeroCopy::Auto);
        for round in 0..10 * TRIAL {
            verdict.on_notification(round % TRIAL == 3);
        }
        assert!(verdict.wants(BYTES_MIN) && !verdict.wants(BYTES_MIN - 1));
        for _ in 0..TRIAL {
            verdict.on_notification(true);
        }
        assert!(!verdict.wants(BYTES_MIN));
    }
}
