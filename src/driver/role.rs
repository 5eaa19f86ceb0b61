//! The two kinds of endpoint behind one face.
//!
//! Never does: anything about a packet. What the endpoints do, they do by themselves.

use super::command::Behaviour;
use crate::base::Instant;
use crate::endpoint::{Client, Endpoint, Server, SessionId};

/// Either role; the driver's only branch.
#[derive(Debug)]
pub enum Role {
    /// A client.
    Client(Box<Client>),
    /// A server.
    Server(Box<Server>),
}

impl Role {
    /// What both have in common.
    pub fn endpoint(&mut self) -> &mut dyn Endpoint {
        match self {
            Self::Client(client) => client.as_mut(),
            Self::Server(server) => server.as_mut(),
        }
    }

    /// The same, to read.
    pub fn endpoint_ref(&self) -> &dyn Endpoint {
        match self {
            Self::Client(client) => client.as_ref(),
            Self::Server(server) => server.as_ref(),
        }
    }

    /// Name of a session's peer, for logs.
    pub fn peer_name(&self, session: SessionId) -> &str {
        match self {
            Self::Client(_) => "server",
            Self::Server(server) => server.peer_name(session.peer),
        }
    }

    /// Applies what a reload has changed.
    pub fn reconfigure(&mut self, new: Behaviour, now: Instant) {
        match self {
            Self::Client(client) => client.reconfigure(new.session, &new.wans, now),
            Self::Server(server) => server.reconfigure(&new.session, new.allowed),
        }
    }
}
