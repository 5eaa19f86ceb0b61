//! `chainlightning bench tunnel`: the words of its command line, and what they mean.

use clap::{Args, ValueEnum};

use super::{DirectionChoice, RUNS_MAX, SECONDS_MAX, check_settings};
use crate::bench::tunnel::Plan;
use crate::bench::tunnel::plan::{FLOWS_MAX, LINKS_MAX, Load, Rival, Setting, Variant};
use crate::cli::{EXIT_USAGE, Failure};
use crate::lab::Nic;
use crate::lab::traffic::flood::PAYLOAD_BYTES_MIN;

/// Largest UDP payload: with its headers an inner packet of the tunnel's default size.
const PAYLOAD_BYTES_MAX: u64 = 1372;

/// Options of `bench tunnel`.
#[derive(Clone, Debug, Args)]
pub struct TunnelArgs {
    /// Cables between client and server, each a WAN of the client
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=LINKS_MAX), value_name = "N")]
    pub links: u64,
    /// What the cables' ends can do
    #[arg(long, value_enum, default_value_t = NicChoice::Offload)]
    pub nic: NicChoice,
    /// Which way the payload flows
    #[arg(long, value_enum, default_value_t = DirectionChoice::Both)]
    pub direction: DirectionChoice,
    /// TCP connections, or source ports of UDP
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=FLOWS_MAX), value_name = "N")]
    pub flows: u64,
    /// UDP packets with so many bytes of payload in place of TCP: the greatest rate of which at most 0.1 % are lost
    #[arg(long, value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX), value_name = "BYTES")]
    pub udp: Option<u64>,
    /// How long each measurement counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX), value_name = "S")]
    pub seconds: u64,
    /// How long it runs before that
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=SECONDS_MAX), value_name = "S")]
    pub warmup: u64,
    /// How long the idle programs are watched
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX), value_name = "S")]
    pub idle: u64,
    /// How often everything is repeated, contenders in turn; the table shows medians and ranges
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=RUNS_MAX), value_name = "N")]
    pub runs: u64,
    /// What runs beside the tunnel; several separated by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "NAME")]
    pub compare: Vec<Rival>,
    /// A setting of the tunnel on both sides: a key of [performance], or cipher, links_per_wan, tun_mtu
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<Setting>,
    /// The tunnel with settings of its own, as a further contender; once for each
    #[arg(long = "variant", value_name = "NAME: KEY=VALUE, ...")]
    pub variants: Vec<Variant>,
    /// Print one JSON document and nothing else
    #[arg(long)]
    pub json: bool,
}

/// What network cards can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NicChoice {
    /// Segmentation offload, as good cards have it
    Offload,
    /// Nothing: every datagram crosses alone
    Plain,
}

/// What the words mean.
pub(super) fn plan(args: TunnelArgs) -> Result<Plan, Failure> {
    let usage = |message: String| Failure::new(EXIT_USAGE, format!("error: {message}"));
    let small = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let mut rivals = Vec::new();
    for rival in args.compare {
        if !rivals.contains(&rival) {
            rivals.push(rival);
        }
    }
    let plan = Plan {
        links: small(args.links),
        nic: match args.nic {
            NicChoice::Offload => Nic::Offload,
            NicChoice::Plain => Nic::Plain,
        },
        load: args.udp.map_or(Load::Tcp, |bytes| Load::Udp {
            bytes: small(bytes),
        }),
        flows: small(args.flows),
        directions: args.direction.directions(),
        variants: Plan::variants(&args.settings, args.variants).map_err(usage)?,
        rivals,
        seconds: args.seconds,
        warmup: args.warmup,
        idle: args.idle,
        runs: args.runs,
    };
    for variant in &plan.variants {
        check_settings(&variant.performance(), &variant.security())
            .map_err(|message| usage(format!("{}: {message}", variant.name)))?;
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Direction;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: TunnelArgs,
    }

    fn parse(words: &[&str]) -> Result<TunnelArgs, clap::Error> {
        let words = ["tunnel"].iter().chain(words);
        Cli::try_parse_from(words).map(|cli| cli.args)
    }

    #[test]
    fn without_options_one_connection_goes_through_one_cable_each_way() {
        let plan = plan(parse(&[]).unwrap()).unwrap();
        assert_eq!((plan.links, plan.flows, plan.load), (1, 1, Load::Tcp));
        assert_eq!(plan.nic, Nic::Offload);
        assert_eq!(plan.directions, [Direction::Up, Direction::Down]);
        assert_eq!(plan.variants.len(), 1);
        assert_eq!((plan.seconds, plan.warmup, plan.runs), (5, 3, 1));
        assert!(plan.rivals.is_empty());
    }

    #[test]
    fn options_choose_load_rivals_and_variants() {
        let words = [
            "--links=3",
            "--nic=plain",
            "--direction=up",
            "--udp=200",
            "--flows=16",
            "--compare=openvpn,relay,baseline",
            "--compare=openvpn",
            "--set=fec_mode=off",
            "--variant=epoll: backend=epoll",
            "--variant",
            "ring: backend=io_uring, fec_mode=fixed",
        ];
        let plan = plan(parse(&words).unwrap()).unwrap();
        assert_eq!((plan.links, plan.nic, plan.flows), (3, Nic::Plain, 16));
        assert_eq!(plan.load, Load::Udp { bytes: 200 });
        assert_eq!(plan.rivals, [Rival::Openvpn, Rival::Relay, Rival::Baseline]);
        assert_eq!(
            plan.variants[0].performance(),
            ["fec_mode = \"off\"", "backend = \"epoll\""]
        );
        assert_eq!(
            plan.variants[1].performance(),
            ["backend = \"io_uring\"", "fec_mode = \"fixed\""]
        );
    }

    #[test]
    fn what_a_tunnel_would_not_understand_is_refused() {
        for (words, part) in [
            (&["--set=fec_mod=off"][..], "performance.fec_mod"),
            (&["--set=cipher=rot13"], "aes-256-gcm"),
            (&["--variant=a: backend=fast"], "io_uring"),
            (&["--variant=a", "--variant=a"], "two contenders"),
        ] {
            let failure = plan(parse(words).unwrap()).unwrap_err();
            assert_eq!(failure.exit_code, EXIT_USAGE);
            assert!(failure.message.contains(part), "{failure:?}");
        }
        for (words, part) in [
            (&["--set=fec_mode"][..], "KEY=VALUE"),
            (&["--variant=fec_mode=off"], "NAME"),
            (&["--udp=8"], "16..=1372"),
            (&["--links=17"], "1..=16"),
            (&["--compare=tinc"], "wireguard-go"),
        ] {
            let error = parse(words).unwrap_err().to_string();
            assert!(error.contains(part), "{words:?}: {error}");
        }
    }
}
