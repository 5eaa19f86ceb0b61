//! Offloads of an interface, by the old single-value ioctls of `linux/ethtool.h`.
//!
//! The lab switches them off to see packets as a poor network card would deliver them.

use std::os::fd::{AsFd, AsRawFd};

use super::{Netdev, NetdevError, interface_request};
use crate::sys::option::check;

/// An offload that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Checksums of sent packets.
    TransmitChecksum,
    /// Sending from scattered memory; segmentation offload needs it.
    ScatterGather,
    /// Segmentation of TCP in the device.
    TcpSegmentation,
    /// Segmentation in the kernel, just before the device.
    GenericSegmentation,
    /// Merging of received packets.
    GenericReceive,
}

impl Feature {
    /// All of them, in the order in which they can be switched off.
    pub const ALL: [Self; 5] = [
        Self::TcpSegmentation,
        Self::GenericSegmentation,
        Self::GenericReceive,
        Self::ScatterGather,
        Self::TransmitChecksum,
    ];

    /// ETHTOOL_G...; the command that sets is the next number.
    const fn get(self) -> u32 {
        match self {
            Self::TransmitChecksum => 0x16,
            Self::ScatterGather => 0x18,
            Self::TcpSegmentation => 0x1e,
            Self::GenericSegmentation => 0x23,
            Self::GenericReceive => 0x2b,
        }
    }
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl Netdev {
    /// Switches an offload of an interface.
    ///
    /// # Errors
    /// No such interface, a device that cannot, or not permitted.
    pub fn set_feature(
        &mut self,
        device: &str,
        feature: Feature,
        on: bool,
    ) -> Result<(), NetdevError> {
        let value = Value {
            command: feature.get() + 1,
            data: u32::from(on),
        };
        self.ethtool(device, feature, value).map(drop)
    }

    /// Whether an offload is on.
    ///
    /// # Errors
    /// No such interface, or a device that cannot tell.
    pub fn feature(&mut self, device: &str, feature: Feature) -> Result<bool, NetdevError> {
        let value = Value {
            command: feature.get(),
            data: 0,
        };
        Ok(self.ethtool(device, feature, value)?.data != 0)
    }

    fn ethtool(
        &self,
        device: &str,
        feature: Feature,
        mut value: Value,
    ) -> Result<Value, NetdevError> {
        let fail = |source| {
            NetdevError::new(
                "switch or read",
                format_args!("{feature:?} of {device}"),
                source,
            )
        };
        let mut request = interface_request(device)
            .ok_or_else(|| fail(std::io::ErrorKind::InvalidInput.into()))?;
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        let fd = self.socket.as_fd().as_raw_fd();
        // SAFETY: SIOCETHTOOL takes an ifreq whose data points to an ethtool_value; both live during the call.
        let result = unsafe { libc::ioctl(fd, libc::SIOCETHTOOL, &raw mut request) };
        check(result).map_err(fail)?;
        Ok(value)
    }
}
