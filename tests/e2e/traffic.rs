//! Traffic through the tunnel: every kind arrives whole, and nothing of it shows on the links.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use chainlightning::base::Rate;
use chainlightning::lab::traffic::capture::{Capture, PlaintextSearch, udp_flow};
use chainlightning::lab::traffic::ping::{PingConfig, ping};
use chainlightning::lab::traffic::{BulkFlow, UdpConfig, UdpFlow};
use chainlightning::lab::tunnel::{
    INNER_SERVER_V4, INNER_SERVER_V6, inner_client_v4, inner_client_v6,
};
use chainlightning::lab::{TunnelSpec, Wan, pause, wait_until};

use crate::Case;
use crate::support::{Failure, Outcome, THREE, World, check, check_flow, check_whole};

const LIMIT: Duration = Duration::from_secs(60);

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::through_tunnel(name, LIMIT, run);
    vec![
        case("tunnel_ping_and_tcp_both_ways", ping_and_tcp_both_ways),
        case("tunnel_ipv6_inside", ipv6_inside),
        case("tunnel_ipv6_outside", ipv6_outside),
        case("tunnel_every_packet_size", every_packet_size),
        case("tunnel_full_ethernet_packets", full_ethernet_packets),
        case("tunnel_over_short_paths", over_short_paths),
        case(
            "tunnel_loses_nothing_of_lossy_links",
            loses_nothing_of_lossy_links,
        ),
        case("tunnel_shows_no_plaintext", shows_no_plaintext),
        case("tunnel_two_clients", two_clients),
        case("tunnel_on_epoll", || on_backend("epoll")),
        case("tunnel_on_io_uring", || on_backend("io_uring")),
        case("tunnel_on_io_uring_oneshot", || {
            on_backend("io_uring_oneshot")
        }),
    ]
}

/// Lets a flow run, ends it, and returns its goodput after the first second.
fn goodput(flow: BulkFlow, seconds: u64) -> Result<f64, Failure> {
    pause(Duration::from_secs(seconds));
    let elapsed = flow.elapsed();
    let report = flow.finish();
    let goodput = report.goodput(Duration::from_secs(1), elapsed).as_mbps();
    println!(
        "{goodput:.1} Mbit/s, stall {:?}, {:?}",
        report.stall, report.info
    );
    check_flow(&report)?;
    Ok(goodput)
}

fn ping_and_tcp_both_ways() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        world.check_ping(0, 50)?;
        // More than the best link alone carries: the links are bonded.
        let down = goodput(world.download(0)?, 6)?;
        check!(down > 60.0, "{down} Mbit/s down over 60 + 30 + 15");
        let up = goodput(world.upload(0)?, 6)?;
        check!(up > 30.0, "{up} Mbit/s up over 30 + 15 + 8");
        world.check_ping(0, 50)
    })
}

fn ipv6_inside() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        check_whole(&ping(PingConfig::new(
            world.lab.client(0),
            INNER_SERVER_V6,
            Some(50),
        ))?)?;
        goodput(
            world.bulk(world.lab.server(), world.lab.client(0), inner_client_v6(0))?,
            3,
        )?;
        goodput(
            world.bulk(world.lab.client(0), world.lab.server(), INNER_SERVER_V6)?,
            3,
        )?;
        Ok(())
    })
}

fn ipv6_outside() -> Outcome {
    let spec = TunnelSpec {
        outer_v6: true,
        ..TunnelSpec::default()
    };
    World::run(&THREE, &spec, |world| {
        world.check_ping(0, 50)?;
        goodput(world.download(0)?, 3)?;
        goodput(world.upload(0)?, 3)?;
        Ok(())
    })
}

/// Pings once with every size of a range of data sizes, in both directions and both families.
fn sweep(world: &World, data_bytes: RangeInclusive<usize>) -> Outcome {
    let (client, server) = (world.lab.client(0), world.lab.server());
    let ways: [(_, IpAddr); 4] = [
        (client, INNER_SERVER_V4.into()),
        (client, INNER_SERVER_V6.into()),
        (server, inner_client_v4(0).into()),
        (server, inner_client_v6(0).into()),
    ];
    let count = Some(data_bytes.end() - data_bytes.start() + 1);
    for (namespace, target) in ways {
        let config = PingConfig::new(namespace, target, count);
        let config = PingConfig {
            interval: Duration::from_millis(2),
            data_bytes: data_bytes.clone(),
            ..config
        };
        check_whole(&ping(config)?)?;
    }
    Ok(())
}

fn every_packet_size() -> Outcome {
    // Inner packets of 28 (IPv4) bytes to the tunnel's MTU, and on to sizes that the sender's kernel fragments.
    World::run(
        &THREE,
        &TunnelSpec {
            tun_mtu: 1400,
            ..TunnelSpec::default()
        },
        |world| sweep(world, 0..=1400),
    )
}

fn full_ethernet_packets() -> Outcome {
    // Inner packets of 1500 bytes do not fit into one datagram of a link with an MTU of 1500; they pass all the same.
    World::run(
        &THREE,
        &TunnelSpec {
            tun_mtu: 1600,
            ..TunnelSpec::default()
        },
        |world| {
            sweep(world, 1350..=1572)?;
            goodput(world.download(0)?, 3)?;
            goodput(world.upload(0)?, 3)?;
            Ok(())
        },
    )
}

fn over_short_paths() -> Outcome {
    // The first WAN's devices take 1300 bytes, the second swallows longer packets than 1400, the third is ordinary.
    let specs = THREE.map(|spec| spec.to_owned());
    let [first, second, third] = specs;
    let wans = vec![
        Wan {
            mtu: 1300,
            ..Wan::new("device", &first)
        },
        Wan::new("path", &format!("{second} both mtu=1400")),
        Wan::new("plain", &third),
    ];
    World::run_wans(wans, &TunnelSpec::default(), |world| {
        sweep(world, 1340..=1372)?;
        goodput(world.download(0)?, 3)?;
        goodput(world.upload(0)?, 3)?;
        let wanted = [1272, 1372, 1472];
        let mut found = [Vec::new(), Vec::new()];
        let right = wait_until(Duration::from_secs(10), || {
            let both = [world.tunnel.client_status(0), world.tunnel.server_status()];
            found = both.map(|status| {
                let peers = status.map(|status| status.peers).unwrap_or_default();
                let links = peers.iter().flat_map(|peer| &peer.links);
                links.map(|link| link.datagram_bytes).collect()
            });
            found.iter().all(|sizes| *sizes == wanted)
        });
        check!(right, "{found:?} for {wanted:?}");
        sweep(world, 1340..=1372)
    })
}

fn loses_nothing_of_lossy_links() -> Outcome {
    let specs = THREE.map(|spec| format!("{spec} both loss=2%"));
    World::run(
        &specs.each_ref().map(String::as_str),
        &TunnelSpec::default(),
        |world| {
            let flow = |from: &_, to: &_, target: IpAddr| {
                let rate = Rate::from_mbps(5);
                let (from, to) = (Clone::clone(from), Clone::clone(to));
                UdpFlow::start(UdpConfig {
                    from,
                    to,
                    target: (target, 0).into(),
                    rate,
                    bytes: 1000,
                })
            };
            let (client, server) = (world.lab.client(0), world.lab.server());
            let down = flow(server, client, inner_client_v4(0).into())?;
            let up = flow(client, server, INNER_SERVER_V4.into())?;
            pause(Duration::from_secs(8));
            for (name, report) in [("down", down.finish()), ("up", up.finish())] {
                println!("{name}: {report:?}");
                check!(report.sent > 4_000, "{name}: {report:?}");
                check!(
                    report.lost() == 0 && report.duplicates == 0 && report.corrupted == 0,
                    "{name}: {report:?}"
                );
            }
            let stats = world.lab.emulator().stats()?;
            let lost: u64 = (0..3)
                .filter_map(|wan| stats["wans"][wan]["down"]["lost"].as_u64())
                .sum();
            check!(
                lost > 20,
                "the links lost {lost} datagrams, which proves nothing"
            );
            Ok(())
        },
    )
}

fn shows_no_plaintext() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        let capture = Capture::start(
            world.lab.outside(),
            &world.lab.devices(),
            (PlaintextSearch::default(), 0),
            |(search, others), _, frame| {
                search.look(frame);
                *others += u32::from(is_ipv4(frame) && udp_flow(frame).is_none());
            },
        )?;
        world.check_ping(0, 50)?;
        goodput(world.download(0)?, 3)?;
        goodput(world.upload(0)?, 2)?;
        let (search, others) = capture.finish()?;
        println!("{search:?}, {others} packets that are not UDP");
        check!(search.frames > 5_000, "{search:?}");
        check!(
            search.found == 0,
            "{} frames show inner bytes",
            search.found
        );
        check!(
            others == 0,
            "{others} packets on the links are not the tunnel's"
        );
        Ok(())
    })
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x08, 0x00])
}

fn two_clients() -> Outcome {
    let wans = vec![
        Wan::new("fiber", THREE[0]),
        Wan::new("dsl", THREE[1]),
        Wan::new("cable", THREE[0]).of_client(1),
        Wan::new("lte", THREE[2]).of_client(1),
    ];
    World::run_wans(wans, &TunnelSpec::default(), |world| {
        world.check_ping(0, 30)?;
        world.check_ping(1, 30)?;
        let flows = [world.download(0)?, world.download(1)?];
        for flow in flows {
            goodput(flow, 3)?;
        }
        Ok(())
    })
}

fn on_backend(backend: &str) -> Outcome {
    let refused = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if backend != "epoll" && refused.is_ok_and(|value| value.trim() == "2") {
        return Err(Failure::Skip(
            "io_uring is off on this host (sysctl kernel.io_uring_disabled)".into(),
        ));
    }
    let performance = format!("backend = \"{backend}\"");
    World::run(
        &THREE,
        &TunnelSpec {
            performance,
            ..TunnelSpec::default()
        },
        |world| {
            for status in [
                world.tunnel.client_status(0)?,
                world.tunnel.server_status()?,
            ] {
                check!(
                    status.engine.tier == backend,
                    "{} instead of {backend}: {}",
                    status.engine.tier,
                    status.engine.reason
                );
            }
            world.check_ping(0, 50)?;
            goodput(world.download(0)?, 3)?;
            goodput(world.upload(0)?, 3)?;
            sweep(world, 0..=200)
        },
    )
}
