//! The programs as an operator treats them: restarted, reloaded, stopped, given wrong keys.

use std::time::Duration;

use chainlightning::lab::traffic::capture::{Capture, udp_flow};
use chainlightning::lab::{LabError, Netns, Tunnel, TunnelSpec, pause, wait_until};
use chainlightning::sys::Netdev;
use nix::sys::signal::Signal;

use crate::Case;
use crate::support::{Outcome, THREE, World, check, check_flow, programs, topology};

const LIMIT: Duration = Duration::from_secs(60);
/// How soon packets pass again after one side was started anew.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::through_tunnel(name, LIMIT, run);
    vec![
        case("daemon_server_restarts", server_restarts),
        case("daemon_client_restarts", client_restarts),
        case(
            "daemon_wrong_key_is_met_with_silence",
            wrong_key_is_met_with_silence,
        ),
        case("daemon_leaves_nothing_behind", leaves_nothing_behind),
        case("daemon_stops_within_a_second", stops_within_a_second),
        case("daemon_reloads_on_hup", reloads_on_hup),
        case("demo_shows_a_tunnel_at_work", demo_shows_a_tunnel_at_work),
    ]
}

fn server_restarts() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.tunnel.stop_server(signal);
            pause(Duration::from_millis(500));
            world.tunnel.start_server(&world.lab)?;
            let back = wait_until(RECOVERY_MAX, || world.check_ping(0, 1).is_ok());
            check!(back, "no packet within {RECOVERY_MAX:?} after {signal}");
        }
        world.wait_links_up(0, RECOVERY_MAX)?;
        world.check_ping(0, 30)
    })
}

fn client_restarts() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.tunnel.stop_client(0, signal);
            world.tunnel.start_client(&world.lab, 0)?;
            let back = wait_until(RECOVERY_MAX, || world.check_ping(0, 1).is_ok());
            check!(back, "no packet within {RECOVERY_MAX:?} after {signal}");
        }
        world.wait_links_up(0, RECOVERY_MAX)?;
        world.check_ping(0, 30)
    })
}

fn wrong_key_is_met_with_silence() -> Outcome {
    let lab = topology(&THREE)?;
    // UDP packets from the client and from the server: even devices face the client, odd ones the server.
    let capture = Capture::start(
        lab.outside(),
        &lab.devices(),
        [0, 0],
        |counts, device, frame| {
            if udp_flow(frame).is_some() {
                counts[device % 2] += 1;
            }
        },
    )?;
    let spec = TunnelSpec {
        wrong_key: true,
        ..TunnelSpec::default()
    };
    let tunnel = Tunnel::start(&lab, &programs(), &spec)?;
    pause(Duration::from_secs(4));
    let report = tunnel.ping(&lab, 0, 5)?;
    let [from_client, from_server] = capture.finish()?;
    check!(
        report.received == 0,
        "{} pings passed with a wrong key",
        report.received
    );
    check!(
        from_client > 0,
        "the client did not even try\n{}",
        tunnel.logs()
    );
    check!(
        from_server == 0,
        "the server answered with {from_server} packets\n{}",
        tunnel.logs()
    );
    Ok(())
}

/// Everything that a daemon may change in a namespace, as text.
fn network_of(namespace: &Netns) -> Result<String, LabError> {
    namespace.run(|| {
        let mut netdev = Netdev::open()?;
        let interfaces = netdev.interfaces()?;
        let mut addresses: Vec<_> = netdev
            .addresses()?
            .iter()
            .map(|a| format!("{a:?}"))
            .collect();
        let mut routes: Vec<_> = netdev.routes()?.iter().map(|r| format!("{r:?}")).collect();
        let rules = netdev.rules()?;
        addresses.sort();
        routes.sort();
        let interfaces = interfaces.iter().map(|interface| format!("{interface:?}"));
        let rules = rules.iter().map(|rule| format!("{rule:?}"));
        let lines: Vec<_> = interfaces
            .chain(addresses)
            .chain(routes)
            .chain(rules)
            .collect();
        Ok(lines.join("\n"))
    })?
}

fn leaves_nothing_behind() -> Outcome {
    let lab = topology(&THREE)?;
    let both = || -> Result<[String; 2], LabError> {
        Ok([network_of(lab.client(0))?, network_of(lab.server())?])
    };
    let before = both()?;
    let spec = TunnelSpec::default();
    for kill_first in [false, true] {
        let mut tunnel = Tunnel::start_and_wait(&lab, &programs(), &spec)?;
        let during = both()?;
        check!(
            during[0] != before[0] && during[1] != before[1],
            "the tunnel changed nothing while it ran"
        );
        if kill_first {
            // What a killed program leaves is cleared away by its next start and stop.
            tunnel.stop_client(0, Signal::SIGKILL);
            tunnel.stop_server(Signal::SIGKILL);
            tunnel.start_server(&lab)?;
            tunnel.start_client(&lab, 0)?;
            tunnel.wait_up(&lab, 0)?;
        }
        tunnel.stop_client(0, Signal::SIGTERM);
        tunnel.stop_server(Signal::SIGTERM);
        // The kernel takes a moment to clear away a program that has ended; the programs' own part must be done.
        wait_until(Duration::from_secs(1), || {
            both().is_ok_and(|after| after == before)
        });
        for ((name, after), before) in ["client", "server"].iter().zip(both()?).zip(&before) {
            let only = |a: &str, b: &str| -> String {
                a.lines()
                    .filter(|line| !b.lines().any(|other| other == *line))
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            let (gone, left) = (only(before, &after), only(&after, before));
            check!(
                *before == after,
                "{name}, killed first: {kill_first}\ngone:\n{gone}\nleft behind:\n{left}"
            );
        }
    }
    Ok(())
}

fn stops_within_a_second() -> Outcome {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        World::run(&THREE, &TunnelSpec::default(), |world| {
            let flow = world.download(0)?;
            pause(Duration::from_secs(1));
            let client = world.tunnel.stop_client(0, signal);
            check!(
                client == Some(0),
                "client: exit code {client:?} after {signal} under load"
            );
            let server = world.tunnel.stop_server(signal);
            check!(
                server == Some(0),
                "server: exit code {server:?} after {signal}"
            );
            drop(flow);
            Ok(())
        })?;
    }
    Ok(())
}

fn reloads_on_hup() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        let original = std::fs::read_to_string(world.tunnel.client_config_file(0))?;
        let flow = world.download(0)?;
        pause(Duration::from_secs(1));
        let second_off = original.replace("name = \"wan2\"", "name = \"wan2\"\nrole = \"off\"");
        world.reload_client(0, &second_off)?;
        let off = wait_until(Duration::from_secs(3), || {
            world
                .link_states(0)
                .is_ok_and(|states| states.get(1).is_some_and(|state| state == "off"))
        });
        check!(
            off,
            "role = off was not taken over: {:?}",
            world.link_states(0)?
        );
        // A configuration with a fault is refused as a whole; the tunnel runs on.
        world.reload_client(0, "[links]\nstart_port = \"none\"\n")?;
        pause(Duration::from_millis(500));
        world.check_ping(0, 20)?;
        world.reload_client(0, &original)?;
        world.wait_links_up(0, Duration::from_secs(5))?;
        let report = flow.finish();
        check_flow(&report)?;
        check!(
            report.stall < Duration::from_millis(500),
            "stall of {:?}",
            report.stall
        );
        Ok(())
    })
}

fn demo_shows_a_tunnel_at_work() -> Outcome {
    let program = option_env!("CARGO_BIN_EXE_chainlightning").unwrap_or("chainlightning");
    let output = std::process::Command::new(program)
        .args(["demo", "--seconds", "12", "--json"])
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    check!(output.status.success(), "{}: {errors}", output.status);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    println!("{report:#}");
    let number = |pointer: &str| {
        report
            .pointer(pointer)
            .and_then(serde_json::Value::as_f64)
            .unwrap_or(f64::NAN)
    };
    check!(
        number("/tcp_resets") == 0.0 && number("/packets_with_plaintext") == 0.0,
        "{report:#}"
    );
    check!(
        report["ticks"]
            .as_array()
            .is_some_and(|ticks| ticks.len() == 12),
        "{report:#}"
    );
    check!(number("/gain_over_best_link") > 1.0, "{report:#}");
    check!(number("/stall_ms") < 500.0, "{report:#}");
    Ok(())
}
