//! Whether a link may carry data: one transition table, driven by data in flight first and heartbeats second.
//!
//! ```text
//!            2 replies                      silence while others progress, send error
//!  Probing ─────────────► Up ◄───────────────────────────────────────► Suspect
//!   ▲   ▲                  │  reply to something sent after the suspicion   │
//!   │   └──────────────────┘  (too many of them: by way of Probing)         │ silence goes on
//!   │  a reply                                                              ▼
//!   └───────────────────────────────────────────────────────────────────── Down
//! ```
//!
//! Suspicion is cheap (what was in flight is sent again elsewhere, at once), so it comes early; Down is expensive
//! (the link must prove itself again), so it comes late.
//!
//! Never does: sending. Heartbeat times are asked for by `Liveness::heartbeat_interval`.

use std::time::Duration;

use crate::base::Instant;

/// Whether a link may carry data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Carries heartbeats and duplicates until it has proved itself.
    Probing,
    /// Carries everything.
    Up,
    /// Carries heartbeats only; what was in flight is sent again on other links.
    Suspect,
    /// Carries rare heartbeats.
    Down,
}

impl State {
    /// The state's name in status, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Probing => "probing",
            Self::Up => "up",
            Self::Suspect => "suspect",
            Self::Down => "down",
        }
    }
}

/// Why a link is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The link is new.
    New,
    /// The peer has reported what was sent on it.
    Replied,
    /// Data in flight was not acknowledged in time while another link progressed.
    AckTimeout,
    /// Nothing was acknowledged for several heartbeats.
    HeartbeatTimeout,
    /// The kernel refused a datagram, or the interface is gone.
    SendError,
    /// A suspicion lasted too long.
    Silence,
    /// It failed too often in a short time and must stay clean for a while.
    Flapping,
}

impl Cause {
    /// The cause's name in status, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Replied => "replied",
            Self::AckTimeout => "ack_timeout",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::SendError => "send_error",
            Self::Silence => "silence",
            Self::Flapping => "flapping",
        }
    }
}

/// Replies a new link needs: one could be a leftover of the handshake.
const REPLIES_NEW: u32 = 2;
/// Replies a link that was down needs, within [`REPLIES_WITHIN`] and without a loss between them.
const REPLIES_AGAIN: u32 = 5;
const REPLIES_WITHIN: Duration = Duration::from_millis(500);
/// A link that flaps must stay clean this long.
const CLEAN: Duration = Duration::from_secs(2);
/// This many suspicions within [`FLAP_WINDOW`] are flapping.
const FLAPS: usize = 4;
const FLAP_WINDOW: Duration = Duration::from_secs(10);
/// A probing link without a reply for this long is down. Longer than any sane round trip.
const PROBE_SILENCE: Duration = Duration::from_secs(2);
/// Least length of a suspicion before Down: a Starlink handover is silent for 60 to 135 ms.
const SUSPECT_MIN: Duration = Duration::from_millis(300);
/// Heartbeats by state. While Suspect they are what ends the suspicion, so they are dense.
const HEARTBEAT_TRAFFIC: Duration = Duration::from_millis(20);
const HEARTBEAT_SUSPECT: Duration = Duration::from_millis(10);
const HEARTBEAT_PROBING: Duration = Duration::from_millis(20);
const HEARTBEAT_DOWN_MIN: Duration = Duration::from_millis(100);
const HEARTBEAT_DOWN_MAX: Duration = Duration::from_secs(1);
/// ... unless idle links have them as often as this: one that is down then costs less than those, and a short trouble is not
/// made long by looking too rarely for its end.
const HEARTBEAT_DOWN_OFTEN: Duration = Duration::from_millis(250);
/// Heartbeats that must go unanswered where no other link could tell that the peer is alive.
const HEARTBEATS_MISSED: u32 = 3;

/// What the state machine looks at when time has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// Send time of the first datagram after the last one that is known to have come.
    pub(super) first_sent: Option<Instant>,
    /// Send time of the third: one or two may simply be lost.
    pub(super) third_sent: Option<Instant>,
    /// How old it may become: path RTT p99.9, report interval and jitter.
    pub(super) timeout: Duration,
    /// The peer's usual report interval.
    pub(super) report_interval: Duration,
    /// Interval of heartbeats at present.
    pub(super) heartbeat: Duration,
    /// When the peer last told of all links it had news of. Only what it told after this link's acknowledgement was
    /// due says that it had nothing to tell of this one.
    pub(super) told_at: Instant,
}

/// The state of one link and direction.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    state: State,
    cause: Cause,
    since: Instant,
    /// The last acknowledgement of anything new.
    acked_at: Instant,
    /// Replies since Probing began, or since the last loss.
    replies: u32,
    first_reply: Instant,
    /// Last loss while Probing.
    lost_at: Instant,
    needs: u32,
    clean: bool,
    flaps: [Instant; FLAPS],
    flap_count: u64,
    probe_interval: Duration,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: State::Probing,
            cause: Cause::New,
            since: now,
            acked_at: now,
            replies: 0,
            first_reply: now,
            lost_at: now,
            needs: REPLIES_NEW,
            clean: false,
            flaps: [Instant::ZERO; FLAPS],
            flap_count: 0,
            probe_interval: HEARTBEAT_DOWN_MIN,
        }
    }

    pub(super) const fn state(&self) -> State {
        self.state
    }

    pub(super) const fn cause(&self) -> Cause {
        self.cause
    }

    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) const fn acked_at(&self) -> Instant {
        self.acked_at
    }

    pub(super) const fn flap_count(&self) -> u64 {
        self.flap_count
    }

    /// `count` datagrams were acknowledged; the youngest of them was sent at `sent_at`.
    pub(super) fn on_ack(&mut self, count: u32, sent_at: Instant, now: Instant) {
        self.acked_at = now;
        match self.state {
            State::Up => {}
            State::Suspect if sent_at > self.since => {
                if self.is_flapping(now) {
                    self.clean = true;
                    self.probe(Cause::Flapping, now);
                } else {
                    self.enter(State::Up, Cause::Replied, now);
                }
            }
            State::Down if sent_at > self.since => {
                self.probe(Cause::Replied, now);
                self.count_replies(count, now);
            }
            State::Suspect | State::Down => {}
            State::Probing => self.count_replies(count, now),
        }
    }

    /// A datagram was lost.
    pub(super) fn on_loss(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.replies = 0;
            self.lost_at = now;
        }
    }

    /// The kernel refused to send.
    pub(super) fn on_send_error(&mut self, now: Instant) {
        match self.state {
            State::Up => self.suspect(Cause::SendError, now),
            State::Probing => self.enter(State::Down, Cause::SendError, now),
            State::Suspect | State::Down => self.cause = Cause::SendError,
        }
    }

    /// Time has passed.
    pub(super) fn handle_timeout(&mut self, silence: &Silence, now: Instant) {
        match self.state {
            State::Up => {
                let Some(cause) = self.suspicion(silence, now) else {
                    return;
                };
                self.suspect(cause, now);
            }
            State::Suspect if now >= self.down_at(silence) => {
                self.enter(State::Down, Cause::Silence, now);
            }
            State::Probing if now >= self.down_at(silence) => {
                self.enter(State::Down, Cause::Silence, now);
            }
            State::Suspect | State::Probing | State::Down => {}
        }
    }

    /// When [`Liveness::handle_timeout`] may change something.
    pub(super) fn poll_timeout(&self, silence: &Silence) -> Instant {
        match self.state {
            State::Up => {
                let (by_data, by_heartbeat) = self.suspect_times(silence);
                if silence.told_at >= by_data {
                    by_data.min(by_heartbeat)
                } else {
                    by_heartbeat
                }
            }
            State::Suspect | State::Probing => self.down_at(silence),
            State::Down => Instant::FAR,
        }
    }

    /// How long a link may be without any datagram. `traffic`: data was sent in the last second; `idle`: the
    /// configured interval without.
    pub(super) fn heartbeat_interval(&self, traffic: bool, idle: Duration) -> Duration {
        match self.state {
            State::Up if traffic => HEARTBEAT_TRAFFIC.min(idle),
            State::Up => idle,
            State::Suspect => HEARTBEAT_SUSPECT,
            State::Probing => HEARTBEAT_PROBING,
            State::Down => self.probe_interval.min(idle.max(HEARTBEAT_DOWN_OFTEN)),
        }
    }

    /// A heartbeat left while the link is down: the next one waits twice as long.
    pub(super) fn on_transmit(&mut self) {
        if self.state == State::Down {
            self.probe_interval = (self.probe_interval * 2).min(HEARTBEAT_DOWN_MAX);
        }
    }

    /// Makes probes of a link that is down frequent again; says whether it is down.
    pub(super) fn probe_soon(&mut self) -> bool {
        self.probe_interval = HEARTBEAT_DOWN_MIN;
        self.state == State::Down
    }

    /// When silence becomes suspicious: with another link that progresses, and without.
    fn suspect_times(&self, silence: &Silence) -> (Instant, Instant) {
        let quiet = (silence.report_interval * 2).max(Duration::from_millis(10));
        let by_data = silence.third_sent.map_or(Instant::FAR, |third| {
            (third + silence.timeout).max(self.acked_at + quiet)
        });
        let beats = silence.timeout + silence.heartbeat * HEARTBEATS_MISSED;
        let by_heartbeat = silence.first_sent.map_or(Instant::FAR, |first| {
            (first + beats).max(self.acked_at + beats)
        });
        (by_data, by_heartbeat)
    }

    fn suspicion(&self, silence: &Silence, now: Instant) -> Option<Cause> {
        let (by_data, by_heartbeat) = self.suspect_times(silence);
        if silence.told_at >= by_data && now >= by_data {
            Some(Cause::AckTimeout)
        } else if now >= by_heartbeat {
            Some(Cause::HeartbeatTimeout)
        } else {
            None
        }
    }

    fn down_at(&self, silence: &Silence) -> Instant {
        match self.state {
            State::Probing => {
                self.acked_at.max(self.since) + PROBE_SILENCE.max(silence.timeout * 3)
            }
            State::Up | State::Suspect | State::Down => {
                self.since + SUSPECT_MIN.max(silence.timeout * 3)
            }
        }
    }

    fn count_replies(&mut self, count: u32, now: Instant) {
        if self.replies == 0 || now.since(self.first_reply) > REPLIES_WITHIN && !self.clean {
            self.replies = 0;
            self.first_reply = now;
        }
        self.replies = self.replies.saturating_add(count);
        let clean = !self.clean || now.since(self.since.max(self.lost_at)) >= CLEAN;
        if self.replies >= self.needs && clean {
            self.clean = false;
            self.enter(State::Up, Cause::Replied, now);
        }
    }

    fn suspect(&mut self, cause: Cause, now: Instant) {
        self.flaps.rotate_left(1);
        self.flaps[FLAPS - 1] = now;
        self.flap_count += 1;
        self.enter(State::Suspect, cause, now);
    }

    fn is_flapping(&self, now: Instant) -> bool {
        self.flap_count >= FLAPS as u64 && now.since(self.flaps[0]) <= FLAP_WINDOW
    }

    fn probe(&mut self, cause: Cause, now: Instant) {
        self.replies = 0;
        self.lost_at = now;
        self.enter(State::Probing, cause, now);
    }

    fn enter(&mut self, state: State, cause: Cause, now: Instant) {
        self.state = state;
        self.cause = cause;
        self.since = now;
        self.probe_interval = HEARTBEAT_DOWN_MIN;
        if state != State::Probing {
            self.needs = REPLIES_AGAIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(oldest_ms: u64, others: bool) -> Silence {
        Silence {
            first_sent: Some(Instant::from_millis(oldest_ms)),
            third_sent: Some(Instant::from_millis(oldest_ms)),
            timeout: Duration::from_millis(40),
            report_interval: Duration::from_millis(5),
            heartbeat: Duration::from_millis(20),
            told_at: if others { Instant::FAR } else { Instant::ZERO },
        }
    }

    fn up(at_ms: u64) -> Liveness {
        let mut link = Liveness::new(Instant::ZERO);
        let at = Instant::from_millis(at_ms);
        link.on_ack(2, at, at);
        assert_eq!(link.state(), State::Up);
        link
    }

    #[test]
    fn data_in_flight_makes_a_link_suspect_while_another_progresses() {
        let mut link = up(1_000);
        link.handle_timeout(&silence(1_000, true), Instant::from_millis(1_039));
        assert_eq!(link.state(), State::Up);
        link.handle_timeout(&silence(1_000, true), Instant::from_millis(1_040));
        assert_eq!(
            (link.state(), link.cause()),
            (State::Suspect, Cause::AckTimeout)
        );
        // An acknowledgement of something older does not end the suspicion, one of something newer does.
        link.on_ack(1, Instant::from_millis(1_001), Instant::from_millis(1_060));
        assert_eq!(link.state(), State::Suspect);
        link.on_ack(1, Instant::from_millis(1_050), Instant::from_millis(1_080));
        assert_eq!((link.state(), link.cause()), (State::Up, Cause::Replied));
    }

    #[test]
    fn two_datagrams_that_do_not_come_may_be_lost() {
        let mut link = up(1_000);
        let mut silence = silence(1_000, true);
        silence.third_sent = None;
        link.handle_timeout(&silence, Instant::from_millis(1_099));
        assert_eq!(link.state(), State::Up);
        silence.third_sent = Some(Instant::from_millis(1_010));
        link.handle_timeout(&silence, Instant::from_millis(1_099));
        assert_eq!(link.state(), State::Suspect);
    }

    #[test]
    fn a_lost_report_is_not_the_links_fault() {
        let mut link = up(1_000);
        // The other link was acknowledged before this one's acknowledgement was due at 1040.
        let mut silence = silence(1_000, true);
        silence.told_at = Instant::from_millis(1_039);
        link.handle_timeout(&silence, Instant::from_millis(1_050));
        assert_eq!(link.state(), State::Up);
        assert_eq!(link.poll_timeout(&silence), Instant::from_millis(1_100));
        silence.told_at = Instant::from_millis(1_051);
        assert!(link.poll_timeout(&silence) <= Instant::from_millis(1_051));
        link.handle_timeout(&silence, Instant::from_millis(1_051));
        assert_eq!(link.state(), State::Suspect);
    }

    #[test]
    fn without_another_link_three_heartbeats_must_be_missed() {
        let mut link = up(1_000);
        let silence = silence(1_000, false);
        assert_eq!(link.poll_timeout(&silence), Instant::from_millis(1_100));
        link.handle_timeout(&silence, Instant::from_millis(1_099));
        assert_eq!(link.state(), State::Up);
        link.handle_timeout(&silence, Instant::from_millis(1_100));
        assert_eq!(
            (link.state(), link.cause()),
            (State::Suspect, Cause::HeartbeatTimeout)
        );
    }

    #[test]
    fn a_long_suspicion_ends_down_and_the_way_up_needs_five_replies() {
        let mut link = up(1_000);
        link.on_send_error(Instant::from_millis(1_000));
        assert_eq!(
            (link.state(), link.cause()),
            (State::Suspect, Cause::SendError)
        );
        link.handle_timeout(&silence(1_000, true), Instant::from_millis(1_300));
        assert_eq!((link.state(), link.cause()), (State::Down, Cause::Silence));
        let idle = Duration::from_millis(100);
        assert_eq!(
            link.heartbeat_interval(true, idle),
            Duration::from_millis(100)
        );
        for _ in 0..5 {
            link.on_transmit();
        }
        assert_eq!(link.heartbeat_interval(true, idle), HEARTBEAT_DOWN_OFTEN);
        let rare = Duration::from_secs(5);
        assert_eq!(link.heartbeat_interval(true, rare), HEARTBEAT_DOWN_MAX);
        let mut at = 5_000;
        for reply in 1..=5 {
            assert_ne!(link.state(), State::Up, "after {reply}");
            link.on_ack(1, Instant::from_millis(at), Instant::from_millis(at + 20));
            at += 20;
        }
        assert_eq!(link.state(), State::Up);
    }

    #[test]
    fn a_loss_or_too_slow_replies_start_the_count_again() {
        let mut link = up(1_000);
        link.on_send_error(Instant::from_millis(1_000));
        link.handle_timeout(&silence(1_000, true), Instant::from_millis(1_300));
        for n in 0..4 {
            link.on_ack(
                1,
                Instant::from_millis(2_000),
                Instant::from_millis(2_000 + n),
            );
        }
        link.on_loss(Instant::from_millis(2_010));
        link.on_ack(1, Instant::from_millis(2_011), Instant::from_millis(2_011));
        assert_eq!(link.state(), State::Probing);
        for n in 0..5 {
            let at = Instant::from_millis(3_000 + n * 300);
            link.on_ack(1, at, at);
        }
        assert_eq!(link.state(), State::Probing);
    }

    #[test]
    fn a_flapping_link_must_stay_clean_for_two_seconds() {
        let mut link = up(1_000);
        let mut at = 1_000;
        for flap in 1..=4 {
            link.on_send_error(Instant::from_millis(at));
            link.on_ack(
                1,
                Instant::from_millis(at + 10),
                Instant::from_millis(at + 30),
            );
            let want = if flap < 4 { State::Up } else { State::Probing };
            assert_eq!(link.state(), want, "after {flap}");
            at += 1_000;
        }
        assert_eq!(link.cause(), Cause::Flapping);
        let began = at - 970;
        let mut went_up = 0;
        for ms in (began..began + 3_000).step_by(20) {
            link.on_ack(1, Instant::from_millis(ms), Instant::from_millis(ms));
            if link.state() == State::Up && went_up == 0 {
                went_up = ms;
            }
        }
        assert!(
            (began + 2_000..began + 2_100).contains(&went_up),
            "{went_up} {began}"
        );
    }
}
