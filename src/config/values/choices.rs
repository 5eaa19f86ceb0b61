//! Values that are one of a few words, each with the spelling that files, documents and status have in common.
//!
//! Never does: choose. What `auto` comes to is decided where it is used.

use std::fmt;

use tracing::level_filters::LevelFilter;

/// Declares an enum whose values have one spelling in the file, in documents and in status.
macro_rules! named_enum {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// All values with their spelling in the file.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),*];

            /// The spelling in the file and in status.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl crate::config::context::Named for $name {
            const ALL: &'static [(&'static str, Self)] = Self::ALL;
        }
    };
}

named_enum! {
    /// Which side of the tunnel this is.
    Role {
        /// Opens the links, over one or more WANs.
        Client = "client",
        /// Listens on a range of ports.
        Server = "server",
    }
}

named_enum! {
    /// Which link takes the next run of symbols.
    Mode {
        /// The link that delivers first, by capacity, delay and loss.
        Balanced = "balanced",
        /// The most goodput: no copies, longer queues, less repair.
        Throughput = "throughput",
        /// The least delay: the quickest links first, short queues, copies.
        Latency = "latency",
        /// Every symbol on the two best links.
        Redundant = "redundant",
        /// Shares in the ratio of capacity and quality.
        Weighted = "weighted",
        /// The best link takes all until it fails.
        SingleBest = "single_best",
        /// One after the other.
        RoundRobin = "round_robin",
    }
}

named_enum! {
    /// Whether a flow over links of several delays sees one delay.
    Equalise {
        /// Flows that are bulk, up to the slowest link that the load needs.
        Auto = "auto",
        /// All TCP from the first packet, up to the slowest link.
        On = "on",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// How much repair a group gets.
    FecMode {
        /// As much as measured loss asks for, at most the configured count.
        Adaptive = "adaptive",
        /// Exactly the configured count.
        Fixed = "fixed",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// How the kernel is talked to.
    Backend {
        /// The best tier that works here.
        Auto = "auto",
        /// io_uring with multishot receives.
        IoUring = "io_uring",
        /// io_uring with one operation per read.
        IoUringOneshot = "io_uring_oneshot",
        /// epoll, for hosts that refuse io_uring.
        Epoll = "epoll",
    }
}

named_enum! {
    /// Whether runs leave without a copy.
    ZeroCopy {
        /// Where it spares a copy.
        Auto = "auto",
        /// Always.
        On = "on",
        /// Never.
        Off = "off",
    }
}

named_enum! {
    /// Which runs of a link leave as one segmented send.
    Gso {
        /// All, as long as they arrive.
        Auto = "auto",
        /// All.
        On = "on",
        /// Those that end with a shorter datagram.
        Uneven = "uneven",
        /// None.
        Off = "off",
    }
}

named_enum! {
    /// Which AEAD seals datagrams.
    CipherChoice {
        /// AES-256-GCM when both CPUs have AES instructions, else ChaCha20-Poly1305.
        Auto = "auto",
        /// AES-256-GCM.
        Aes256Gcm = "aes-256-gcm",
        /// ChaCha20-Poly1305.
        ChaCha20Poly1305 = "chacha20-poly1305",
    }
}

named_enum! {
    /// What a WAN is used for.
    WanRole {
        /// Carries traffic.
        Active = "active",
        /// Open and measured; carries traffic only while no active link is up.
        Backup = "backup",
        /// Not opened.
        Off = "off",
    }
}

named_enum! {
    /// Which way a WAN carries data.
    Direction {
        /// Both ways.
        Both = "both",
        /// From the client to the server.
        Up = "up",
        /// From the server to the client.
        Down = "down",
    }
}

named_enum! {
    /// How the packets of a class use the links.
    ClassPolicy {
        /// As the mode says.
        Stripe = "stripe",
        /// Every packet on two links.
        Duplicate = "duplicate",
        /// One WAN only.
        Pin = "pin",
        /// The best link of the moment.
        Best = "best",
    }
}

named_enum! {
    /// How much is logged.
    LogLevel {
        /// Nothing.
        Off = "off",
        /// What stops the program.
        Error = "error",
        /// What someone may have to act on.
        Warn = "warn",
        /// State changes an operator sees.
        Info = "info",
        /// Decisions.
        Debug = "debug",
        /// Single packets; costs throughput.
        Trace = "trace",
    }
}

impl LogLevel {
    /// As the log takes it.
    pub const fn filter(self) -> LevelFilter {
        match self {
            Self::Off => LevelFilter::OFF,
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}
