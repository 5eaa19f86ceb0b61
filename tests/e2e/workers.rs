//! Several data threads at one end or both: flows spread over them, and everything that an operator does still works.

use std::time::Duration;

use chainlightning::lab::traffic::BulkFlow;
use chainlightning::lab::{TunnelSpec, pause, wait_until};
use chainlightning::status::Status;
use nix::sys::signal::Signal;

use crate::Case;
use crate::support::{Failure, Outcome, THREE, World, check, check_flow};

const LIMIT: Duration = Duration::from_secs(90);
/// How soon packets pass again after one side was started anew.
const RECOVERY_MAX: Duration = Duration::from_secs(6);
/// Flows at one time: with so many, no hash gives all of them to one worker (one time in 500, and then the next try).
const FLOWS: usize = 10;

pub fn cases() -> Vec<Case> {
    let case = |name, run| Case::through_tunnel(name, LIMIT, run);
    vec![
        case("workers_two_and_two_carry_flows", || flows_with([2, 2])),
        case("workers_two_clients_one_server", || flows_with([2, 1])),
        case("workers_one_client_two_servers", || flows_with([1, 2])),
        case("workers_restart_and_reload", restart_and_reload),
        case(
            "workers_on_epoll_and_fewer_after_a_kill",
            fewer_after_a_kill,
        ),
    ]
}

fn spec(threads: [u8; 2]) -> TunnelSpec {
    TunnelSpec {
        threads: Some(threads),
        ..TunnelSpec::default()
    }
}

/// Workers of a side, and frames that each of them read from its queue of the TUN and wrote to it.
fn frames(status: &Status) -> Vec<(u64, u64)> {
    let workers = status.engine.workers.iter();
    workers
        .map(|worker| (worker.tun_reads, worker.tun_writes))
        .collect()
}

fn start(world: &World) -> Result<Vec<BulkFlow>, Failure> {
    let mut flows = Vec::new();
    for number in 0..FLOWS {
        flows.push(if number % 2 == 0 {
            world.download(0)?
        } else {
            world.upload(0)?
        });
    }
    Ok(flows)
}

/// Ends the flows; all of them must have brought what was sent.
fn finish(flows: Vec<BulkFlow>) -> Outcome {
    for flow in flows {
        check_flow(&flow.finish())?;
    }
    Ok(())
}

fn flows_with(threads: [u8; 2]) -> Outcome {
    World::run(&THREE, &spec(threads), |world| {
        world.wait_links_up(0, RECOVERY_MAX)?;
        let links = world.link_states(0)?.len();
        check!(
            links == THREE.len() * usize::from(threads[0]),
            "each worker has links of its own: {links}"
        );
        let flows = start(world)?;
        pause(Duration::from_secs(6));
        world.check_ping(0, 20)?;
        finish(flows)?;
        let (near, far) = (
            world.tunnel.client_status(0)?,
            world.tunnel.server_status()?,
        );
        let sessions = threads[0];
        for (status, threads) in [(&near, threads[0]), (&far, threads[1])] {
            let frames = frames(status);
            println!("{} {frames:?} {:?}", status.role, status.drops);
            check!(frames.len() == usize::from(threads), "{frames:?}");
            check!(status.engine.threads == u32::from(threads), "{frames:?}");
            // A worker without a session reads hardly anything: the kernel gives it a flow's first frames alone.
            let busy = frames.iter().filter(|(reads, _)| *reads > 100).count();
            let expected = usize::from(threads.min(sessions));
            check!(busy == expected, "{}: who reads: {frames:?}", status.role);
            check!(status.peers.len() == 1, "one peer: {:?}", status.peers);
        }
        // A worker without a session writes nothing; all others do.
        let writers = |status: &Status| frames(status).iter().filter(|(_, w)| *w > 100).count();
        let expected = usize::from(threads[0].min(threads[1]));
        check!(
            writers(&near) == usize::from(threads[0]) && writers(&far) == expected,
            "{:?} {:?}",
            frames(&near),
            frames(&far)
        );
        Ok(())
    })
}

fn restart_and_reload() -> Outcome {
    World::run(&THREE, &spec([2, 2]), |world| {
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            world.tunnel.stop_server(signal);
            pause(Duration::from_millis(300));
            world.tunnel.start_server(&world.lab)?;
            let back = wait_until(RECOVERY_MAX, || world.check_ping(0, 1).is_ok());
            check!(back, "no packet within {RECOVERY_MAX:?} after {signal}");
        }
        world.wait_links_up(0, RECOVERY_MAX)?;
        let flows = start(world)?;
        let file = world.tunnel.client_config_file(0);
        let original = std::fs::read_to_string(&file)?;
        let off = original.replace("name = \"wan2\"", "name = \"wan2\"\nrole = \"off\"");
        std::fs::write(&file, off)?;
        if let Some(client) = world.tunnel.client(0) {
            client.signal(Signal::SIGHUP);
        }
        let all_off = wait_until(Duration::from_secs(3), || {
            let off = world.link_states(0).map(|states| {
                let off = states.iter().filter(|state| *state == "off");
                off.count()
            });
            off.is_ok_and(|count| count == 2)
        });
        check!(all_off, "of both workers: {:?}", world.link_states(0)?);
        finish(flows)?;
        let stopped = world.tunnel.stop_client(0, Signal::SIGTERM);
        check!(stopped == Some(0), "{stopped:?}");
        let told = wait_until(RECOVERY_MAX, || {
            let status = world.tunnel.server_status();
            status.is_ok_and(|status| status.peers.iter().all(|peer| peer.state == "down"))
        });
        check!(told, "both sessions say farewell");
        Ok(())
    })
}

fn fewer_after_a_kill() -> Outcome {
    let spec = TunnelSpec {
        performance: "backend = \"epoll\"".to_owned(),
        ..spec([3, 2])
    };
    World::run(&THREE, &spec, |world| {
        world.wait_links_up(0, RECOVERY_MAX)?;
        world.tunnel.stop_client(0, Signal::SIGKILL);
        // It comes back with one worker; the server must not wait for the others' sessions.
        let file = world.tunnel.client_config_file(0);
        let text = std::fs::read_to_string(&file)?;
        std::fs::write(&file, text.replace("threads = 3", "threads = 1"))?;
        world.tunnel.start_client(&world.lab, 0)?;
        let back = wait_until(RECOVERY_MAX, || world.check_ping(0, 1).is_ok());
        check!(back, "no packet within {RECOVERY_MAX:?}");
        let flows = start(world)?;
        pause(Duration::from_secs(3));
        finish(flows)?;
        let status = world.tunnel.server_status()?;
        let sessions: u64 = status.engine.workers.iter().map(|w| w.sessions).sum();
        check!(sessions == 1, "{sessions} sessions");
        Ok(())
    })
}
