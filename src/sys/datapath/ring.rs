//! One io_uring: opening it with the best flags, the submission queue, entering, reaping.
//!
//! Knows nothing of sockets or slots. The flags, best first: SINGLE_ISSUER with DEFER_TASKRUN (Linux 6.1),
//! COOP_TASKRUN (5.19), none. SUBMIT_ALL (5.18) always where it exists, since a failing operation would
//! otherwise end the batch it stands in.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, cqueue, opcode, squeue};

use super::Stats;
use super::coalesce::Patience;
use super::token::Token;

/// Submission queue of a datapath: a turn's worth of writes when no socket has segmentation offload.
pub(super) const SQ_ENTRIES: u32 = 1_024;
/// Completion queue as a multiple of it: all buffers of all groups and all writes fit, because an overflow
/// ends multishot reads.
const CQ_FACTOR: u32 = 4;
/// Completions copied out of the queue at a time.
const BATCH: usize = 128;

/// The ring and what waits in front of it.
pub(super) struct Ring {
    ring: IoUring,
    /// Operations that found the submission queue full. Empty but for bursts.
    backlog: VecDeque<squeue::Entry>,
    batch: Vec<Completion>,
    mode: &'static str,
    /// Place of the ring in this thread's table of registered rings, so that entering needs no look-up of its
    /// descriptor (Linux 5.18).
    registered: Option<u32>,
    /// Writes pushed since the last wait; as a rule they are complete as soon as they are handed over.
    writes: u32,
}

// `enum io_uring_register_op` in `linux/io_uring.h`.
const REGISTER_FILES_UPDATE: u8 = 6;
const REGISTER_BUFFERS_UPDATE: u8 = 16;
const REGISTER_RING_FDS: u8 = 20;
const UNREGISTER_RING_FDS: u8 = 21;
/// `IORING_ENTER_REGISTERED_RING`: the descriptor is a place in the table of registered rings.
const ENTER_REGISTERED_RING: u32 = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RingUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// One completion.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) token: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The operation goes on and will complete again.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// The kernel is done with the memory of a send without a copy; the result says whether it was one.
    pub(super) fn notification(self) -> bool {
        cqueue::notif(self.flags)
    }

    /// The provided buffer that was filled or at least taken.
    pub(super) fn buffer(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

impl Ring {
    /// Opens a ring of `entries`; with `disabled` it takes no operation before [`Ring::enable`].
    pub(super) fn open(entries: u32, disabled: bool) -> io::Result<Self> {
        let mut refused = io::Error::from(io::ErrorKind::Unsupported);
        for level in 0..4 {
            let mut builder = IoUring::builder();
            builder.dontfork().setup_cqsize(entries * CQ_FACTOR);
            let mode = match level {
                0 => {
                    builder
                        .setup_submit_all()
                        .setup_single_issuer()
                        .setup_defer_taskrun();
                    "deferred task work"
                }
                1 => {
                    builder.setup_submit_all().setup_coop_taskrun();
                    "cooperative task work"
                }
                2 => {
                    builder.setup_submit_all();
                    "plain"
                }
                _ => "plain, no submit-all",
            };
            if disabled {
                builder.setup_r_disabled();
            }
            match builder.build(entries) {
                Ok(ring) if ring.params().is_feature_ext_arg() => {
                    let backlog = VecDeque::with_capacity(entries as usize);
                    return Ok(Self {
                        registered: register_ring(&ring),
                        ring,
                        backlog,
                        batch: Vec::with_capacity(BATCH),
                        mode,
                        writes: 0,
                    });
                }
                Ok(_) => refused = io::ErrorKind::Unsupported.into(),
                // Only "invalid argument" is about the flags.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Restricts a disabled ring to the operations of a datapath and enables it. A seccomp filter does not see
    /// what a ring does; this is the fence against a ring that was taken over. `false` when the kernel cannot
    /// restrict (Linux 5.10): it is enabled all the same.
    /// A kernel without ReadMulti or SendZc refuses to hear of it, hence `read_multi` and `send_zc`.
    pub(super) fn enable(&self, read_multi: bool, send_zc: bool) -> io::Result<bool> {
        let mut fence = vec![
            Restriction::sqe_op(opcode::Read::CODE),
            Restriction::sqe_op(opcode::ReadFixed::CODE),
            Restriction::sqe_op(opcode::RecvMulti::CODE),
            Restriction::sqe_op(opcode::Write::CODE),
            Restriction::sqe_op(opcode::WriteFixed::CODE),
            Restriction::sqe_op(opcode::SendMsg::CODE),
            Restriction::sqe_op(opcode::PollAdd::CODE),
            Restriction::sqe_op(opcode::AsyncCancel::CODE),
            Restriction::sqe_flags_allowed((Flags::FIXED_FILE | Flags::BUFFER_SELECT).bits()),
            Restriction::register_op(REGISTER_FILES_UPDATE),
            Restriction::register_op(REGISTER_BUFFERS_UPDATE),
            Restriction::register_op(UNREGISTER_RING_FDS),
        ];
        if read_multi {
            fence.push(Restriction::sqe_op(opcode::ReadMulti::CODE));
        }
        if send_zc {
            fence.push(Restriction::sqe_op(opcode::SendZc::CODE));
        }
        let restricted = self.submitter().register_restrictions(&mut fence).is_ok();
        self.submitter().register_enable_rings()?;
        Ok(restricted)
    }

    /// How completions are delivered, in words.
    pub(super) const fn mode(&self) -> &'static str {
        self.mode
    }

    /// Whether waits can collect for a moment (Linux 6.12).
    pub(super) fn can_collect(&self) -> bool {
        self.ring.params().is_feature_min_timeout()
    }

    /// Whether the ring's own descriptor is registered.
    pub(super) const fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// A write was pushed.
    pub(super) const fn note_write(&mut self) {
        self.writes += 1;
    }

    /// What was pushed is handed over and has completed, or will by itself.
    pub(super) const fn forget_writes(&mut self) {
        self.writes = 0;
    }

    /// Writes pushed since the last wait.
    pub(super) const fn writes(&self) -> u32 {
        self.writes
    }

    /// Whether the kernel can send without a copy (Linux 6.0). Whether it does so on a socket is found by using it.
    pub(super) fn knows_zero_copy(&self) -> bool {
        let mut known = io_uring::Probe::new();
        self.submitter().register_probe(&mut known).is_ok()
            && known.is_supported(opcode::SendZc::CODE)
    }

    /// For registrations.
    pub(super) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues an operation.
    ///
    /// # Safety
    /// Memory that the operation names stays valid, and is used as the operation allows, until it completes.
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry, token: Token, stats: &mut Stats) {
        let entry = entry.user_data(token.pack());
        if self.backlog.is_empty() {
            // SAFETY: the caller vouches for the memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
            // Full: hand over what is there. An error here shows again in the next `enter`.
            let _ = self.enter(0, None, stats);
            // SAFETY: the caller vouches for the memory.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.backlog.push_back(entry);
    }

    /// Queues a cancellation of everything with this token.
    pub(super) fn push_cancel(&mut self, token: Token, stats: &mut Stats) {
        let entry = opcode::AsyncCancel::new(token.pack()).build();
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(entry, Token::Cancel, stats) };
    }

    /// Queues a cancellation of everything.
    pub(super) fn push_cancel_all(&mut self, stats: &mut Stats) {
        let all = io_uring::types::CancelBuilder::any().all();
        let entry = opcode::AsyncCancel2::new(all).build();
        // SAFETY: a cancellation names no memory.
        unsafe { self.push(entry, Token::Cancel, stats) };
    }

    /// Hands over everything queued and waits for `want` completions or until `timeout` is over.
    pub(super) fn enter(
        &mut self,
        want: u32,
        timeout: Option<Duration>,
        stats: &mut Stats,
    ) -> io::Result<()> {
        let min_wait = Duration::ZERO;
        self.enter_collecting(Patience { want, min_wait }, timeout, stats)
    }

    /// As [`Ring::enter`]; after `min_wait` one completion is enough.
    pub(super) fn enter_collecting(
        &mut self,
        patience: Patience,
        timeout: Option<Duration>,
        stats: &mut Stats,
    ) -> io::Result<()> {
        self.refill();
        let want = patience.want;
        let queued = u32::try_from(self.ring.submission().len()).unwrap_or(0);
        let time = timeout.map(|t| Timespec::new().sec(t.as_secs()).nsec(t.subsec_nanos()));
        let mut args = SubmitArgs::new();
        if let Some(time) = &time {
            args = args.timespec(time);
        }
        if !patience.min_wait.is_zero() {
            // Longer than the timeout it would win over it.
            let longest = timeout.map_or(patience.min_wait, |t| t.min(patience.min_wait));
            let micros = u32::try_from(longest.as_micros()).unwrap_or(u32::MAX);
            args = args.min_wait_usec(micros.max(1));
        }
        let flags = (EnterFlags::EXT_ARG | EnterFlags::GETEVENTS).bits();
        stats.submits += 1;
        stats.waits += u64::from(want > 0);
        if want > 0 {
            self.writes = 0;
        }
        match self.enter_kernel(queued, want, flags, &args) {
            Ok(count) => stats.sqes += count as u64,
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn enter_kernel(
        &self,
        queued: u32,
        want: u32,
        flags: u32,
        args: &SubmitArgs<'_, '_>,
    ) -> io::Result<usize> {
        let Some(index) = self.registered else {
            // SAFETY: EXT_ARG takes a `SubmitArgs`; it and the timespec it points to live until the call returns.
            return unsafe { self.ring.submitter().enter(queued, want, flags, Some(args)) };
        };
        // SAFETY: as above; the index is the one that this thread's table has for this ring.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                index,
                queued,
                want,
                flags | ENTER_REGISTERED_RING,
                std::ptr::from_ref(args),
                size_of::<SubmitArgs<'_, '_>>(),
            )
        };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Completions that are ready.
    pub(super) fn ready(&mut self) -> usize {
        self.ring.completion().len()
    }

    /// Copies up to `most` completions out; they are read with [`Ring::completion`].
    pub(super) fn reap(&mut self, most: usize) -> usize {
        let most = most.min(BATCH);
        self.batch.clear();
        let taken = self.ring.completion().take(most).map(|entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        });
        self.batch.extend(taken);
        self.batch.len()
    }

    /// One of the completions that [`Ring::reap`] took.
    pub(super) fn completion(&self, index: usize) -> Completion {
        self.batch[index]
    }

    /// Puts `fd` at `index` of the table of registered files; -1 empties the place.
    pub(super) fn set_file(&self, index: u16, fd: RawFd) -> io::Result<()> {
        self.submitter()
            .register_files_update(u32::from(index), &[fd])
            .map(drop)
    }

    /// Hands over everything queued, also what did not fit the submission queue.
    pub(super) fn flush(&mut self, stats: &mut Stats) -> io::Result<()> {
        /// Each attempt takes a whole queue; more than these only when the kernel takes nothing at all.
        const ATTEMPTS: usize = 64;
        for _ in 0..ATTEMPTS {
            self.enter(0, None, stats)?;
            if self.backlog.is_empty() && self.ring.submission().is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// More is queued than one `enter` hands over.
    pub(super) fn is_backed_up(&self) -> bool {
        !self.backlog.is_empty()
    }

    fn refill(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: the caller of `push`, who queued this entry, vouched for its memory until completion.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // The table holds the ring open until this thread ends.
        if let Some(index) = self.registered {
            let _ = update_ring(&self.ring, UNREGISTER_RING_FDS, index, 0);
        }
    }
}

/// Registers the ring's own descriptor with this thread; `None` before Linux 5.18, or when the table is full.
fn register_ring(ring: &IoUring) -> Option<u32> {
    /// "Any free place".
    const ANY: u32 = u32::MAX;
    let fd = u64::try_from(ring.as_raw_fd()).ok()?;
    update_ring(ring, REGISTER_RING_FDS, ANY, fd).ok()
}

/// Changes one place of this thread's table of registered rings; returns the place.
fn update_ring(ring: &IoUring, operation: u8, offset: u32, data: u64) -> io::Result<u32> {
    let mut update = RingUpdate {
        offset,
        reserved: 0,
        data,
    };
    // SAFETY: both operations read and write one live `struct io_uring_rsrc_update`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            libc::c_uint::from(operation),
            &raw mut update,
            1,
        )
    };
    if result == 1 {
        Ok(update.offset)
    } else {
        Err(io::Error::last_os_error())
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backlog = self.backlog.len();
        f.debug_struct("Ring")
            .field("mode", &self.mode)
            .field("backlog", &backlog)
            .finish()
    }
}

/// The wait is over, a signal came, or completions must be reaped first: all reasons to look and come again.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
    )
}
