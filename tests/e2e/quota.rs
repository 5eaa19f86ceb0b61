//! A WAN's monthly quota: used up under load, kept over restarts, and raised by a reload.

use std::time::Duration;

use chainlightning::lab::{LabError, TunnelSpec, pause, wait_until};
use chainlightning::status::LinkStatus;
use nix::sys::signal::Signal;

use crate::Case;
use crate::support::{Outcome, THREE, World, check, check_flow};

const LIMIT: Duration = Duration::from_secs(120);

/// What the first WAN may carry, and what it may after the operator has bought more.
const QUOTA_GB: &str = "0.008";
const QUOTA_BYTES: u64 = 8_000_000;
const MORE_GB: &str = "5";
/// How soon a quota is used up at the first WAN's 60 Mbit/s, noticed and told to the server; many times of what it takes.
const SPENT_MAX: Duration = Duration::from_secs(20);
/// Longest stall of an inner flow when the WAN leaves at full load, as when one dies.
const STALL_MAX: Duration = Duration::from_millis(500);
/// How soon links are up again after a restart or a reload.
const UP_MAX: Duration = Duration::from_secs(10);

/// Bytes of two seconds' heartbeats on a WAN whose quota is used up; ten times of what they are.
const HEARTBEATS_MAX: u64 = 50_000;

pub fn cases() -> Vec<Case> {
    vec![Case::through_tunnel(
        "quota_is_used_up_and_stays_so",
        LIMIT,
        used_up_and_stays_so,
    )]
}

fn used_up_and_stays_so() -> Outcome {
    World::run(&THREE, &TunnelSpec::default(), |world| {
        let original = std::fs::read_to_string(world.tunnel.client_config_file(0))?;
        let first_may = |gigabytes: &str| {
            let quota = format!("name = \"wan1\"\nquota_gb = {gigabytes}");
            original.replace("name = \"wan1\"", &quota)
        };
        world.wait_links_up(0, UP_MAX)?;
        world.reload_client(0, &first_may(QUOTA_GB))?;
        leaves_without_a_break(world)?;
        // A client that was killed has not said what it counted last, but that the quota is used up is in the file.
        let _ = restart(world, Signal::SIGKILL)?;
        let before = first_link(world)?.quota_used_bytes;
        let after = restart(world, Signal::SIGTERM)?;
        check!(after >= before, "{after} of {before} bytes are known");
        world.reload_client(0, &first_may(MORE_GB))?;
        world.wait_links_up(0, UP_MAX)?;
        let link = first_link(world)?;
        check!(
            link.quota_bytes > QUOTA_BYTES && link.quota_used_bytes >= after,
            "what was counted is gone: {link:?}"
        );
        Ok(())
    })
}

/// A flow uses the quota up: the WAN leaves at both ends, and the flow goes on.
fn leaves_without_a_break(world: &World) -> Outcome {
    let flow = world.download(0)?;
    let spent = wait_until(SPENT_MAX, || is_spent_at_both_ends(world).unwrap_or(false));
    let link = first_link(world)?;
    check!(spent, "not used up after {SPENT_MAX:?}: {link:?}");
    println!(
        "{} of {} bytes, {}",
        link.quota_used_bytes, link.quota_bytes, link.cause
    );
    check!(
        link.cause.contains("quota"),
        "the cause is '{}'",
        link.cause
    );
    check!(
        link.quota_bytes == QUOTA_BYTES
            && link.quota_used_bytes >= QUOTA_BYTES
            && link.quota_used_bytes <= link.tx_bytes + link.rx_bytes,
        "counted wrongly: {link:?}"
    );
    check_carried_by_others(world)?;
    let report = flow.finish();
    println!("stall {:?} at {:?}", report.stall, report.stall_at);
    check_flow(&report)?;
    check!(
        report.stall < STALL_MAX,
        "stall of {:?} at {:?}",
        report.stall,
        report.stall_at
    );
    Ok(())
}

/// Starts the client anew: the WAN is not used for a moment. Returns the bytes that are known to be used.
fn restart(world: &mut World, signal: Signal) -> Result<u64, crate::support::Failure> {
    world.tunnel.stop_client(0, signal);
    world.tunnel.start_client(&world.lab, 0)?;
    let mut seen = Vec::new();
    let settled = wait_until(UP_MAX, || {
        let states = world.link_states(0).unwrap_or_default();
        let settled = states == ["spent", "up", "up"];
        seen.push(states);
        settled
    });
    check!(settled, "links after {signal}: {:?}", seen.last());
    let used_again = seen
        .iter()
        .any(|states| states.first().is_some_and(|state| state == "up"));
    check!(!used_again, "the quota was forgotten for a while: {seen:?}");
    let used = first_link(world)?.quota_used_bytes;
    println!("{used} bytes are known after {signal}");
    check!(used >= QUOTA_BYTES, "{used} bytes are known after {signal}");
    let flow = world.download(0)?;
    check_carried_by_others(world)?;
    check_flow(&flow.finish())?;
    Ok(used)
}

/// Fails unless the other WANs carry what flows, and the first one next to nothing of it.
fn check_carried_by_others(world: &World) -> Outcome {
    let carried = |world: &World| -> Result<Vec<u64>, LabError> {
        let links = links(world)?;
        Ok(links
            .iter()
            .map(|link| link.tx_bytes + link.rx_bytes)
            .collect())
    };
    // What was on its way when the WAN left, and what was lost of it, is over.
    pause(Duration::from_secs(1));
    let before = carried(world)?;
    pause(Duration::from_secs(2));
    let after = carried(world)?;
    let carried: Vec<_> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
    println!("carried in two seconds: {carried:?}");
    let others: u64 = carried.iter().skip(1).sum();
    check!(others > 2_000_000, "the others carry nothing: {carried:?}");
    check!(carried[0] < HEARTBEATS_MAX, "it goes on: {carried:?}");
    Ok(())
}

fn is_spent_at_both_ends(world: &World) -> Result<bool, LabError> {
    let server = world.tunnel.server_status()?;
    let peer = server.peers.first();
    let far = peer.and_then(|peer| peer.links.first());
    let told = far.is_some_and(|link| link.state == "spent");
    Ok(told && first_link(world)?.state == "spent")
}

fn first_link(world: &World) -> Result<LinkStatus, LabError> {
    Ok(links(world)?.into_iter().next().unwrap_or_default())
}

fn links(world: &World) -> Result<Vec<LinkStatus>, LabError> {
    let status = world.tunnel.client_status(0)?;
    Ok(status
        .peers
        .into_iter()
        .flat_map(|peer| peer.links)
        .collect())
}
