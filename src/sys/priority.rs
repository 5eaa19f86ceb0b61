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

#[cfg(test)]
mod tests {
    #[test]
    fn a_refusal_is_an_error_and_nothing_more() {
        // In a thread of its own: the nice value is the thread's.
        let raised = std::thread::spawn(super::raise).join();
        if let Err(error) = raised.expect("raising never panics") {
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        }
    }
}
