//! What is measured without limits, and against what. Words and numbers only: nothing here touches the system.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use crate::bench::plan::Direction;
use crate::lab::Nic;

/// Most cables: one octet of the lab's addresses has room for more, a tunnel has no more links.
pub const LINKS_MAX: u64 = 16;
/// Most flows: each costs the measuring side two threads.
pub const FLOWS_MAX: u64 = 64;
/// The only variant when none is named.
const VARIANT_DEFAULT: &str = "tunnel";
/// Part of the datagrams that a rate of small packets may lose and still counts as carried.
pub(super) const LOSS_MAX: f64 = 0.001;

/// What runs beside the tunnel, in the same alternation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Rival {
    /// The first cable, without any tunnel
    Baseline,
    /// A program at each end that only carries packets between TUN and UDP, one at a time, in clear
    Relay,
    /// OpenVPN over UDP with AES-128-GCM (the program `openvpn`)
    Openvpn,
    /// WireGuard in user space (the programs `wireguard-go` and `wg`)
    WireguardGo,
}

impl Rival {
    /// Its name in table and JSON document.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Relay => "relay",
            Self::Openvpn => "openvpn",
            Self::WireguardGo => "wireguard-go",
        }
    }
}

/// What the flows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// TCP connections as fast as they can, CUBIC.
    Tcp,
    /// UDP packets of so many bytes of payload.
    Udp {
        /// Bytes of each payload.
        bytes: usize,
    },
}

/// A setting of the tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A line of the section `[performance]`.
    Performance(String),
    /// A line of the section `[security]`.
    Security(String),
    /// Sockets over each cable.
    LinksPerWan(u8),
    /// Largest inner packet.
    TunMtu(u16),
}

impl FromStr for Setting {
    type Err = String;

    /// `fec_mode=off`, `threads = 1`, `links_per_wan=1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .ok_or_else(|| format!("'{text}' is not KEY=VALUE"))?;
        match key {
            "links_per_wan" => match value.parse() {
                Ok(count @ 1..=8) => Ok(Self::LinksPerWan(count)),
                _ => Err(format!("links_per_wan = {value}: 1 to 8")),
            },
            "tun_mtu" => match value.parse() {
                Ok(mtu @ 1280..=9000) => Ok(Self::TunMtu(mtu)),
                _ => Err(format!("tun_mtu = {value}: 1280 to 9000")),
            },
            "cipher" => Ok(Self::Security(line(key, value))),
            _ => Ok(Self::Performance(line(key, value))),
        }
    }
}

/// A line of TOML; words without quotes get them.
fn line(key: &str, value: &str) -> String {
    let literal = matches!(value, "true" | "false")
        || value.starts_with(['"', '\''])
        || value.parse::<f64>().is_ok();
    if literal {
        format!("{key} = {value}")
    } else {
        format!("{key} = \"{value}\"")
    }
}

/// The tunnel with settings of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// Its name in table and JSON document.
    pub name: String,
    /// Later ones win over earlier ones.
    pub settings: Vec<Setting>,
}

impl FromStr for Variant {
    type Err = String;

    /// `NAME`, or `NAME: KEY=VALUE, KEY=VALUE`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, settings) = text.split_once(':').unwrap_or((text, ""));
        let name = name.trim().to_owned();
        if name.is_empty() || name.contains('=') {
            return Err(format!("'{text}': a variant is NAME: KEY=VALUE, KEY=VALUE"));
        }
        let words = settings.split(',').filter(|word| !word.trim().is_empty());
        let settings = words.map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { name, settings })
    }
}

impl Variant {
    /// Lines of `[performance]`, each key once.
    pub fn performance(&self) -> Vec<String> {
        let lines = self.settings.iter().filter_map(|setting| match setting {
            Setting::Performance(line) => Some(line),
            Setting::Security(_) | Setting::LinksPerWan(_) | Setting::TunMtu(_) => None,
        });
        last_of_each_key(lines)
    }

    /// Lines of `[security]`, each key once.
    pub fn security(&self) -> Vec<String> {
        let lines = self.settings.iter().filter_map(|setting| match setting {
            Setting::Security(line) => Some(line),
            Setting::Performance(_) | Setting::LinksPerWan(_) | Setting::TunMtu(_) => None,
        });
        last_of_each_key(lines)
    }

    /// Sockets over each cable, if it says so.
    pub(super) fn links_per_wan(&self) -> Option<u8> {
        let mut counts = self
            .settings
            .iter()
            .rev()
            .filter_map(|setting| match setting {
                Setting::LinksPerWan(count) => Some(*count),
                Setting::Performance(_) | Setting::Security(_) | Setting::TunMtu(_) => None,
            });
        counts.next()
    }

    /// Largest inner packet, if it says so.
    pub(super) fn tun_mtu(&self) -> Option<u16> {
        let mut sizes = self
            .settings
            .iter()
            .rev()
            .filter_map(|setting| match setting {
                Setting::TunMtu(mtu) => Some(*mtu),
                Setting::Performance(_) | Setting::Security(_) | Setting::LinksPerWan(_) => None,
            });
        sizes.next()
    }
}

fn last_of_each_key<'a>(lines: impl Iterator<Item = &'a String>) -> Vec<String> {
    let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    let mut kept: Vec<String> = Vec::new();
    for line in lines {
        kept.retain(|earlier| key(earlier) != key(line));
        kept.push(line.clone());
    }
    kept
}

/// Who is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Contender<'a> {
    /// The tunnel.
    Tunnel(&'a Variant),
    /// Something else.
    Rival(Rival),
}

impl Contender<'_> {
    /// Its name in table and JSON document.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Tunnel(variant) => &variant.name,
            Self::Rival(rival) => rival.name(),
        }
    }
}

/// A whole benchmark.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Cables between client and server.
    pub links: usize,
    /// What their ends can do.
    pub nic: Nic,
    /// What flows.
    pub load: Load,
    /// How many flows of it.
    pub flows: usize,
    /// Which ways.
    pub directions: Vec<Direction>,
    /// The tunnel, in each of its variants.
    pub variants: Vec<Variant>,
    /// What else.
    pub rivals: Vec<Rival>,
    /// How long each measurement counts, in seconds.
    pub seconds: u64,
    /// How long it runs before that.
    pub warmup: u64,
    /// How long the idle programs are watched.
    pub idle: u64,
    /// How often everything is repeated.
    pub runs: u64,
}

impl Plan {
    /// Puts common settings in front of every variant's own; without variants there is one of that name.
    ///
    /// # Errors
    /// Two contenders of one name.
    pub fn variants(common: &[Setting], named: Vec<Variant>) -> Result<Vec<Variant>, String> {
        let mut variants = named;
        if variants.is_empty() {
            variants.push(Variant {
                name: VARIANT_DEFAULT.into(),
                settings: Vec::new(),
            });
        }
        let mut names: Vec<_> = Rival::value_variants().iter().map(|r| r.name()).collect();
        for variant in &mut variants {
            if names.contains(&variant.name.as_str()) {
                return Err(format!("two contenders are called '{}'", variant.name));
            }
            names.push(&variant.name);
            variant.settings.splice(0..0, common.iter().cloned());
        }
        Ok(variants)
    }

    /// Everybody, in the order in which they take turns.
    pub(super) fn contenders(&self) -> Vec<Contender<'_>> {
        let variants = self.variants.iter().map(Contender::Tunnel);
        let rivals = self.rivals.iter().map(|&rival| Contender::Rival(rival));
        variants.chain(rivals).collect()
    }

    /// How long a measurement counts.
    pub(super) fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How many measurements there are.
    pub(super) fn measurements(&self) -> usize {
        let contenders = self.variants.len() + self.rivals.len();
        let runs = usize::try_from(self.runs).unwrap_or(usize::MAX);
        self.directions.len() * contenders * runs
    }
}

#[cfg(test)]
pub(super) fn example() -> Plan {
    Plan {
        links: 1,
        nic: Nic::Offload,
        load: Load::Tcp,
        flows: 1,
        directions: vec![Direction::Up, Direction::Down],
        variants: vec![
            "tunnel".parse().unwrap(),
            "off: fec_mode=off".parse().unwrap(),
        ],
        rivals: vec![Rival::Baseline, Rival::Openvpn],
        seconds: 5,
        warmup: 2,
        idle: 1,
        runs: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_of_toml_whose_words_need_no_quotes() {
        let line = |text: &str| match text.parse().unwrap() {
            Setting::Performance(line) | Setting::Security(line) => line,
            other => format!("{other:?}"),
        };
        assert_eq!(line("fec_mode=off"), "fec_mode = \"off\"");
        assert_eq!(line(" threads = 1 "), "threads = 1");
        assert_eq!(line("rtt_weight=0.5"), "rtt_weight = 0.5");
        assert_eq!(line("offload=false"), "offload = false");
        assert_eq!(line("mode=\"latency\""), "mode = \"latency\"");
        assert_eq!(
            line("cipher=chacha20-poly1305"),
            "cipher = \"chacha20-poly1305\""
        );
        assert_eq!(line("links_per_wan=3"), "LinksPerWan(3)");
        for bad in [
            "",
            "fec_mode",
            "=off",
            "fec_mode=",
            "links_per_wan=0",
            "tun_mtu=99999",
        ] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_variant_has_a_name_and_settings_of_which_the_last_wins() {
        let variant: Variant = "no repair: fec_mode=off, links_per_wan=1, tun_mtu=1500"
            .parse()
            .unwrap();
        assert_eq!(variant.name, "no repair");
        assert_eq!(
            (variant.links_per_wan(), variant.tun_mtu()),
            (Some(1), Some(1500))
        );
        let common = [
            "fec_mode=fixed".parse().unwrap(),
            "cipher=auto".parse().unwrap(),
        ];
        let variants = Plan::variants(&common, vec![variant, "plain".parse().unwrap()]).unwrap();
        assert_eq!(variants[0].performance(), ["fec_mode = \"off\""]);
        assert_eq!(variants[1].performance(), ["fec_mode = \"fixed\""]);
        assert_eq!(variants[1].security(), ["cipher = \"auto\""]);
        assert!(
            "fec_mode=off".parse::<Variant>().is_err(),
            "a name is missing"
        );
        assert!(": fec_mode=off".parse::<Variant>().is_err());
    }

    #[test]
    fn names_are_given_once() {
        let named = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        assert_eq!(Plan::variants(&[], Vec::new()).unwrap()[0].name, "tunnel");
        assert!(Plan::variants(&[], named(&["a", "b"])).is_ok());
        assert!(Plan::variants(&[], named(&["a", "a"])).is_err());
        for rival in ["baseline", "relay", "openvpn", "wireguard-go"] {
            assert!(Plan::variants(&[], named(&[rival])).is_err(), "{rival}");
        }
    }

    #[test]
    fn everybody_takes_a_turn() {
        let plan = example();
        let contenders = plan.contenders();
        let names: Vec<_> = contenders.iter().map(Contender::name).collect();
        assert_eq!(names, ["tunnel", "off", "baseline", "openvpn"]);
        assert_eq!(plan.measurements(), 16);
    }
}
