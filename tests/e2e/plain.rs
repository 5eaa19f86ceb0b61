//! The lab itself: plain traffic over the emulated WANs, without a tunnel. What these cases find wrong would
//! otherwise be blamed on the tunnel.

use std::net::IpAddr;
use std::time::Duration;

use chainlightning::base::Rate;
use chainlightning::lab::topology::{SERVER_V4, SERVER_V6};
use chainlightning::lab::traffic::capture::{Capture, PlaintextSearch, udp_flow};
use chainlightning::lab::traffic::ping::{PingConfig, ping};
use chainlightning::lab::traffic::{BulkConfig, BulkFlow, UdpConfig, UdpFlow};
use chainlightning::lab::{Topology, pause, wait_until};

use crate::Case;
use crate::support::{Outcome, check, topology, topology_without_nat};

const LIMIT: Duration = Duration::from_secs(30);

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case {
        name,
        limit: LIMIT,
        tunnel: false,
        run,
    };
    vec![
        case(
            "plain_ping_takes_the_delay_of_its_wan",
            ping_takes_the_delay_of_its_wan,
        ),
        case("plain_ping_over_ipv6", ping_over_ipv6),
        case(
            "plain_udp_gets_the_rate_and_not_more",
            udp_gets_the_rate_and_not_more,
        ),
        case(
            "plain_udp_loses_what_was_asked_for",
            udp_loses_what_was_asked_for,
        ),
        case(
            "plain_tcp_fills_a_wan_in_both_directions",
            tcp_fills_a_wan_in_both_directions,
        ),
        case(
            "plain_tcp_at_300_mbit_leaves_the_machine_time",
            tcp_at_300_mbit_leaves_the_machine_time,
        ),
        case("plain_outage_stops_and_returns", outage_stops_and_returns),
        case(
            "plain_rebind_changes_the_source_port",
            rebind_changes_the_source_port,
        ),
        case("plain_capture_finds_the_marker", capture_finds_the_marker),
        case("plain_interface_goes_and_comes", interface_goes_and_comes),
    ]
}

fn pinger(lab: &Topology, target: impl Into<IpAddr>, count: usize) -> PingConfig {
    PingConfig::new(lab.client(0), target, Some(count))
}

fn ping_takes_the_delay_of_its_wan() -> Outcome {
    let lab = topology(&[
        "both delay=5ms rate=100mbit",
        "both delay=25ms",
        "up delay=10ms down delay=30ms",
    ])?;
    for (number, millis) in [(1, 10), (2, 50), (3, 40)] {
        let report = ping(pinger(&lab, Topology::gateway_v4(number), 50))?;
        let (p50, wanted) = (report.quantile(0.5), Duration::from_millis(millis));
        println!(
            "wan{number}: p50 {p50:?} p99 {:?} of {wanted:?}",
            report.quantile(0.99)
        );
        check!(
            report.lost() == 0 && report.corrupted == 0,
            "wan{number}: {report:?}"
        );
        // The fastest answer tells what the emulator does; the median also tells how busy this machine is.
        let fastest = report.rtts[0];
        check!(
            fastest >= wanted,
            "wan{number}: {fastest:?} is faster than the wire"
        );
        check!(
            fastest < wanted + Duration::from_millis(1),
            "wan{number}: {fastest:?}"
        );
        check!(
            p50 < wanted + Duration::from_millis(5),
            "wan{number}: p50 {p50:?}"
        );
    }
    // The one server address, by the first WAN, whose default route has the lowest metric.
    let report = ping(pinger(&lab, SERVER_V4, 20))?;
    check!(
        report.lost() == 0 && report.rtts[0] < Duration::from_millis(11),
        "{report:?}"
    );
    Ok(())
}

fn ping_over_ipv6() -> Outcome {
    let lab = topology(&["both delay=3ms"])?;
    let report = ping(pinger(&lab, SERVER_V6, 20))?;
    check!(
        report.lost() == 0 && report.rtts[0] < Duration::from_millis(7),
        "{report:?}"
    );
    Ok(())
}

fn udp_gets_the_rate_and_not_more() -> Outcome {
    let mut lab = topology_without_nat(&["down rate=40mbit delay=2ms queue=20ms"])?;
    let flow = UdpFlow::start(UdpConfig {
        from: lab.server().clone(),
        to: lab.client(0).clone(),
        target: (Topology::client_v4(1), 0).into(),
        rate: Rate::from_mbps(60),
        bytes: 1222, // 1250 bytes of IP packet
    })?;
    pause(Duration::from_millis(500));
    let before = lab.emulator().stats()?;
    pause(Duration::from_secs(3));
    let after = lab.emulator().stats()?;
    let report = flow.finish();
    let number =
        |stats: &serde_json::Value, key: &str| stats["wans"][0]["down"][key].as_f64().unwrap();
    let millis = after["time_ms"].as_f64().unwrap() - before["time_ms"].as_f64().unwrap();
    let bits = 8.0 * (number(&after, "delivered_bytes") - number(&before, "delivered_bytes"));
    let mbps = bits / millis / 1e3;
    println!("{mbps:.3} Mbit/s delivered of 40; {report:?}");
    check!((mbps / 40.0 - 1.0).abs() < 0.005, "{mbps} Mbit/s");
    check!(report.received > 13_500, "{report:?}");
    let all = u64::try_from(after["wans"][0]["send_drops"].as_i64().unwrap()).unwrap();
    check!(all == 0 && after["oversize"] == 0, "{after}");
    check!(
        report.corrupted == 0 && report.duplicates == 0 && report.reordered == 0,
        "{report:?}"
    );
    Ok(())
}

fn udp_loses_what_was_asked_for() -> Outcome {
    let mut lab = topology_without_nat(&["down gilbert=2%/8 dup=1% delay=2ms"])?;
    let flow = UdpFlow::start(UdpConfig {
        from: lab.server().clone(),
        to: lab.client(0).clone(),
        target: (Topology::client_v4(1), 0).into(),
        rate: Rate::from_mbps(40),
        bytes: 500,
    })?;
    pause(Duration::from_secs(3));
    let report = flow.finish();
    let stats = lab.emulator().stats()?;
    let down = &stats["wans"][0]["down"];
    println!("{report:?} {down}");
    check!(report.sent > 20_000, "{report:?}");
    // A few packets on the cable are not ours (neighbour discovery), and may be lost or doubled like any other.
    let told = |key: &str| down[key].as_u64().unwrap_or(u64::MAX);
    let foreign = told("handled").saturating_sub(report.sent);
    check!(foreign < 10, "{report:?} but {down}");
    check!(
        report.lost().abs_diff(told("lost")) <= foreign,
        "{report:?} but {down}"
    );
    check!(
        report.duplicates.abs_diff(told("duplicated")) <= foreign,
        "{report:?} but {down}"
    );
    #[allow(clippy::cast_precision_loss)]
    let ratio = report.lost() as f64 / report.sent as f64;
    check!((0.012..0.03).contains(&ratio), "lost {ratio}");
    Ok(())
}

fn tcp_fills_a_wan_in_both_directions() -> Outcome {
    let lab = topology(&["down rate=80mbit delay=10ms up rate=20mbit delay=10ms"])?;
    let (client, server) = (lab.client(0).clone(), lab.server().clone());
    let directions = [
        (
            "down",
            server.clone(),
            client.clone(),
            Topology::client_v4(1),
            80.0,
        ),
        ("up", client, server, Topology::gateway_v4(1), 20.0),
    ];
    for (name, from, to, target, rate) in directions {
        let config = BulkConfig {
            from,
            to,
            target: (target, 0).into(),
            congestion: "cubic",
            verify: true,
        };
        let flow = BulkFlow::start(&config)?;
        pause(Duration::from_secs(4));
        let elapsed = flow.elapsed();
        let report = flow.finish();
        let goodput = report.goodput(Duration::from_secs(1), elapsed).as_mbps();
        let share = goodput / (rate * 1448.0 / 1500.0);
        println!(
            "{name}: {goodput:.1} Mbit/s = {share:.3}, stall {:?}, {:?}",
            report.stall, report.info
        );
        check!(
            !report.reset && !report.corrupted && report.error.is_none(),
            "{name}: {report:?}"
        );
        check!(
            (0.85..1.01).contains(&share),
            "{name}: {share} of what the link carries"
        );
    }
    Ok(())
}

fn tcp_at_300_mbit_leaves_the_machine_time() -> Outcome {
    let mut lab = topology_without_nat(&["down rate=300mbit delay=5ms up rate=50mbit delay=5ms"])?;
    let flow = BulkFlow::start(&BulkConfig {
        from: lab.server().clone(),
        to: lab.client(0).clone(),
        target: (Topology::client_v4(1), 0).into(),
        congestion: "cubic",
        verify: false,
    })?;
    pause(Duration::from_secs(1));
    let before = lab.emulator().cpu_time();
    pause(Duration::from_secs(3));
    let (cpu, stats) = (lab.emulator().cpu_time() - before, lab.emulator().stats()?);
    let elapsed = flow.elapsed();
    let report = flow.finish();
    let goodput = report.goodput(Duration::from_secs(1), elapsed).as_mbps();
    let share = cpu.as_secs_f64() / 3.0;
    println!(
        "{goodput:.1} Mbit/s, {:.0} % of a processor, {:?}, {stats}",
        100.0 * share,
        report.info
    );
    check!(goodput > 0.85 * 300.0, "{goodput} Mbit/s");
    check!(share < 0.5, "the emulator takes {share} of a processor");
    Ok(())
}

fn outage_stops_and_returns() -> Outcome {
    let mut lab = topology(&["both delay=2ms", "both delay=2ms"])?;
    lab.emulator().command("1 down outage")?;
    let dead = ping(pinger(&lab, Topology::gateway_v4(1), 10))?;
    let alive = ping(pinger(&lab, Topology::gateway_v4(2), 10))?;
    check!(
        dead.received == 0 && alive.lost() == 0,
        "{dead:?} {alive:?}"
    );
    lab.emulator().command("1 down outage=off")?;
    let back = ping(pinger(&lab, Topology::gateway_v4(1), 10))?;
    check!(back.lost() == 0, "{back:?}");
    check!(
        lab.emulator().command("3 up outage").is_err(),
        "there is no third WAN"
    );
    check!(
        lab.emulator().command("1 up rate=fast").is_err(),
        "fast is no rate"
    );
    Ok(())
}

fn rebind_changes_the_source_port() -> Outcome {
    let mut lab = topology(&["both delay=1ms"])?;
    let server = lab
        .server()
        .run(|| std::net::UdpSocket::bind((SERVER_V4, 9001)))??;
    let client = lab
        .client(0)
        .run(|| std::net::UdpSocket::bind("0.0.0.0:5555"))??;
    server.set_read_timeout(Some(Duration::from_secs(2)))?;
    client.set_read_timeout(Some(Duration::from_millis(300)))?;
    let mut buffer = [0; 100];
    let mut ports = Vec::new();
    let mut old = None;
    for round in 0..3 {
        client.send_to(b"hello", (SERVER_V4, 9001))?;
        let (_, from) = server.recv_from(&mut buffer)?;
        server.send_to(b"answer", from)?;
        check!(
            client.recv(&mut buffer)? == 6,
            "round {round}: the answer passes the NAT"
        );
        if let Some(old) = old.replace(from) {
            server.send_to(b"to the old port", old)?;
            check!(
                client.recv(&mut buffer).is_err(),
                "what goes to the old port must not arrive"
            );
        }
        ports.push(from.port());
        lab.emulator().command("1 rebind")?;
    }
    check!(
        ports[0] != ports[1] && ports[1] != ports[2] && !ports.contains(&5555),
        "{ports:?}"
    );
    Ok(())
}

fn capture_finds_the_marker() -> Outcome {
    let lab = topology(&["both delay=1ms"])?;
    let devices = lab.devices();
    let capture = Capture::start(
        lab.outside(),
        &devices,
        PlaintextSearch::default(),
        |search, _, frame| {
            search.look(frame);
        },
    )?;
    let flows = Capture::start(lab.outside(), &devices, 0, |count, _, frame| {
        *count += u32::from(udp_flow(frame).is_some());
    })?;
    let report = ping(pinger(&lab, SERVER_V4, 25))?;
    let (search, flows) = (capture.finish()?, flows.finish()?);
    check!(
        report.lost() == 0 && search.found == 50 && flows == 0,
        "{search:?} {flows} {report:?}"
    );
    Ok(())
}

fn interface_goes_and_comes() -> Outcome {
    let lab = topology(&["both delay=1ms", "both delay=1ms"])?;
    lab.set_client_interface(1, false)?;
    // The default route of the first WAN went with it; the second takes over.
    let report = ping(pinger(&lab, SERVER_V4, 5))?;
    check!(report.lost() == 0, "{report:?}");
    lab.set_client_interface(1, true)?;
    let back =
        || ping(pinger(&lab, Topology::gateway_v4(1), 1)).is_ok_and(|report| report.lost() == 0);
    check!(
        wait_until(Duration::from_secs(5), back),
        "the first WAN is back"
    );
    Ok(())
}
