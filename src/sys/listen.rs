//! Datagrams on an unconnected socket, with the address of ours that they were sent to.
//!
//! A server with several addresses must answer from the one that was asked, or the client's socket and every NAT
//! on the way refuse the answer. IP_PKTINFO (ip(7)) and IPV6_RECVPKTINFO (ipv6(7)) say which it was.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

use super::udp::UdpSocket;

impl UdpSocket {
    /// Asks the kernel to tell the local address of each datagram.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn set_local_address_wanted(&self, v6: bool) -> io::Result<()> {
        if v6 {
            setsockopt(&self.as_fd(), sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&self.as_fd(), sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(())
    }

    /// Receives one datagram: its length, the sender, and our address it was sent to.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when there is none, or an earlier ICMP error.
    pub fn receive_local(
        &self,
        bytes: &mut [u8],
    ) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(bytes)];
        let fd = self.as_fd().as_raw_fd();
        let message =
            recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
        let from = message.address.and_then(|address| to_std(&address));
        let mut local = None;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::Ipv4PacketInfo(info) => {
                    local = Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(
                        info.ipi_addr.s_addr,
                    ))));
                }
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    local = Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)));
                }
                _ => {}
            }
        }
        let from = from.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok((message.bytes, from, local))
    }

    /// Sends one datagram from the local address that a peer knows us by.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn send_from(
        &self,
        bytes: &[u8],
        to: SocketAddr,
        local: Option<IpAddr>,
    ) -> io::Result<usize> {
        let fd = self.as_fd().as_raw_fd();
        let (to, parts) = (SockaddrStorage::from(to), [IoSlice::new(bytes)]);
        let sent = match local {
            Some(IpAddr::V4(local)) => {
                let address = libc::in_addr {
                    s_addr: u32::from(local).to_be(),
                };
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: address,
                    ipi_addr: address,
                };
                let control = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))
            }
            Some(IpAddr::V6(local)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: local.octets(),
                    },
                    ipi6_ifindex: 0,
                };
                let control = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&to))
            }
            None => sendmsg(fd, &parts, &[], MsgFlags::MSG_DONTWAIT, Some(&to)),
        };
        Ok(sent?)
    }
}

fn to_std(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), v4.port()));
    }
    address
        .as_sockaddr_in6()
        .map(|v6| SocketAddr::new(v6.ip().into(), v6.port()))
}

#[cfg(test)]
mod tests {
    use super::super::udp::UdpConfig;
    use super::*;

    #[test]
    fn a_wildcard_socket_learns_and_answers_from_the_address_that_was_asked() {
        let bind = |source: &str| {
            let source = source.parse().unwrap();
            UdpSocket::bind(UdpConfig {
                source,
                device: None,
                reuse_port: false,
                buffer_bytes: 0,
            })
            .unwrap()
        };
        let (server, client) = (bind("0.0.0.0:0"), bind("127.0.0.1:0"));
        server.set_local_address_wanted(false).unwrap();
        let port = server.local_addr().unwrap().port();
        client
            .connect(SocketAddr::from(([127, 0, 0, 77], port)))
            .unwrap();
        client.send(b"ask").unwrap();
        let mut bytes = [0; 16];
        let (length, from, local) = server.receive_local(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"ask");
        assert_eq!(local, Some(IpAddr::from([127, 0, 0, 77])));
        server.send_from(b"answer", from, local).unwrap();
        // A connected socket takes datagrams from the address it asked only.
        assert_eq!(client.recv(&mut bytes).unwrap(), 6);
    }
}
