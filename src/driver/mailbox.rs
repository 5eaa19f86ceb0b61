//! What goes from one worker's thread to another's: frames and datagrams for sessions that are there, and mail.
//!
//! ```text
//!  worker A                                             worker B
//!  buffer of A's pool, filled ──► B's inbox (bounded) ──► read, handed to the endpoint
//!          ▲                                                │
//!          └────────────── A's inbox ◄──────────────────────┘ the buffer comes home
//! ```
//!
//! The channels are arrays with a place for everything that may be under way, so nothing waits, locks or allocates
//! here: `try_send` and `try_recv` of the standard library's bounded channel take a lock only to wake a thread that
//! blocks in `recv`, and none does. A worker that sleeps in its datapath is woken by its eventfd, one that does not
//! looks into its inbox in each turn.
//!
//! Never looks into what it carries.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::base::FRAME_BYTES_MAX;
use crate::base::id::SESSIONS_MAX;
use crate::endpoint::{Handover, Mail, SessionId};
use crate::session::path::Origin;
use crate::sys::Wake;

/// Superframes under way from one worker at a time: 2 MiB, 2 ms at 8 Gbit/s.
const LARGE_BUFFERS: usize = 32;
/// Datagrams and small frames under way from one worker at a time: more than a listener's batch.
const SMALL_BUFFERS: usize = 256;
/// Length of the small ones: any datagram of an ordinary path.
const SMALL_BYTES: usize = 2048;
/// Words that may wait for a worker: a second's reports of all sessions that share its WANs.
const MAIL_MAX: usize = 4096;
/// Everything that may wait in an inbox: all buffers of all workers, its own on their way home among them.
const INBOX_MAX: usize = SESSIONS_MAX * (LARGE_BUFFERS + SMALL_BUFFERS) + MAIL_MAX;

/// Bytes on their way, and whose pool they go back to.
#[derive(Debug)]
pub struct Buffer {
    bytes: Box<[u8]>,
    used: usize,
    home: u8,
}

impl Buffer {
    fn new(bytes: usize, home: u8) -> Self {
        Self {
            bytes: vec![0; bytes].into_boxed_slice(),
            used: 0,
            home,
        }
    }

    /// What was put in.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }
}

/// One thing from another worker.
#[derive(Debug)]
pub enum Parcel {
    /// A word.
    Mail(Mail),
    /// A frame for one of our sessions.
    Frame(SessionId, Buffer),
    /// A datagram for one of our sessions.
    Datagram(Origin, Buffer),
    /// A buffer comes home.
    Back(Buffer),
}

/// Wakes a worker that sleeps.
#[derive(Debug)]
pub struct Bell {
    /// The eventfd in the worker's datapath; the control thread uses it without asking.
    pub wake: Wake,
    asleep: AtomicBool,
}

impl Bell {
    /// The bell of a worker that is awake.
    pub const fn new(wake: Wake) -> Self {
        Self {
            wake,
            asleep: AtomicBool::new(false),
        }
    }

    /// To be called after something was put into the inbox.
    fn ring(&self) {
        // What was put in is seen before the worker is found awake: the pair of the fence in `lie_down`.
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake.signal();
        }
    }
}

/// How to reach another worker.
#[derive(Clone, Debug)]
pub struct Address {
    inbox: SyncSender<Parcel>,
    bell: Arc<Bell>,
}

/// One worker's way to all others.
#[derive(Debug)]
pub struct Mailbox {
    own: u8,
    inbox: Receiver<Parcel>,
    bell: Arc<Bell>,
    others: Vec<Address>,
    small: Vec<Buffer>,
    large: Vec<Buffer>,
    /// Mail that found no room and must not be lost.
    late: VecDeque<(u8, Mail)>,
    /// Workers that something was sent to since the bells rang, by bit.
    touched: u16,
    /// Found while lying down.
    found: Option<Parcel>,
    /// Frames and datagrams that left this way.
    handed: u64,
}

/// The mailboxes of workers with these bells, in order.
pub fn connect(bells: &[Arc<Bell>]) -> Vec<Mailbox> {
    let alone = bells.len() == 1;
    let room = if alone { 1 } else { INBOX_MAX };
    let (senders, inboxes): (Vec<_>, Vec<_>) = bells.iter().map(|_| sync_channel(room)).unzip();
    let addresses: Vec<_> = senders
        .into_iter()
        .zip(bells)
        .map(|(inbox, bell)| Address {
            inbox,
            bell: Arc::clone(bell),
        })
        .collect();
    let pool = |count: usize, bytes: usize, own: u8| -> Vec<Buffer> {
        let count = if alone { 0 } else { count };
        (0..count).map(|_| Buffer::new(bytes, own)).collect()
    };
    let parts = inboxes.into_iter().zip(bells).zip(0..);
    parts
        .map(|((inbox, bell), own)| Mailbox {
            own,
            inbox,
            bell: Arc::clone(bell),
            others: addresses.clone(),
            small: pool(SMALL_BUFFERS, SMALL_BYTES, own),
            large: pool(LARGE_BUFFERS, FRAME_BYTES_MAX, own),
            late: VecDeque::new(),
            touched: 0,
            found: None,
            handed: 0,
        })
        .collect()
}

impl Mailbox {
    /// Whether there are other workers.
    pub fn has_others(&self) -> bool {
        self.others.len() > 1
    }

    /// Frames and datagrams that were handed over to other workers.
    pub const fn handed(&self) -> u64 {
        self.handed
    }

    /// The next thing that came. Buffers that came home are put away on the way.
    pub fn take(&mut self) -> Option<Parcel> {
        loop {
            let parcel = self.found.take().or_else(|| self.inbox.try_recv().ok())?;
            match parcel {
                Parcel::Back(buffer) => self.put_away(buffer),
                other => return Some(other),
            }
        }
    }

    /// Gives a buffer back that came from another worker.
    pub fn give_back(&mut self, buffer: Buffer) {
        let home = buffer.home;
        if home == self.own {
            self.put_away(buffer);
        } else {
            // There is room for all buffers; without, this one is freed.
            let _ = self.send(home, Parcel::Back(buffer));
        }
    }

    /// Sends a word.
    pub fn send_mail(&mut self, worker: u8, mail: Mail) {
        if worker == self.own {
            return;
        }
        if let Err(Parcel::Mail(mail)) = self.send(worker, Parcel::Mail(mail))
            && !mail.is_repeated()
        {
            self.late.push_back((worker, mail));
        }
    }

    /// Sends once more what found no room before.
    pub fn send_late(&mut self) {
        for _ in 0..self.late.len() {
            if let Some((worker, mail)) = self.late.pop_front() {
                self.send_mail(worker, mail);
            }
        }
    }

    /// Wakes those who were sent something.
    pub fn ring(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        for (at, other) in self.others.iter().enumerate() {
            if touched >> at & 1 == 1 {
                other.bell.ring();
            }
        }
    }

    /// About to sleep: from here on others ring. `false` = something is there already.
    pub fn lie_down(&mut self) -> bool {
        if !self.has_others() {
            return true;
        }
        self.bell.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.found = self.inbox.try_recv().ok();
        self.found.is_none()
    }

    /// Awake.
    pub fn get_up(&mut self) {
        if self.has_others() {
            self.bell.asleep.store(false, Ordering::SeqCst);
        }
    }

    fn put_away(&mut self, buffer: Buffer) {
        if buffer.bytes.len() == SMALL_BYTES {
            self.small.push(buffer);
        } else {
            self.large.push(buffer);
        }
    }

    fn filled(&mut self, bytes: &[u8]) -> Option<Buffer> {
        let mut buffer = if bytes.len() <= SMALL_BYTES {
            self.small.pop()
        } else if bytes.len() <= FRAME_BYTES_MAX {
            self.large.pop()
        } else {
            None
        }?;
        buffer.bytes[..bytes.len()].copy_from_slice(bytes);
        buffer.used = bytes.len();
        Some(buffer)
    }

    #[expect(
        clippy::result_large_err,
        reason = "what does not fit comes back whole"
    )]
    fn send(&mut self, worker: u8, parcel: Parcel) -> Result<(), Parcel> {
        let Some(other) = self.others.get(usize::from(worker)) else {
            return Err(parcel);
        };
        match other.inbox.try_send(parcel) {
            Ok(()) => {
                self.touched |= 1 << worker;
                Ok(())
            }
            Err(TrySendError::Full(parcel) | TrySendError::Disconnected(parcel)) => Err(parcel),
        }
    }

    fn hand_over(&mut self, worker: u8, bytes: &[u8], wrap: impl Fn(Buffer) -> Parcel) -> bool {
        let Some(buffer) = self.filled(bytes) else {
            return false;
        };
        match self.send(worker, wrap(buffer)) {
            Ok(()) => {
                self.handed += 1;
                true
            }
            Err(Parcel::Frame(_, buffer) | Parcel::Datagram(_, buffer)) => {
                self.put_away(buffer);
                false
            }
            Err(_) => false,
        }
    }
}

impl Handover for Mailbox {
    fn frame(&mut self, worker: u8, session: SessionId, frame: &[u8]) -> bool {
        self.hand_over(worker, frame, |buffer| Parcel::Frame(session, buffer))
    }

    fn datagram(&mut self, worker: u8, origin: Origin, datagram: &[u8]) -> bool {
        self.hand_over(worker, datagram, |buffer| Parcel::Datagram(origin, buffer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::PeerId;
    use crate::endpoint::mail::Presence;

    const SESSION: SessionId = SessionId {
        peer: PeerId(0),
        number: 1,
    };

    fn two() -> (Mailbox, Mailbox) {
        let bell = || Arc::new(Bell::new(Wake::new().unwrap()));
        let mut all = connect(&[bell(), bell()]);
        let second = all.pop().unwrap();
        (all.pop().unwrap(), second)
    }

    fn presence() -> Mail {
        Mail::Presence {
            session: SESSION,
            presence: Presence::Joined,
        }
    }

    #[test]
    fn bytes_arrive_as_they_were_and_buffers_come_home() {
        let (mut a, mut b) = two();
        for round in 0..3 * SMALL_BUFFERS {
            let frame = vec![u8::try_from(round % 251).unwrap(); 1 + round % SMALL_BYTES];
            assert!(a.frame(1, SESSION, &frame));
            let Some(Parcel::Frame(SESSION, mut buffer)) = b.take() else {
                panic!("no frame");
            };
            assert_eq!(buffer.bytes_mut(), &frame[..]);
            b.give_back(buffer);
            assert!(a.take().is_none());
        }
        assert_eq!((a.handed(), a.small.len()), (768, SMALL_BUFFERS));
    }

    #[test]
    fn a_worker_that_does_not_look_costs_frames_and_nothing_else() {
        let (mut a, mut b) = two();
        let superframe = vec![7; FRAME_BYTES_MAX];
        let taken = (0..100).filter(|_| a.frame(1, SESSION, &superframe));
        assert_eq!(taken.count(), LARGE_BUFFERS);
        // Small ones and mail have their own room.
        assert!(a.frame(1, SESSION, &[1]));
        a.send_mail(1, presence());
        while let Some(parcel) = b.take() {
            if let Parcel::Frame(_, buffer) = parcel {
                b.give_back(buffer);
            }
        }
        assert!(a.take().is_none());
        assert_eq!(a.large.len(), LARGE_BUFFERS);
        assert!(a.frame(1, SESSION, &superframe));
        let too_long = vec![0; FRAME_BYTES_MAX + 1];
        assert!(!a.frame(1, SESSION, &too_long));
    }

    #[test]
    fn mail_that_must_not_be_lost_waits_for_room() {
        let (mut a, mut b) = two();
        for _ in 0..INBOX_MAX + 5 {
            a.send_mail(1, presence());
        }
        assert_eq!(a.late.len(), 5);
        let mut seen = 0;
        while b.take().is_some() {
            seen += 1;
        }
        a.send_late();
        while b.take().is_some() {
            seen += 1;
        }
        assert_eq!((seen, a.late.len()), (INBOX_MAX + 5, 0));
    }

    #[test]
    fn a_sleeper_is_woken_once_and_nobody_sleeps_over_a_parcel() {
        let (mut a, mut b) = two();
        assert!(b.lie_down());
        a.send_mail(1, presence());
        a.send_mail(1, presence());
        a.ring();
        assert!(b.bell.wake.take(), "woken");
        a.send_mail(1, presence());
        a.ring();
        assert!(!b.bell.wake.take(), "awake already");
        b.get_up();
        assert!(!b.lie_down(), "there is something");
        b.get_up();
        assert_eq!(std::iter::from_fn(|| b.take()).count(), 3);
    }
}
