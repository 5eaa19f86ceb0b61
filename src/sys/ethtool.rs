//! Offloads of an interface, off: for interfaces whose frames a program reads one by one.
//!
//! Reference: linux/ethtool.h; the old per-feature commands exist on every kernel and need no feature names.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::option;

/// From linux/sockios.h.
const SIOCETHTOOL: u32 = 0x8946;
/// `struct ethtool_value` commands that switch one offload: checksums, scatter-gather (without which there are no
/// superframes), TSO, GSO, GRO.
const SWITCHES: [u32; 5] = [0x17, 0x19, 0x1F, 0x24, 0x2C];
/// These may be missing on an interface that never had the offload.
const OPTIONAL: i32 = libc::EOPNOTSUPP;

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// Switches checksum, segmentation and receive offloads of `device` off.
///
/// # Errors
/// The first ioctl that failed for another reason than that there is nothing to switch off.
pub fn disable_offloads(device: &str) -> io::Result<()> {
    // SAFETY: socket(2) takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    option::check(fd)?;
    // SAFETY: `fd` was just returned by socket(2), so it is open and nobody else owns it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    for command in SWITCHES {
        let mut value = Value { command, data: 0 };
        // SAFETY: ifreq is a plain C struct for which all zero bytes are a valid value.
        let mut request = unsafe { zeroed::<libc::ifreq>() };
        if device.is_empty() || device.len() >= request.ifr_name.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (slot, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
            *slot = byte.cast_signed();
        }
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: `request` is live and zero-terminated by the check above; `ifru_data` points to an ethtool_value
        // that lives until the call returns and is what these commands expect.
        let result = unsafe { libc::ioctl(fd.as_raw_fd(), SIOCETHTOOL.into(), &raw mut request) };
        match option::check(result) {
            Err(error) if error.raw_os_error() != Some(OPTIONAL) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
