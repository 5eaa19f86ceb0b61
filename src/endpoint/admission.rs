//! Who may cost us a key agreement: decides about each HELLO before anything is decrypted.
//!
//! ```text
//! HELLO ─► shape ─► mac1 ─► mac2? ─┬─ wrong ──────────────► COOKIE (capped) or drop
//!                                  ├─ none, quiet ────────► pass
//!                                  ├─ none, under load ───► COOKIE (capped) or drop
//!                                  └─ right, quiet ───────► pass
//!                                     right, under load ──► bucket of the address ─► reserve ─► pass or drop
//! ```
//!
//! It keeps nothing for an address that has not proven itself, never answers with more bytes than it got, and never
//! writes a log line. A HELLO that carries a wrong mac2 gets a COOKIE even when it is quiet: its cookie may have been
//! made before a restart, and silence would lock its sender out until it forgets the cookie.
//!
//! Invariant: memory is fixed after construction.

mod bucket;
mod peer_gate;

pub use peer_gate::{Gate, PeerGate};

use std::net::SocketAddr;
use std::time::Duration;

use zeroize::Zeroizing;

use self::bucket::{ADDRESS_BURST, Addresses, Bucket};
use crate::base::{DropReason, Instant};
use crate::crypto::keys::PublicKey;
use crate::crypto::mac::{CookieSeal, CookieSecret, KeyedHash, Mac1Key};
use crate::wire::handshake::{COOKIE_BYTES, COOKIE_NONCE_BYTES, Hello, MAC_BYTES};

/// A cookie is accepted in the period in which it was made and in the next one: 120 s at most, as in WireGuard.
const COOKIE_PERIOD: Duration = Duration::from_secs(60);
/// COOKIE answers in a second: enough for a reconnecting crowd, less than 1 Mbit/s sent to strangers.
const COOKIES_PER_S: u32 = 1000;
const COOKIES_BURST: u32 = 100;
/// Handshakes waiting for their key agreement; beyond, they are dropped.
pub const QUEUE_MAX: usize = 4096;
/// From so many waiting handshakes on, an address must prove itself.
const QUEUE_BUSY: usize = QUEUE_MAX / 8;

/// What to do with a HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Spend a key agreement on it.
    Pass,
    /// Discard it without an answer.
    Drop(DropReason),
    /// Discard it and send this back to where it came from.
    Cookie([u8; COOKIE_BYTES]),
}

/// The gate in front of all handshakes of one server.
pub struct Admission {
    mac1: Mac1Key,
    seal: CookieSeal,
    cookies: Cookies,
    /// Handshakes without proof; empty means "under load".
    quiet: Bucket,
    /// Handshakes with proof while under load: many honest-looking addresses must not cost more than this.
    reserve: Bucket,
    replies: Bucket,
    addresses: Addresses,
    queued: usize,
}

impl Admission {
    /// A gate for the owner of `server`, with a random `seed`: the gates of the workers of one server know each other's
    /// cookies. `worker` is the number of this one. Up to `handshakes_per_s` pass unproven, and as many
    /// again when their addresses are proven.
    pub fn new(server: PublicKey, seed: &[u8; 32], worker: u8, handshakes_per_s: u32) -> Self {
        let rate = handshakes_per_s.max(1);
        // A quarter of a second at once: peers come back together after an outage.
        let burst = (rate / 4).max(ADDRESS_BURST);
        Self {
            mac1: Mac1Key::new(server),
            seal: CookieSeal::new(server),
            cookies: Cookies::new(seed, worker),
            quiet: Bucket::new(rate, burst),
            reserve: Bucket::new(rate, burst),
            replies: Bucket::new(COOKIES_PER_S, COOKIES_BURST),
            addresses: Addresses::new(seed),
            queued: 0,
        }
    }

    /// Decides about a HELLO that arrived `from` there.
    pub fn check(&mut self, hello: &[u8], from: SocketAddr, now: Instant) -> Verdict {
        let hello = match self.genuine(hello) {
            Ok(hello) => hello,
            Err(reason) => return Verdict::Drop(reason),
        };
        let proof = self.cookies.proof(&hello, from, now);
        if proof == Proof::Wrong {
            return self.cookie(&hello, from, now);
        }
        if self.queued < QUEUE_BUSY && self.quiet.take(now) {
            return Verdict::Pass;
        }
        if proof == Proof::None {
            return self.cookie(&hello, from, now);
        }
        if self.queued < QUEUE_MAX && self.addresses.take(from.ip(), now) && self.reserve.take(now)
        {
            Verdict::Pass
        } else {
            Verdict::Drop(DropReason::HandshakeLimited)
        }
    }

    /// Whether a HELLO proves, by a right mac2, that its sender receives at `from`.
    pub fn is_proven(&mut self, hello: &[u8], from: SocketAddr, now: Instant) -> bool {
        Hello::parse(hello).is_ok_and(|hello| self.cookies.proof(&hello, from, now) == Proof::Right)
    }

    /// Asks the sender of a HELLO to prove its address although there is no load, as [`Gate::Prove`] wants it.
    pub fn challenge(&mut self, hello: &[u8], from: SocketAddr, now: Instant) -> Verdict {
        match self.genuine(hello) {
            Ok(hello) => self.cookie(&hello, from, now),
            Err(reason) => Verdict::Drop(reason),
        }
    }

    /// Told how many handshakes wait for their key agreement, when they are not done at once.
    pub const fn on_queue(&mut self, queued: usize) {
        self.queued = queued;
    }

    fn genuine<'a>(&self, hello: &'a [u8]) -> Result<Hello<'a>, DropReason> {
        let hello = Hello::parse(hello)?;
        self.mac1.verify(hello.before_mac1(), hello.mac1())?;
        Ok(hello)
    }

    fn cookie(&mut self, hello: &Hello<'_>, from: SocketAddr, now: Instant) -> Verdict {
        if !self.replies.take(now) {
            return Verdict::Drop(DropReason::HandshakeLimited);
        }
        let cookie = self.cookies.current(now).cookie(from);
        let nonce = self.cookies.nonce();
        Verdict::Cookie(self.seal.seal(hello.sender(), nonce, hello.mac1(), &cookie))
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("queued", &self.queued)
            .finish_non_exhaustive()
    }
}

/// What mac2 of a HELLO says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// All zero: the sender has no cookie.
    None,
    Right,
    Wrong,
}

/// The secrets of this and the previous period, made from one seed.
struct Cookies {
    seed: Zeroizing<[u8; 32]>,
    nonces: KeyedHash,
    nonce: u64,
    period: u64,
    current: CookieSecret,
    previous: CookieSecret,
}

impl Cookies {
    fn new(seed: &[u8; 32], worker: u8) -> Self {
        let mut label = *b"cookie nonces .";
        label[14] = worker; // no nonce is used by two
        Self {
            nonces: KeyedHash::new(seed, &label),
            nonce: 0,
            period: 0,
            current: CookieSecret::new(seed, 0),
            // Nobody has a cookie of the period before the first.
            previous: CookieSecret::new(seed, u64::MAX),
            seed: Zeroizing::new(*seed),
        }
    }

    fn current(&mut self, now: Instant) -> &CookieSecret {
        let period = now.as_nanos() / u64::try_from(COOKIE_PERIOD.as_nanos()).unwrap_or(u64::MAX);
        if period != self.period {
            self.period = period;
            self.current = CookieSecret::new(&self.seed, period);
            self.previous = CookieSecret::new(&self.seed, period.wrapping_sub(1));
        }
        &self.current
    }

    fn proof(&mut self, hello: &Hello<'_>, from: SocketAddr, now: Instant) -> Proof {
        if hello.mac2() == &[0; MAC_BYTES] {
            return Proof::None;
        }
        let right = |secret: &CookieSecret| {
            secret
                .cookie(from)
                .verify(hello.before_mac2(), hello.mac2())
        };
        if right(self.current(now)) || right(&self.previous) {
            Proof::Right
        } else {
            Proof::Wrong
        }
    }

    /// Not predictable and, with a fresh seed, not repeated after a restart.
    fn nonce(&mut self) -> [u8; COOKIE_NONCE_BYTES] {
        self.nonce += 1;
        self.nonces.hash(&self.nonce.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::bucket::ADDRESS_PER_S;
    use super::*;
    use crate::crypto::mac::Cookie;
    use crate::wire::handshake::{
        CookieReply, HELLO_BYTES, emit_hello, sign_hello_mac1, sign_hello_mac2,
    };

    const SERVER: PublicKey = PublicKey([0x42; 32]);
    const RATE: u32 = 100;
    const BURST: u32 = 25;

    fn gate() -> Admission {
        Admission::new(SERVER, &[7; 32], 0, RATE)
    }

    fn hello() -> [u8; HELLO_BYTES] {
        let mut hello = [0; HELLO_BYTES];
        emit_hello(&mut hello, 5).fill(0x77);
        sign_hello_mac1(&mut hello, |covered| Mac1Key::new(SERVER).sign(covered));
        hello
    }

    fn address(n: u32) -> SocketAddr {
        (std::net::Ipv4Addr::from_bits(0x0a00_0000 + n), 1000).into()
    }

    fn opened(reply: Verdict, hello: &[u8]) -> Cookie {
        let Verdict::Cookie(reply) = reply else {
            panic!("{reply:?} is not a cookie")
        };
        let reply = CookieReply::parse(&reply).unwrap();
        assert_eq!(reply.receiver(), 5);
        CookieSeal::new(SERVER)
            .open(&reply, Hello::parse(hello).unwrap().mac1())
            .unwrap()
    }

    /// The HELLO with a right mac2 for `from`.
    fn proven(gate: &mut Admission, from: SocketAddr, now: Instant) -> [u8; HELLO_BYTES] {
        let mut hello = hello();
        let cookie = gate.cookies.current(now).cookie(from);
        sign_hello_mac2(&mut hello, |covered| cookie.mac2(covered));
        hello
    }

    fn exhaust(gate: &mut Admission, now: Instant) {
        while gate.quiet.take(now) {}
    }

    #[test]
    fn when_quiet_a_hello_passes_and_a_flipped_bit_never_does() {
        let (mut gate, hello) = (gate(), hello());
        assert_eq!(gate.check(&hello, address(1), Instant::ZERO), Verdict::Pass);
        let quiet = gate.quiet.full_at;
        for bit in 0..HELLO_BYTES * 8 {
            let mut forged = hello;
            forged[bit / 8] ^= 1 << (bit % 8);
            // Later and later, so that the cap on answers does not hide anything.
            let now = Instant::from_millis(bit as u64 * 10);
            let verdict = gate.check(&forged, address(1), now);
            if bit / 8 < HELLO_BYTES - MAC_BYTES {
                assert!(
                    matches!(verdict, Verdict::Drop(_)),
                    "bit {bit}: {verdict:?}"
                );
            } else {
                assert!(
                    matches!(verdict, Verdict::Cookie(_)),
                    "bit {bit}: {verdict:?}"
                );
            }
        }
        assert!(
            gate.quiet.full_at == quiet,
            "a forged HELLO must not use up the rate"
        );
    }

    #[test]
    fn under_load_a_cookie_is_asked_for_and_opens_the_gate() {
        let (mut gate, mut hello, now) = (gate(), hello(), Instant::from_millis(5));
        for _ in 0..BURST {
            assert_eq!(gate.check(&hello, address(1), now), Verdict::Pass);
        }
        let cookie = opened(gate.check(&hello, address(1), now), &hello);
        sign_hello_mac2(&mut hello, |covered| cookie.mac2(covered));
        assert!(gate.is_proven(&hello, address(1), now));
        assert_eq!(gate.check(&hello, address(1), now), Verdict::Pass);
        // From elsewhere the same bytes prove nothing.
        assert!(!gate.is_proven(&hello, address(2), now));
        assert!(matches!(
            gate.check(&hello, address(2), now),
            Verdict::Cookie(_)
        ));
        // Half a second later there is no load any more.
        let later = now + Duration::from_millis(500);
        assert_eq!(gate.check(&self::hello(), address(3), later), Verdict::Pass);
    }

    #[test]
    fn a_long_queue_is_load_and_a_full_one_admits_nobody() {
        let (mut gate, now) = (gate(), Instant::ZERO);
        let proven = proven(&mut gate, address(1), now);
        gate.on_queue(QUEUE_BUSY);
        assert!(matches!(
            gate.check(&hello(), address(1), now),
            Verdict::Cookie(_)
        ));
        assert_eq!(gate.check(&proven, address(1), now), Verdict::Pass);
        gate.on_queue(QUEUE_MAX);
        let limited = Verdict::Drop(DropReason::HandshakeLimited);
        assert_eq!(gate.check(&proven, address(1), now), limited);
    }

    #[test]
    fn under_load_one_address_gets_five_at_once_and_twenty_a_second() {
        let mut gate = Admission::new(SERVER, &[7; 32], 0, 10_000);
        let from = address(1);
        let mut passed = 0;
        for ms in 0..1000 {
            let now = Instant::from_millis(ms);
            exhaust(&mut gate, now);
            let hello = proven(&mut gate, from, now);
            passed += u32::from(gate.check(&hello, from, now) == Verdict::Pass);
        }
        assert_eq!(passed, ADDRESS_BURST + ADDRESS_PER_S - 1);
    }

    #[test]
    fn under_load_many_proven_addresses_share_the_reserve() {
        let (mut gate, now) = (gate(), Instant::ZERO);
        exhaust(&mut gate, now);
        let passed = (0..1000).filter(|&n| {
            let hello = proven(&mut gate, address(n), now);
            gate.check(&hello, address(n), now) == Verdict::Pass
        });
        assert_eq!(passed.count(), BURST as usize);
    }

    #[test]
    fn answers_are_capped() {
        let (mut gate, hello) = (gate(), hello());
        let mut answers = 0;
        for tenth_ms in 0..10_000 {
            let now = Instant::from_nanos(tenth_ms * 100_000);
            exhaust(&mut gate, now);
            let verdict = gate.check(&hello, address(1), now);
            answers += u32::from(matches!(verdict, Verdict::Cookie(_)));
        }
        assert_eq!(answers, COOKIES_PER_S + COOKIES_BURST - 1);
    }

    #[test]
    fn a_cookie_lives_between_one_and_two_periods() {
        let mut gate = gate();
        let (from, start) = (
            address(1),
            Instant::ZERO + COOKIE_PERIOD - Duration::from_secs(1),
        );
        let hello = proven(&mut gate, from, start);
        for (seconds, good) in [(0, true), (60, true), (61, false), (600, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(gate.is_proven(&hello, from, now), good, "{seconds} s");
        }
    }

    #[test]
    fn a_cookie_from_before_a_restart_earns_a_new_one() {
        let (mut before, mut gate) = (gate(), Admission::new(SERVER, &[8; 32], 0, RATE));
        let (from, now) = (address(1), Instant::ZERO);
        let mut hello = proven(&mut before, from, now);
        let cookie = opened(gate.check(&hello, from, now), &hello);
        sign_hello_mac2(&mut hello, |covered| cookie.mac2(covered));
        assert_eq!(gate.check(&hello, from, now), Verdict::Pass);
    }

    #[test]
    fn a_challenge_asks_for_proof_without_load() {
        let (mut gate, mut hello, now) = (gate(), hello(), Instant::ZERO);
        let cookie = opened(gate.challenge(&hello, address(1), now), &hello);
        sign_hello_mac2(&mut hello, |covered| cookie.mac2(covered));
        assert!(gate.is_proven(&hello, address(1), now));
        hello[100] ^= 1;
        let dropped = Verdict::Drop(DropReason::HandshakeMac);
        assert_eq!(gate.challenge(&hello, address(1), now), dropped);
    }
}
