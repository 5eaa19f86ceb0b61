//! A connection of the kernel's TCP or multipath TCP between two namespaces, with both ends in our hands.
//!
//! Who dials and who sends are different questions: behind a translator only the client can dial, whichever way the
//! bytes go.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt,
    socket, sockopt,
};

use crate::base::Instant;
use crate::lab::{LabError, Netns};
use crate::sys::mptcp::{self, Subflow};
use crate::sys::{Clock, tcp};

/// How long a connection may take to come up.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What the kernel's sockets speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// Multipath TCP (IPv4 only here). Needs a path manager that knows the other addresses.
    Mptcp,
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The one that dialled.
    Dialler,
    /// The one that listened.
    Listener,
}

/// Who connects to whom.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where the dialler is.
    pub from: Netns,
    /// Where the listener is.
    pub to: Netns,
    /// Where it listens; port 0 picks one.
    pub target: SocketAddr,
    /// What they speak.
    pub protocol: Protocol,
}

/// A connection that stands.
#[derive(Debug)]
pub struct Connection {
    /// The end that dialled.
    pub dialled: TcpStream,
    /// The end that listened.
    pub accepted: TcpStream,
    /// What they speak.
    pub protocol: Protocol,
    /// How long it took to come up.
    pub time: Duration,
    /// Further subflows of a multipath connection knock here: without a listener they are refused.
    pub listener: TcpListener,
}

impl Dial {
    /// Listens, dials and accepts.
    ///
    /// # Errors
    /// The connection does not come up, or multipath TCP is not there or fell back to TCP.
    pub fn connect(&self) -> Result<Connection, LabError> {
        let listener = self.to.run(|| self.listen())?;
        let listener = listener.map_err(LabError::io(format!("listen on {}", self.target)))?;
        let target = listener
            .local_addr()
            .map_err(LabError::io("local address"))?;
        let clock = Clock::start();
        let dialled = self.from.run(|| self.dial(target))?;
        let dialled = dialled.map_err(LabError::io(format!("connect to {target}")))?;
        let time = clock.now().since(Instant::ZERO);
        let (accepted, _) = listener.accept().map_err(LabError::io("accept"))?;
        let connection = Connection {
            dialled,
            accepted,
            protocol: self.protocol,
            time,
            listener,
        };
        for end in [&connection.dialled, &connection.accepted] {
            end.set_nonblocking(true)
                .map_err(LabError::io("non-blocking"))?;
            paths(end, self.protocol).map_err(LabError::io("state of the connection"))?;
        }
        Ok(connection)
    }

    fn listen(&self) -> io::Result<TcpListener> {
        let socket = self.socket()?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(self.target))?;
        listen(&socket, Backlog::new(1)?)?;
        Ok(socket.into())
    }

    fn dial(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::from(self.socket()?);
        // connect(2) waits as long as a write may (socket(7), SO_SNDTIMEO).
        stream.set_write_timeout(Some(CONNECT_LIMIT))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(target))?;
        stream.set_write_timeout(None)?;
        Ok(stream)
    }

    fn socket(&self) -> io::Result<OwnedFd> {
        if self.protocol == Protocol::Mptcp {
            return mptcp::socket();
        }
        let family = if self.target.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        Ok(socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?)
    }
}

impl Connection {
    /// Sets the congestion control with which one end sends; a multipath connection gives it to all its subflows.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub fn set_congestion(&self, end: End, name: &str) -> Result<(), LabError> {
        let socket = match end {
            End::Dialler => &self.dialled,
            End::Listener => &self.accepted,
        };
        setsockopt(socket, sockopt::TcpCongestion, &name.into())
            .map_err(|errno| LabError::io(format!("congestion control {name}"))(errno.into()))
    }
}

/// What the kernel says about each path of a connection; of TCP there is one.
///
/// # Errors
/// The connection does not speak `protocol`.
pub fn paths(stream: &TcpStream, protocol: Protocol) -> io::Result<Vec<Subflow>> {
    match protocol {
        Protocol::Tcp => Ok(vec![Subflow {
            local: stream.local_addr()?,
            remote: stream.peer_addr()?,
            info: tcp::info(stream)?,
        }]),
        Protocol::Mptcp => mptcp::subflows(stream),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn both_ends_are_in_hand_and_tell_about_the_connection() {
        let Ok(namespace) = Netns::create("here") else {
            eprintln!("SKIPPED: cannot make a network namespace");
            return;
        };
        let dial = |protocol| Dial {
            from: namespace.clone(),
            to: namespace.clone(),
            target: "127.0.0.1:0".parse().unwrap(),
            protocol,
        };
        let mut connection = dial(Protocol::Tcp).connect().unwrap();
        connection.set_congestion(End::Listener, "reno").unwrap();
        assert!(connection.set_congestion(End::Dialler, "no such").is_err());
        connection.accepted.write_all(b"x").unwrap();
        connection.dialled.set_nonblocking(false).unwrap();
        connection.dialled.read_exact(&mut [0]).unwrap();
        let path = paths(&connection.accepted, Protocol::Tcp).unwrap()[0];
        assert_eq!(path.info.bytes_sent, 1);
        assert_eq!(path.remote, connection.dialled.local_addr().unwrap());
        assert!(paths(&connection.dialled, Protocol::Mptcp).is_err());
        match dial(Protocol::Mptcp).connect() {
            Ok(multipath) => assert_eq!(
                paths(&multipath.accepted, Protocol::Mptcp).unwrap().len(),
                1
            ),
            Err(error) => eprintln!("SKIPPED: {error}"),
        }
    }
}
