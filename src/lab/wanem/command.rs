//! The emulator's words: one WAN on the command line, one command on standard input.

use std::str::FromStr;

use crate::sim::impairment::{Spec, SpecError};

/// What one WAN is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct WanConfig {
    /// Interface that faces the client.
    pub inside: String,
    /// Interface that faces the server.
    pub outside: String,
    /// Whether UDP source ports are translated.
    pub nat: bool,
    /// From inside to outside.
    pub up: Spec,
    /// From outside to inside.
    pub down: Spec,
}

/// Which directions a change concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// From inside to outside.
    Up,
    /// From outside to inside.
    Down,
    /// Each.
    Both,
}

/// A line of standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Change a specification.
    Change {
        /// Index of the WAN; `None` = all.
        wan: Option<usize>,
        /// Which directions.
        side: Side,
        /// `key=value` words.
        words: String,
    },
    /// Forget NAT mappings.
    Rebind {
        /// Index of the WAN; `None` = all.
        wan: Option<usize>,
    },
    /// Print the counters.
    Stats,
    /// End.
    Quit,
}

/// Why words were refused.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No `inside:outside`.
    #[error("expected INSIDE:OUTSIDE first")]
    NoPair,
    /// Words before `up`, `down` or `both`.
    #[error("'{0}' stands before any of: nat, up, down, both")]
    NoSide(String),
    /// Not a command.
    #[error(
        "'{0}' is not a command; commands: [WAN] up|down|both KEY=VALUE..., [WAN] rebind, stats, quit"
    )]
    Unknown(String),
    /// WANs count from one.
    #[error("WANs count from 1")]
    WanZero,
    /// What follows `up`, `down` or `both` is not right.
    #[error(transparent)]
    Spec(#[from] SpecError),
}

impl Side {
    fn parse(word: &str) -> Option<Self> {
        match word {
            "up" => Some(Self::Up),
            "down" => Some(Self::Down),
            "both" => Some(Self::Both),
            _ => None,
        }
    }

    /// Applies `change` to the specifications this side means.
    ///
    /// # Errors
    /// What `change` says.
    pub fn apply(self, up: &mut Spec, down: &mut Spec, words: &str) -> Result<(), SpecError> {
        let (mut new_up, mut new_down) = (up.clone(), down.clone());
        if self != Self::Down {
            new_up.apply(words)?;
        }
        if self != Self::Up {
            new_down.apply(words)?;
        }
        (*up, *down) = (new_up, new_down);
        Ok(())
    }
}

impl FromStr for WanConfig {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        let mut words = text.split_ascii_whitespace();
        let (inside, outside) = words
            .next()
            .and_then(|pair| pair.split_once(':'))
            .ok_or(CommandError::NoPair)?;
        let mut wan = Self {
            inside: inside.into(),
            outside: outside.into(),
            nat: false,
            up: Spec::default(),
            down: Spec::default(),
        };
        let mut side = None;
        for word in words {
            if let Some(next) = Side::parse(word) {
                side = Some(next);
            } else if word == "nat" {
                wan.nat = true;
            } else {
                let side: Side = side.ok_or_else(|| CommandError::NoSide(word.into()))?;
                side.apply(&mut wan.up, &mut wan.down, word)?;
            }
        }
        Ok(wan)
    }
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<Self, CommandError> {
        let unknown = || CommandError::Unknown(text.into());
        let (first, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if let Ok(number) = first.parse::<usize>() {
            let index = number.checked_sub(1).ok_or(CommandError::WanZero)?;
            return match rest.parse()? {
                Self::Change { side, words, .. } => Ok(Self::Change {
                    wan: Some(index),
                    side,
                    words,
                }),
                Self::Rebind { .. } => Ok(Self::Rebind { wan: Some(index) }),
                Self::Stats | Self::Quit => Err(unknown()),
            };
        }
        match (first, Side::parse(first)) {
            (_, Some(side)) if !rest.is_empty() => Ok(Self::Change {
                wan: None,
                side,
                words: rest.into(),
            }),
            ("rebind", None) => Ok(Self::Rebind { wan: None }),
            ("stats", None) => Ok(Self::Stats),
            ("quit", None) => Ok(Self::Quit),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wan_reads_its_pair_and_both_directions() {
        let wan: WanConfig = "a:b nat both delay=5ms up rate=20mbit down rate=100mbit loss=1%"
            .parse()
            .unwrap();
        assert_eq!(
            (wan.inside.as_str(), wan.outside.as_str(), wan.nat),
            ("a", "b", true)
        );
        assert_eq!(wan.up.to_string(), "rate=20mbit delay=5ms");
        assert_eq!(wan.down.to_string(), "rate=100mbit delay=5ms loss=1%");
        for bad in ["", "ab", "a:b delay=5ms", "a:b up speed=1"] {
            assert!(bad.parse::<WanConfig>().is_err(), "{bad}");
        }
    }

    #[test]
    fn commands_name_one_wan_or_all() {
        let change = |wan, side, words: &str| Command::Change {
            wan,
            side,
            words: words.into(),
        };
        let parse = |text: &str| text.parse::<Command>().unwrap();
        assert_eq!(
            parse("up rate=1mbit loss=2%"),
            change(None, Side::Up, "rate=1mbit loss=2%")
        );
        assert_eq!(
            parse("2 both outage"),
            change(Some(1), Side::Both, "outage")
        );
        assert_eq!(parse("1 rebind"), Command::Rebind { wan: Some(0) });
        assert_eq!(parse("stats"), Command::Stats);
        for bad in ["", "0 rebind", "1", "1 stats", "up", "sideways rate=1mbit"] {
            assert!(bad.parse::<Command>().is_err(), "{bad}");
        }
    }
}
