//! Real-time priority, for programs whose lateness would be mistaken for a property of the network.

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
