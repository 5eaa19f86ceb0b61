//! What the tests of this floor share: own network namespaces, loopback sockets, waiting with a deadline.
#![allow(clippy::unwrap_used)]

use std::os::fd::{AsFd, AsRawFd};
use std::panic::resume_unwind;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tun::{Tun, TunConfig, TunError};
use super::udp::{UdpConfig, UdpSocket};

/// No condition of a test takes longer than this, on a machine shared with much else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// Runs `test` on a thread with a network namespace of its own, in which only a loopback interface exists.
/// Says loudly when that is not permitted.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = super::namespace::enter_new_network() {
            eprintln!("SKIPPED: cannot make a network namespace: {error}");
            return;
        }
        test();
    });
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// A TUN device, or `None` with a loud word when that is not permitted.
pub(crate) fn tun(name: &str, config: TunConfig) -> Option<Tun> {
    match Tun::create(name, config) {
        Ok(tun) => Some(tun),
        Err(TunError::Open(source) | TunError::Attach { source, .. })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            eprintln!("SKIPPED: cannot make TUN device {name}: {source}");
            None
        }
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// Two sockets on 127.0.0.1; connected to each other when `connected`.
pub(super) fn loopback_pair(connected: bool) -> (UdpSocket, UdpSocket) {
    let open = || {
        UdpSocket::bind(UdpConfig {
            source: "127.0.0.1:0".parse().unwrap(),
            device: None,
            reuse_port: false,
            buffer_bytes: 1 << 20,
        })
        .unwrap()
    };
    let (a, b) = (open(), open());
    if connected {
        a.connect(b.local_addr().unwrap()).unwrap();
        b.connect(a.local_addr().unwrap()).unwrap();
    }
    (a, b)
}

/// Waits until there is something to read; panics after [`DEADLINE`].
pub(super) fn wait_readable(fd: &impl AsFd) {
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    assert!(
        poll(&mut fds, timeout).unwrap() > 0,
        "fd {} is silent",
        fd.as_fd().as_raw_fd()
    );
}
