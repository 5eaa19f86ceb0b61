//! Tests of the status command: against a socket of our own, and of the screen's layout.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;

use super::*;
use crate::status::{
    EngineStatus, FecStatus, Percentiles, Refusal, ReorderStatus, SCHEMA, TunnelStatus,
};

fn link(id: u8) -> LinkStatus {
    LinkStatus {
        id,
        name: "a-name-of-twenty-four-ch".into(),
        state: "suspect".into(),
        cause: "no report for 135 ms, and its neighbours have theirs; traffic goes over the others"
            .into(),
        share: 1.0,
        tx_mbps: 9999.4,
        rx_mbps: 112.0,
        capacity_mbps: 12_500.0,
        rtt_ms: Percentiles {
            p50: 238.2,
            p95: 500.0,
            p99: 1071.4,
        },
        delay_ms: Percentiles {
            p50: 4.04,
            p95: 5.0,
            p99: 6.0,
        },
        loss_ratio_tx: 0.019,
        loss_ratio_rx: 1.0,
        ..LinkStatus::default()
    }
}

fn full() -> Status {
    Status {
        schema: SCHEMA,
        role: "client".into(),
        version: "0.1.0".into(),
        uptime_s: 3 * 86_400 + 4 * 3_600 + 12 * 60,
        tunnel: TunnelStatus {
            name: "tun-bond".into(),
            mtu: 1400,
            local: vec!["10.99.0.2".into(), "fd99::2".into()],
            remote: vec!["10.99.0.1".into(), "fd99::1".into()],
        },
        engine: EngineStatus {
            tier: "io_uring".into(),
            reason: "auto: all probes passed".into(),
            kernel: "6.18.44".into(),
            threads: 1,
            offloads: vec!["tso4".into(), "udp_segment".into()],
            operations_per_submit: 17.25,
            ..EngineStatus::default()
        },
        peers: vec![PeerStatus {
            name: "server".into(),
            key: "kJ3x..9w=".into(),
            state: "up".into(),
            cipher: "aes-256-gcm".into(),
            epoch: 1874,
            key_age_s: 41.2,
            tx_bytes: 999,
            rx_bytes: 184_000_000_000,
            fec: FecStatus {
                mode: "adaptive".into(),
                source_count: 10,
                repair_count: 1,
                ..FecStatus::default()
            },
            reorder: ReorderStatus {
                hold_ms: 18.0,
                ..ReorderStatus::default()
            },
            links: vec![link(0), link(31)],
            drops: BTreeMap::from([
                ("aqm".into(), 2),
                ("replay_too_old".into(), 70),
                ("expired".into(), 0),
            ]),
            ..PeerStatus::default()
        }],
        drops: BTreeMap::from([("malformed".into(), 1)]),
    }
}

#[test]
fn the_screen_fits_80_columns_and_shows_what_matters() {
    let text = screen(&full());
    for line in text.lines() {
        assert!(
            line.chars().count() <= 80,
            "{} columns: {line}",
            line.chars().count()
        );
    }
    for part in [
        "up 3 d 04:12",
        "10.99.0.2 fd99::2 <-> 10.99.0.1 fd99::1",
        "io_uring (auto: all probes passed)",
        "17.2 operations per submit",
        "10+1 adaptive",
        "epoch 1874, 41 s old",
        "rx 184 GB",
        "tx 999 B",
        "drops    replay_too_old 70, aqm 2\n",
        "drops    malformed 1\n",
        "! link 0 suspect: no report for 135 ms",
        "238/1071",
        "12.5G",
        "1.9/100",
        "100%",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn a_quota_is_shown_once_for_its_wan_and_a_parked_link_says_why() {
    let mut status = full();
    for (id, link) in (0..).zip(&mut status.peers[0].links) {
        link.name = "lte".into();
        link.state = "parked".into();
        link.cause = "loss above max_loss_percent; rate control: cruise".into();
        (link.id, link.quota_bytes, link.quota_used_bytes) = (id, 50_000_000_000, 12_300_000_000);
    }
    let text = screen(&status);
    assert_eq!(
        text.matches("quota    lte 12.3 GB of 50.0 GB\n").count(),
        1,
        "{text}"
    );
    assert!(text.contains("! link 1 parked: loss above max_loss_percent"));
}

#[test]
fn an_empty_status_still_has_a_screen() {
    assert!(screen(&Status::default()).starts_with("tunnel"));
}

/// A folder that is gone at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("chainlightning-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Answers one request with this line.
fn answer_once(listener: UnixListener, reply: String) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = String::new();
        BufReader::new(stream.try_clone().unwrap())
            .read_line(&mut request)
            .unwrap();
        stream.write_all(reply.as_bytes()).unwrap();
        request
    })
}

#[test]
fn the_answer_of_the_first_daemon_that_listens_is_shown() {
    let folder = Folder::new("status-answer");
    let sockets = [folder.0.join("none.sock"), folder.0.join("some.sock")];
    for json in [true, false] {
        let _ = std::fs::remove_file(&sockets[1]);
        let daemon = answer_once(UnixListener::bind(&sockets[1]).unwrap(), to_line(&full()));
        let text = status(&sockets, json).unwrap();
        assert_eq!(Request::parse(&daemon.join().unwrap()), Ok(Request::STATUS));
        if json {
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), full());
        } else {
            assert_eq!(text, screen(&full()));
        }
    }
}

#[test]
fn without_a_daemon_the_socket_is_named_and_the_exit_code_is_69() {
    let folder = Folder::new("status-none");
    let socket = folder.0.join("client.sock");
    let failure = status(std::slice::from_ref(&socket), false).unwrap_err();
    assert_eq!(failure.exit_code, 69);
    assert!(failure.message.contains(&socket.display().to_string()));
    assert!(failure.message.contains("--socket"));
    drop(UnixListener::bind(&socket).unwrap()); // leaves the file behind
    let failure = status(&[socket], false).unwrap_err();
    assert_eq!(failure.exit_code, 69);
    assert!(
        failure.message.contains("nobody listens"),
        "{}",
        failure.message
    );
}

#[test]
fn refusals_and_rubbish_fail_with_the_daemons_words() {
    let folder = Folder::new("status-refusal");
    let refusal = to_line(&Refusal {
        schema: SCHEMA,
        error: "shutting down".into(),
    });
    for (reply, exit_code, expected) in [
        (refusal, 1, "shutting down"),
        ("rubbish\n".to_owned(), 1, "not a status"),
        (String::new(), 69, "closed without an answer"),
    ] {
        let socket = folder.0.join("s.sock");
        let _ = std::fs::remove_file(&socket);
        let daemon = answer_once(UnixListener::bind(&socket).unwrap(), reply);
        let failure = status(&[socket], true).unwrap_err();
        daemon.join().unwrap();
        assert_eq!(failure.exit_code, exit_code);
        assert!(failure.message.contains(expected), "{}", failure.message);
    }
}

#[test]
fn the_default_sockets_are_the_configurations() {
    let sockets = default_sockets();
    assert_eq!(sockets[0], Path::new("/run/chainlightning/client.sock"));
    assert_eq!(sockets[1], Path::new("/run/chainlightning/server.sock"));
}
