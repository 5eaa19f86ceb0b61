//! getsockopt and setsockopt for options that are plain integers.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Sets an integer option.
pub(super) fn set(fd: impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    const BYTES: u32 = 4; // sizeof(int)
    // SAFETY: the pointer is to a live i32 and the length is its size; the kernel copies it during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<libc::c_void>(),
            BYTES,
        )
    };
    check(result)
}

/// Sets an option that is a byte string, such as a device name.
pub(super) fn set_bytes(fd: impl AsFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let Ok(bytes) = u32::try_from(value.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: pointer and length describe the live slice `value`, which the kernel copies during the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            value.as_ptr().cast::<libc::c_void>(),
            bytes,
        )
    };
    check(result)
}

/// Reads an integer option.
pub(super) fn get(fd: impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut bytes: libc::socklen_t = 4; // sizeof(int)
    // SAFETY: the pointer is to a live, writable i32, `bytes` says so, and the kernel keeps neither.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast::<libc::c_void>(),
            &raw mut bytes,
        )
    };
    check(result).map(|()| value)
}

/// Turns a C result into `io::Result`, reading errno at once.
pub(super) fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
