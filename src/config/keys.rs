//! Every configuration key, once: this table drives parsing, defaults, the texts of faults, the key table
//! of `docs/operations.md`, reload, and the tests that every key is documented and changes something.

use super::values::{Config, Role};

pub use super::key_table::ALL;

/// One configuration key.
#[derive(Debug)]
pub struct Key {
    /// Full name, `table.name`.
    pub name: &'static str,
    /// Which side reads it.
    pub side: Side,
    /// Whether a reload applies it, or only a restart.
    pub reload: Reload,
    /// What is allowed, for people.
    pub allowed: &'static str,
    /// The value when the key is not set, as TOML.
    pub default: Default,
    /// What it means, in one line.
    pub meaning: &'static str,
    /// The part of the program that it changes.
    pub effect: &'static str,
    /// The effective value in a resolved configuration, for comparing two of them.
    pub show: fn(&Config) -> String,
}

/// Which side reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Client and server.
    Both,
    /// The client alone.
    Client,
    /// The server alone.
    Server,
}

impl Side {
    /// Whether this role reads the key.
    pub fn includes(self, role: Role) -> bool {
        match self {
            Self::Both => true,
            Self::Client => role == Role::Client,
            Self::Server => role == Role::Server,
        }
    }

    /// As it stands in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once; the tunnel keeps running.
    Live,
    /// At the next start.
    Restart,
}

impl Reload {
    /// As it stands in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Restart => "restart",
        }
    }
}

/// The value of a key that is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// None: the key must be set, or being unset means something of its own, told here.
    Unset(&'static str),
    /// The same on both sides.
    Is(&'static str),
    /// One for each side.
    PerSide {
        /// On the client.
        client: &'static str,
        /// On the server.
        server: &'static str,
    },
}

impl Default {
    /// The default on this side, as TOML; `None` when there is none.
    pub const fn text(self, role: Role) -> Option<&'static str> {
        match (self, role) {
            (Self::Unset(_), _) => None,
            (Self::Is(text), _)
            | (Self::PerSide { client: text, .. }, Role::Client)
            | (Self::PerSide { server: text, .. }, Role::Server) => Some(text),
        }
    }
}

/// The key of this full name.
pub fn find(name: &str) -> Option<&'static Key> {
    ALL.iter().find(|key| key.name == name)
}

/// The key table of `docs/operations.md`, as Markdown.
pub fn markdown() -> String {
    let mut out = String::from(
        "| Key | Side | Allowed | Default | Reload | Meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for key in ALL {
        let default = match key.default {
            Default::Unset(what) => what.to_owned(),
            Default::Is(text) => format!("`{text}`"),
            Default::PerSide { client, server } => format!("client `{client}`, server `{server}`"),
        };
        let cells = [
            key.side.name(),
            key.allowed,
            &default,
            key.reload.name(),
            key.meaning,
        ];
        out.push_str(&format!("| `{}` | {} |\n", key.name, cells.join(" | ")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_default_is_toml() {
        for (index, key) in ALL.iter().enumerate() {
            assert!(
                ALL[..index].iter().all(|other| other.name != key.name),
                "{} twice",
                key.name
            );
            for role in [Role::Client, Role::Server] {
                if let Some(text) = key.default.text(role) {
                    assert!(
                        toml::de::DeValue::parse(text).is_ok(),
                        "{}: {text}",
                        key.name
                    );
                }
            }
        }
    }

    #[test]
    fn meanings_are_sentences_and_cells_do_not_break_the_table() {
        for key in ALL {
            assert!(key.meaning.ends_with('.'), "{}", key.name);
            for cell in [key.allowed, key.meaning] {
                assert!(
                    !cell.is_empty() && !cell.contains(['|', '\n']),
                    "{}",
                    key.name
                );
            }
        }
    }
}
