//! The TUN device: where inner packets leave and enter the kernel.
//!
//! Every frame starts with the 10 bytes of a `virtio_net_hdr`, whether offloads are on or not, so that there is
//! one frame format. With offloads one read returns a superframe of up to 64 KiB. Only a [`BareTun`], which no
//! tunnel uses, gives packets without it.
//!
//! Never configures addresses or routes (`netdev` does), never looks into a frame.
//!
//! Numbers: `linux/if_tun.h`, `linux/virtio_net.h`; driver: `drivers/net/tun.c`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use super::option::check;

/// Length of the `virtio_net_hdr` in front of every frame: the legacy layout without `num_buffers`.
pub const VNET_HEADER_BYTES: usize = 10;

/// Most queues a device may have; the kernel's own limit is 256 (`MAX_TAP_QUEUES`), far above our workers.
pub const QUEUES_MAX: u16 = 64;

/// A TUN device that lives as long as this value (the kernel removes it with its last descriptor).
#[derive(Debug)]
pub struct Tun {
    name: String,
    queues: Vec<OwnedFd>,
    offloads: Offloads,
}

/// What to ask the kernel for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Let the kernel hand over superframes and unfinished checksums. Without it frames are single packets;
    /// the virtio header is still there, all zero.
    pub offload: bool,
    /// One descriptor for each worker; 0 counts as 1.
    pub queues: u16,
}

impl Default for TunConfig {
    fn default() -> Self {
        Self {
            offload: true,
            queues: 1,
        }
    }
}

/// Offloads that the kernel granted, in the bits of TUNSETOFFLOAD (`TUN_F_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads(u32);

impl Offloads {
    /// Nothing: each frame is one finished packet.
    pub const NONE: Self = Self(0);

    /// Packets may come with a checksum still to be computed.
    pub const fn checksum(self) -> bool {
        self.0 & libc::TUN_F_CSUM != 0
    }

    /// TCP superframes (TSO) come, over IPv4 and IPv6.
    pub const fn tcp_segmentation(self) -> bool {
        self.0 & libc::TUN_F_TSO4 != 0
    }

    /// UDP superframes (USO, Linux 6.2) come, over IPv4 and IPv6.
    pub const fn udp_segmentation(self) -> bool {
        self.0 & libc::TUN_F_USO4 != 0
    }

    /// The raw `TUN_F_*` bits.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

/// What went wrong with a TUN device, by operation.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The control device is missing or not permitted.
    #[error("cannot open /dev/net/tun (is the tun module loaded and the device passed in?)")]
    Open(#[source] io::Error),
    /// Empty part, NUL, slash or more than 15 bytes.
    #[error("{0:?} is not a possible interface name")]
    Name(String),
    /// TUNSETIFF: no CAP_NET_ADMIN, or the name is in use.
    #[error("cannot create TUN device {name} (needs CAP_NET_ADMIN and a free name)")]
    Attach {
        /// The device asked for.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// TUNSETVNETHDRSZ or TUNSETVNETLE.
    #[error("TUN device {name} does not take a 10-byte virtio header")]
    HeaderSize {
        /// The device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// TUNSETOFFLOAD refused even the empty set.
    #[error("cannot set the offloads of TUN device {name}")]
    Offload {
        /// The device.
        name: String,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Tun {
    /// Creates the device `name` (or the first free number for a pattern such as `tun%d`) in the calling
    /// thread's network namespace. It is down and has no address.
    ///
    /// # Errors
    /// See [`TunError`]; nothing is left behind.
    pub fn create(name: &str, config: TunConfig) -> Result<Self, TunError> {
        let count = config.queues.clamp(1, QUEUES_MAX);
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if count > 1 {
            // Only when it is used: without it a second process cannot attach and steal packets.
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let (first, name) = attach_when_free(name, flags)?;
        set_header(&first, &name)?;
        let offloads = set_offloads(&first, &name, config.offload)?;
        let mut queues = vec![first];
        for _ in 1..count {
            let queue = open()?;
            attach(&queue, &name, flags)?;
            queues.push(queue);
        }
        Ok(Self {
            name,
            queues,
            offloads,
        })
    }

    /// The interface's name, as the kernel made it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of queues; at least one.
    pub fn queues(&self) -> usize {
        self.queues.len()
    }

    /// The descriptor of one queue.
    ///
    /// # Panics
    /// When there is no such queue.
    pub fn queue(&self, index: usize) -> BorrowedFd<'_> {
        self.queues[index].as_fd()
    }

    /// All queues, in order.
    pub fn fds(&self) -> impl ExactSizeIterator<Item = BorrowedFd<'_>> {
        self.queues.iter().map(AsFd::as_fd)
    }

    /// What the kernel granted.
    pub const fn offloads(&self) -> Offloads {
        self.offloads
    }
}

/// A TUN device as the simplest programs have it: no virtio header, no offloads, one queue. Each read gives one whole
/// IP packet, each write takes one. For what a tunnel is measured against.
#[derive(Debug)]
pub struct BareTun {
    fd: OwnedFd,
}

impl BareTun {
    /// Creates the device `name` in the calling thread's network namespace. It is down and has no address.
    ///
    /// # Errors
    /// See [`TunError`]; nothing is left behind.
    pub fn create(name: &str) -> Result<Self, TunError> {
        let (fd, _) = attach_when_free(name, libc::IFF_TUN | libc::IFF_NO_PI)?;
        Ok(Self { fd })
    }

    /// Takes one packet from the kernel without waiting; what is longer than `packet` is cut.
    ///
    /// # Errors
    /// As read(2); `WouldBlock` when there is none.
    pub fn read(&self, packet: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, packet)?)
    }

    /// Gives one packet to the kernel without waiting.
    ///
    /// # Errors
    /// As write(2): EINVAL for what is no IP packet, EIO while the device is down.
    pub fn write(&self, packet: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.fd, packet)?)
    }
}

impl AsFd for BareTun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens the control device. O_NONBLOCK because before Linux 6.4 a TUN read through io_uring would otherwise
/// go to a worker thread.
fn open() -> Result<OwnedFd, TunError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map(OwnedFd::from)
        .map_err(TunError::Open)
}

/// Makes or joins the device (TUNSETIFF) and returns its real name.
/// A program that ended keeps its device until the kernel has taken its ring apart, which it does in its own time.
/// Waits for that as long as [`BUSY_MAX`].
fn attach_when_free(name: &str, flags: i32) -> Result<(OwnedFd, String), TunError> {
    let mut waited = Duration::ZERO;
    loop {
        let fd = open()?;
        match attach(&fd, name, flags) {
            Err(TunError::Attach { source, .. })
                if source.raw_os_error() == Some(libc::EBUSY) && waited < BUSY_MAX =>
            {
                wait(BUSY_STEP);
                waited += BUSY_STEP;
            }
            attached => return Ok((fd, attached?)),
        }
    }
}

/// Longest wait for a device that its last owner still holds; a ring is gone after a few hundred milliseconds.
const BUSY_MAX: Duration = Duration::from_secs(2);
/// Time between two attempts.
const BUSY_STEP: Duration = Duration::from_millis(20);

/// Blocks for a while; used while starting only.
fn wait(time: Duration) {
    let milliseconds = u16::try_from(time.as_millis()).unwrap_or(u16::MAX);
    // A signal ends it early, which does no harm.
    let _ = nix::poll::poll(&mut [], milliseconds);
}

fn attach(fd: &OwnedFd, name: &str, flags: i32) -> Result<String, TunError> {
    let mut request =
        super::netdev::interface_request(name).ok_or_else(|| TunError::Name(name.to_owned()))?;
    // The TUN flags used here fit 16 bits (`IFF_VNET_HDR` is 0x4000).
    request.ifr_ifru.ifru_flags = i16::try_from(flags).unwrap_or(0);
    // SAFETY: TUNSETIFF takes a pointer to a live, writable ifreq and fills in the name.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    check(result).map_err(|source| TunError::Attach {
        name: name.to_owned(),
        source,
    })?;
    let bytes: Vec<u8> = request
        .ifr_name
        .iter()
        .take_while(|&&c| c != 0)
        .map(|&c| c.cast_unsigned())
        .collect();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Ten bytes of virtio header, little-endian on every machine.
fn set_header(fd: &OwnedFd, name: &str) -> Result<(), TunError> {
    let fail = |source| TunError::HeaderSize {
        name: name.to_owned(),
        source,
    };
    let bytes: libc::c_int = 10; // VNET_HEADER_BYTES
    // SAFETY: TUNSETVNETHDRSZ reads an int through a live pointer.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const bytes) };
    check(result).map_err(fail)?;
    let little_endian: libc::c_int = 1;
    // SAFETY: TUNSETVNETLE reads an int through a live pointer.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETLE, &raw const little_endian) };
    check(result).map_err(fail)
}

/// Asks for ever fewer offloads until the kernel agrees: UDP segmentation is refused before Linux 6.2.
fn set_offloads(fd: &OwnedFd, name: &str, wanted: bool) -> Result<Offloads, TunError> {
    const TCP: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    const LADDER: [u32; 5] = [
        TCP | libc::TUN_F_TSO_ECN | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        TCP | libc::TUN_F_TSO_ECN,
        TCP,
        libc::TUN_F_CSUM,
        0,
    ];
    let ladder = if wanted {
        &LADDER[..]
    } else {
        &LADDER[LADDER.len() - 1..]
    };
    let mut refused = io::Error::from(io::ErrorKind::Unsupported);
    for &bits in ladder {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            libc::ioctl(
                fd.as_raw_fd(),
                libc::TUNSETOFFLOAD,
                libc::c_ulong::from(bits),
            )
        };
        match check(result) {
            Ok(()) => return Ok(Offloads(bits)),
            Err(error) => refused = error,
        }
    }
    Err(TunError::Offload {
        name: name.to_owned(),
        source: refused,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::testing;

    #[test]
    fn a_device_has_offloads_only_when_asked_for() {
        testing::in_namespace(|| {
            let plain = TunConfig {
                offload: false,
                queues: 1,
            };
            let Some(plain) = testing::tun("cl-plain", plain) else {
                return;
            };
            assert_eq!(
                (plain.name(), plain.offloads()),
                ("cl-plain", Offloads::NONE)
            );
            let full = Tun::create("cl-t%d", TunConfig::default()).unwrap();
            assert_eq!(full.name(), "cl-t0");
            assert!(full.offloads().checksum() && full.offloads().tcp_segmentation());
        });
    }

    #[test]
    fn queues_share_one_device_and_one_queue_is_exclusive() {
        testing::in_namespace(|| {
            let many = TunConfig {
                offload: true,
                queues: 3,
            };
            let Some(many) = testing::tun("cl-many", many) else {
                return;
            };
            assert_eq!((many.queues(), many.fds().len()), (3, 3));
            let _one = Tun::create("cl-one", TunConfig::default()).unwrap();
            let second = Tun::create("cl-one", TunConfig::default());
            assert!(matches!(second, Err(TunError::Attach { .. })), "{second:?}");
        });
    }

    #[test]
    fn impossible_names_are_refused_before_the_kernel_sees_them() {
        for name in ["", "sixteen-bytes-xx", "a/b", "nul\0"] {
            assert!(
                super::super::netdev::interface_request(name).is_none(),
                "{name:?}"
            );
        }
    }
}
