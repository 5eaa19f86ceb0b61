//! What the data path does with a real kernel: trains of small packets, sends without a copy, kinds of segmented sends,
//! and what an idle tunnel costs.

use std::net::IpAddr;
use std::time::Duration;

use chainlightning::base::Rate;
use chainlightning::lab::traffic::{UdpConfig, UdpFlow};
use chainlightning::lab::tunnel::INNER_SERVER_V4;
use chainlightning::lab::{TunnelSpec, pause};

use crate::Case;
use crate::support::{Failure, Outcome, THREE, World, check, check_flow};

const LIMIT: Duration = Duration::from_secs(60);
/// One WAN whose runs are long: 37 KB in a pacer's quantum.
const FAST: [&str; 1] = ["both delay=2ms rate=300mbit"];

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::through_tunnel(name, LIMIT, run);
    vec![
        case(
            "tunnel_writes_small_packets_in_trains",
            writes_small_packets_in_trains,
        ),
        case(
            "tunnel_zero_copy_ends_where_the_kernel_copies",
            zero_copy_ends_where_the_kernel_copies,
        ),
        case("tunnel_with_uneven_runs", || with_gso("uneven")),
        case("tunnel_without_runs", || with_gso("off")),
        case("tunnel_without_offload", without_offload),
        case("tunnel_idle_costs_little", idle_costs_little),
    ]
}

fn with(performance: &str) -> TunnelSpec {
    TunnelSpec {
        performance: performance.to_owned(),
        ..TunnelSpec::default()
    }
}

/// Small datagrams through the tunnel; how many were lost of how many.
fn small_datagrams(world: &World) -> Result<(u64, u64), Failure> {
    let flow = UdpFlow::start(UdpConfig {
        from: world.lab.client(0).clone(),
        to: world.lab.server().clone(),
        target: (IpAddr::from(INNER_SERVER_V4), 0).into(),
        rate: Rate::from_mbps(12),
        bytes: 200,
    })?;
    pause(Duration::from_secs(3));
    let report = flow.finish();
    println!("{report:?}");
    Ok((report.lost(), report.sent))
}

fn writes_small_packets_in_trains() -> Outcome {
    World::run(&THREE, &with(""), |world| {
        let (lost, sent) = small_datagrams(world)?;
        check!(lost * 100 <= sent, "{lost} of {sent} lost");
        let (out, back) = (
            world.tunnel.client_status(0)?.engine,
            world.tunnel.server_status()?.engine,
        );
        println!(
            "{} datagrams, {} sends; {} writes, {} packets merged",
            out.tun_reads, out.udp_sends, back.tun_writes, back.tun_merged
        );
        // The sender wakes each millisecond and sends several at once.
        if back.offloads.iter().any(|word| word == "tun_uso") {
            check!(back.tun_merged > sent / 4, "{} merged", back.tun_merged);
        }
        check!(back.tun_split == 0, "{} split", back.tun_split);
        let residence = &world.tunnel.client_status(0)?.peers[0].residence;
        check!(residence.out_ms.p50 > 0.0, "{residence:?}");
        Ok(())
    })
}

fn zero_copy_ends_where_the_kernel_copies() -> Outcome {
    World::run(&FAST, &with("zero_copy = \"auto\""), |world| {
        let flow = world.upload(0)?;
        pause(Duration::from_secs(4));
        let first = world.tunnel.client_status(0)?.engine;
        pause(Duration::from_secs(2));
        let second = world.tunnel.client_status(0)?.engine;
        check_flow(&flow.finish())?;
        println!(
            "{} and {} of {} sends, {} copied",
            first.zero_copy_sends,
            second.zero_copy_sends,
            second.udp_sends,
            second.zero_copy_copied
        );
        if first.tier == "epoll" || first.zero_copy_sends == 0 {
            return Err(Failure::Skip("no zero-copy sends on this host".into()));
        }
        // veth copies whatever it is asked for.
        check!(
            second.zero_copy_sends == first.zero_copy_sends && second.zero_copy_sends < 200,
            "went on: {} after {}",
            second.zero_copy_sends,
            first.zero_copy_sends
        );
        check!(
            second.zero_copy_copied == second.zero_copy_sends,
            "{} notifications for {} sends",
            second.zero_copy_copied,
            second.zero_copy_sends
        );
        Ok(())
    })
}

fn with_gso(word: &str) -> Outcome {
    World::run(&FAST, &with(&format!("gso = \"{word}\"")), |world| {
        let flow = world.upload(0)?;
        pause(Duration::from_secs(3));
        check_flow(&flow.finish())?;
        let status = world.tunnel.client_status(0)?;
        let (engine, link) = (&status.engine, &status.peers[0].links[0]);
        println!(
            "{} segmented of {} sends, gso {}",
            engine.udp_segmented_sends, engine.udp_sends, link.gso
        );
        check!(link.gso == word, "{} instead of {word}", link.gso);
        check!(
            (engine.udp_segmented_sends > 0) == (word == "uneven"),
            "{} segmented sends",
            engine.udp_segmented_sends
        );
        Ok(())
    })
}

fn without_offload() -> Outcome {
    World::run(&THREE, &with("offload = false"), |world| {
        world.check_ping(0, 30)?;
        let flow = world.download(0)?;
        pause(Duration::from_secs(3));
        check_flow(&flow.finish())?;
        let status = world.tunnel.server_status()?;
        let engine = &status.engine;
        check!(engine.offloads.is_empty(), "{:?}", engine.offloads);
        check!(
            engine.udp_segmented_sends == 0 && engine.tun_merged == 0,
            "{} segmented, {} merged",
            engine.udp_segmented_sends,
            engine.tun_merged
        );
        Ok(())
    })
}

fn idle_costs_little() -> Outcome {
    World::run(&THREE, &with(""), |world| {
        world.wait_links_up(0, LIMIT / 2)?;
        pause(Duration::from_secs(1));
        let before = [
            world.tunnel.client_status(0)?.engine.submits,
            world.tunnel.server_status()?.engine.submits,
        ];
        let cpu = world.tunnel.cpu_time();
        pause(Duration::from_secs(5));
        let after = [
            world.tunnel.client_status(0)?.engine.submits,
            world.tunnel.server_status()?.engine.submits,
        ];
        println!(
            "waits in 5 s: client {}, server {}; processor of both {:?}",
            after[0] - before[0],
            after[1] - before[1],
            world.tunnel.cpu_time().saturating_sub(cpu)
        );
        // Three links, a heartbeat each 100 ms in both directions, their reports, and the timers between them.
        for (before, after) in before.iter().zip(after) {
            check!(after - before < 5 * 400, "{} waits", after - before);
        }
        Ok(())
    })
}
