//! How urgently the scheduler runs a thread: real time for programs whose lateness would be mistaken for a property
//! of the network, and before ordinary threads for those that carry packets.

use std::io;

use super::option;

/// Asks for first-in-first-out scheduling of the calling thread. Priorities go from 1 to 99.
///
/// # Errors
/// EPERM without CAP_SYS_NICE in the initial user namespace or a sufficient RLIMIT_RTPRIO.
pub fn set_realtime(priority: i32) -> io::Result<()> {
    let parameter = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: the pointer is to a live sched_param that the kernel copies during the call; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter) };
    option::check(result)
}

/// What the data thread asks for. Packets wait for nothing else on the host, as they would not in the kernel; the
/// thread sleeps whenever there is nothing to carry.
const NICE: libc::c_int = -15;

/// Lets the calling thread run before ordinary ones.
///
/// # Errors
/// EACCES without CAP_SYS_NICE in the initial user namespace; the thread runs as before.
pub fn raise() -> io::Result<()> {
    // SAFETY: the call takes numbers only; 0 names the calling thread (setpriority(2), "C library/kernel
    // differences": the nice value is per thread).
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
    option::check(result)
}

/// Most processors that the kernel can have (CONFIG_NR_CPUS on x86-64), rounded up to whole words.
const CPUS_MAX: u16 = 8192;

/// Binds the calling thread to one processor.
///
/// # Errors
/// EINVAL: there is no such processor, or it is not among those that the process may use.
pub fn pin(cpu: u16) -> io::Result<()> {
    let mut set = [0_u64; CPUS_MAX as usize / 64];
    let word = set
        .get_mut(usize::from(cpu / 64))
        .ok_or(io::ErrorKind::InvalidInput)?;
    *word = 1 << (cpu % 64);
    // SAFETY: the pointer is to a live array of `size_of_val` bytes, which is how long a mask may be, in the words of
    // a 64-bit kernel; the call copies it. 0 is the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), set.as_ptr().cast()) };
    option::check(result)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_thread_is_bound_to_a_processor_that_exists() {
        let bound = std::thread::spawn(|| {
            let there = super::pin(0);
            // SAFETY: the call takes no arguments.
            let at = unsafe { libc::sched_getcpu() };
            (
                there,
                at,
                super::pin(super::CPUS_MAX - 1),
                super::pin(u16::MAX),
            )
        });
        let (there, at, too_high, impossible) = bound.join().expect("binding never panics");
        // A container may keep us off the first one.
        assert!(there.is_err() || at == 0);
        assert!(too_high.is_err() && impossible.is_err());
    }

    #[test]
    fn a_refusal_is_an_error_and_nothing_more() {
        // In a thread of its own: the nice value is the thread's.
        let raised = std::thread::spawn(super::raise).join();
        if let Err(error) = raised.expect("raising never panics") {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }
}
