//! `chainlightning bench`: the words of its command line, and what they mean.

mod tunnel;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use zeroize::Zeroizing;

use super::{EXIT_USAGE, Failure, finish};
use crate::bench::core::{self, CorePlan};
use crate::bench::emulator::EmulatorPlan;
use crate::bench::plan::{Case, Direction, LINKS_DEFAULT, Link};
use crate::bench::{Plan, aggregation, emulator};
use crate::config::keyfile::{KeyFileError, KeyFiles};
use crate::config::{Config, Role};
use crate::crypto::keys::PrivateKey;
pub use tunnel::{NicChoice, TunnelArgs};

/// Longest connection: every 10 ms of it are kept.
const SECONDS_MAX: u64 = 3600;
/// Most runs: a day's work with the defaults.
const RUNS_MAX: u64 = 100;
/// Most threads of `bench core`: the processors of a large machine.
const THREADS_MAX: u64 = 256;
/// Longest time for a figure of the benches without a network: it does not get better after seconds.
const FIGURE_SECONDS_MAX: f64 = 600.0;

/// What is measured.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// Compare the tunnel over several emulated links with the best link alone and with the kernel's multipath TCP,
    /// with real TCP in namespaces of their own. Needs no root
    Aggregation(AggregationArgs),
    /// Measure what the tunnel itself carries and costs where no link limits it, against the bare cable, other
    /// settings and other tunnels. Needs no root
    Tunnel(TunnelArgs),
    /// Measure the link emulator itself: how exact its rates are, and what delay it adds
    Emulator(EmulatorArgs),
    /// Measure the tunnel without the kernel: each step of the packet path, and whole sessions under load
    Core(CoreArgs),
    /// Measure the repair symbols of groups: computing them, and recovering what was lost
    Fec(FiguresArgs),
    /// Measure sealing and opening of datagrams, with both ciphers
    Crypto(FiguresArgs),
}

/// Options of `bench core`.
#[derive(Clone, Debug, Args)]
pub struct CoreArgs {
    /// Only these loads of a session, without the single steps; several separated by commas [default: all]
    #[arg(long = "load", value_delimiter = ',', value_parser = load_name, value_name = "NAME")]
    pub loads: Vec<String>,
    /// Threads that carry each load at once, every one with sessions of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=THREADS_MAX), value_name = "N")]
    pub threads: u64,
    /// Time and format.
    #[command(flatten)]
    pub figures: FiguresArgs,
}

/// Options of all benches without a network.
#[derive(Clone, Debug, Args)]
pub struct FiguresArgs {
    /// How long each figure is measured
    #[arg(long, default_value_t = 0.5, value_parser = figure_seconds, value_name = "S")]
    pub seconds: f64,
    /// Print one JSON document and nothing else
    #[arg(long)]
    pub json: bool,
}

/// A load by its name.
fn load_name(text: &str) -> Result<String, String> {
    let names: Vec<&str> = core::LOADS.iter().map(|load| load.name).collect();
    if names.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("there are {}", names.join(", ")))
    }
}

/// Time of a figure.
fn figure_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok();
    let fits = |seconds: &f64| (0.01..=FIGURE_SECONDS_MAX).contains(seconds);
    seconds
        .filter(fits)
        .ok_or_else(|| format!("a number of seconds from 0.01 to {FIGURE_SECONDS_MAX}"))
}

/// Options of `bench aggregation`.
#[derive(Clone, Debug, Args)]
pub struct AggregationArgs {
    /// A link: emulator words for both directions, or `up WORDS... down WORDS...`; once for each link [default: three
    /// links of 100, 50 and 20 Mbit/s with 10, 20 and 30 ms each way and queues of 100 ms]
    #[arg(long = "link", value_name = "WORDS")]
    pub links: Vec<Link>,
    /// Which way the payload flows
    #[arg(long, value_enum, default_value_t = DirectionChoice::Both)]
    pub direction: DirectionChoice,
    /// The sender's congestion control
    #[arg(long, value_enum, default_value_t = CongestionChoice::Both)]
    pub congestion: CongestionChoice,
    /// What the links do; several separated by commas
    #[arg(
        long = "case",
        alias = "cases",
        value_enum,
        value_delimiter = ',',
        default_value = "default"
    )]
    pub cases: Vec<Case>,
    /// How long each connection runs
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=SECONDS_MAX), value_name = "S")]
    pub seconds: u64,
    /// How much of it is not counted
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(..SECONDS_MAX), value_name = "S")]
    pub warmup: u64,
    /// How often everything is repeated; the table shows the run with the median goodput
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX), value_name = "N")]
    pub runs: u64,
    /// The tunnel's sockets over each link
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8), value_name = "N")]
    pub links_per_wan: u8,
    /// A further line of the tunnel's [performance] section, on both sides, such as 'fec_mode = "off"'
    #[arg(long = "set", value_name = "KEY = VALUE")]
    pub settings: Vec<String>,
    /// Print one JSON document and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Options of `bench emulator`.
#[derive(Clone, Debug, Args)]
pub struct EmulatorArgs {
    /// A link, as for `bench aggregation`
    #[arg(long = "link", value_name = "WORDS")]
    pub links: Vec<Link>,
    /// How long each part lasts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX), value_name = "S")]
    pub seconds: u64,
    /// Print one JSON document and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Which way the payload flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DirectionChoice {
    /// From the client to the server
    Up,
    /// From the server to the client
    Down,
    /// One after the other
    Both,
}

impl DirectionChoice {
    fn directions(self) -> Vec<Direction> {
        match self {
            Self::Up => vec![Direction::Up],
            Self::Down => vec![Direction::Down],
            Self::Both => vec![Direction::Up, Direction::Down],
        }
    }
}

/// Congestion controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CongestionChoice {
    /// CUBIC, the kernel's own default
    Cubic,
    /// BBR, which needs the kernel's module tcp_bbr
    Bbr,
    /// One after the other
    Both,
}

/// Runs the benchmark. `command_line` is the program's own, without its name.
pub fn bench(command: BenchCommand, command_line: &[OsString]) -> ExitCode {
    match command {
        BenchCommand::Aggregation(args) => {
            let json = args.json;
            match plan(args) {
                Ok(plan) => aggregation(&plan, json, command_line),
                Err(failure) => finish(Err(failure)),
            }
        }
        BenchCommand::Tunnel(args) => {
            let json = args.json;
            match tunnel::plan(args) {
                Ok(plan) => crate::bench::tunnel::tunnel(&plan, json, command_line),
                Err(failure) => finish(Err(failure)),
            }
        }
        BenchCommand::Emulator(args) => {
            let plan = EmulatorPlan {
                links: links_or_default(args.links),
                seconds: args.seconds,
            };
            emulator::emulator(&plan, args.json, command_line)
        }
        BenchCommand::Core(args) => core::core(&CorePlan {
            loads: args.loads,
            seconds: args.figures.seconds,
            threads: usize::try_from(args.threads).unwrap_or(1),
            json: args.figures.json,
        }),
        BenchCommand::Fec(args) => core::fec(args.seconds, args.json),
        BenchCommand::Crypto(args) => core::crypto(args.seconds, args.json),
    }
}

/// What the words mean.
fn plan(args: AggregationArgs) -> Result<Plan, Failure> {
    let mut cases = Vec::new();
    for case in args.cases {
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    let plan = Plan {
        links: links_or_default(args.links),
        directions: args.direction.directions(),
        congestions: match args.congestion {
            CongestionChoice::Cubic => vec!["cubic"],
            CongestionChoice::Bbr => vec!["bbr"],
            CongestionChoice::Both => vec!["cubic", "bbr"],
        },
        cases,
        seconds: args.seconds,
        warmup: args.warmup,
        runs: args.runs,
        links_per_wan: args.links_per_wan,
        settings: args.settings,
    };
    let checks = plan
        .check()
        .and_then(|()| check_settings(&plan.settings, &[]));
    checks.map_err(|message| Failure::new(EXIT_USAGE, format!("error: {message}")))?;
    Ok(plan)
}

/// Whether a tunnel would understand the settings, unknown keys included, which a daemon only warns about: here they
/// would be measured for nothing.
fn check_settings(performance: &[String], security: &[String]) -> Result<(), String> {
    /// Some key in every file: keys are not what is checked.
    struct AnyKey(PrivateKey);
    impl KeyFiles for AnyKey {
        fn read(&self, _: &Path) -> Result<Zeroizing<String>, KeyFileError> {
            Ok(self.0.to_base64())
        }
    }
    let make = || PrivateKey::generate().map_err(|error| format!("make a key: {error}"));
    let (ours, theirs) = (make()?, make()?);
    let text = format!(
        "[performance]\n{}\n[security]\n{}\npeer_public_key = \"{}\"\n",
        performance.join("\n"),
        security.join("\n"),
        theirs.public()
    );
    let loaded = Config::parse(&text, Path::new("--set"), Role::Server, &AnyKey(ours));
    let loaded = loaded.map_err(|errors| errors.to_string())?;
    match loaded.warnings.first() {
        Some(warning) => Err(warning.to_string()),
        None => Ok(()),
    }
}

fn links_or_default(links: Vec<Link>) -> Vec<Link> {
    if !links.is_empty() {
        return links;
    }
    let default = LINKS_DEFAULT.iter().map(|text| text.parse());
    default
        .map(|link| link.expect("the default links are right"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(subcommand)]
        command: BenchCommand,
    }

    fn parse(words: &[&str]) -> Result<AggregationArgs, clap::Error> {
        let words = ["bench", "aggregation"].iter().chain(words);
        match Cli::try_parse_from(words)?.command {
            BenchCommand::Aggregation(args) => Ok(args),
            _ => unreachable!("not asked for"),
        }
    }

    #[test]
    fn benches_without_a_network_know_their_loads_and_bounds() {
        let parse = |words: &[&str]| {
            let words = ["bench", "core"].iter().chain(words);
            match Cli::try_parse_from(words)?.command {
                BenchCommand::Core(args) => Ok(args),
                _ => unreachable!("not asked for"),
            }
        };
        let args: CoreArgs = parse(&["--load", "tso,ack", "--threads=2", "--json"]).unwrap();
        assert_eq!(args.loads, ["tso", "ack"]);
        assert_eq!((args.threads, args.figures.json), (2, true));
        for (words, part) in [
            (["--load", "huge"], "tso-fixed"),
            (["--threads", "0"], "1..=256"),
            (["--seconds", "0"], "0.01"),
        ] {
            let error: clap::Error = parse(&words).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn without_options_everything_is_compared_over_the_default_links() {
        let plan = plan(parse(&[]).unwrap()).unwrap();
        assert_eq!(plan.links.len(), 3);
        assert_eq!(plan.directions, [Direction::Up, Direction::Down]);
        assert_eq!(plan.congestions, ["cubic", "bbr"]);
        assert_eq!(plan.cases, [Case::Default]);
        assert_eq!((plan.seconds, plan.warmup, plan.runs), (30, 10, 1));
        assert_eq!(plan.links_per_wan, 2);
    }

    #[test]
    fn options_choose_and_repeat() {
        let words = [
            "--link",
            "rate=10mbit delay=5ms",
            "--link=up rate=1mbit down rate=8mbit",
            "--direction=down",
            "--congestion=bbr",
            "--case=loss,bursts",
            "--case",
            "loss",
            "--seconds=12",
            "--warmup=2",
            "--set",
            "fec_mode = \"off\"",
            "--json",
        ];
        let args = parse(&words).unwrap();
        assert!(args.json);
        let plan = plan(args).unwrap();
        assert_eq!(plan.links.len(), 2);
        assert_eq!(plan.directions, [Direction::Down]);
        assert_eq!(plan.congestions, ["bbr"]);
        assert_eq!(plan.cases, [Case::Loss, Case::Bursts]);
        assert_eq!((plan.seconds, plan.warmup), (12, 2));
        assert_eq!(plan.settings, ["fec_mode = \"off\""]);
    }

    #[test]
    fn wrong_words_are_refused_with_what_would_be_right() {
        for (words, part) in [
            (&["--link", "rate=fast"][..], "expected a rate"),
            (&["--link", "delay=5ms"], "needs a rate"),
            (&["--direction", "left"], "possible values: up, down, both"),
            (&["--case", "rain"], "possible values: default, loss"),
            (&["--seconds", "1"], "2..=3600"),
            (&["--runs", "0"], "1..=100"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{words:?}: {error}");
        }
        for (setting, part) in [
            ("fec_mod = \"off\"", "performance.fec_mod"),
            ("fec_mode = \"maybe\"", "adaptive"),
            ("fec_mode off", "--set:2"),
        ] {
            let failure = plan(parse(&["--set", setting]).unwrap()).unwrap_err();
            assert_eq!(failure.exit_code, EXIT_USAGE);
            assert!(failure.message.contains(part), "{failure:?}");
        }
        let failure = plan(parse(&["--seconds", "11"]).unwrap()).unwrap_err();
        assert_eq!(failure.exit_code, EXIT_USAGE);
        assert!(failure.message.contains("needs 12 s"), "{failure:?}");
    }
}
