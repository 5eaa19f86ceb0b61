//! The benchmark as a user runs it. Short: what is asserted is that every figure is there and means what it says, not
//! how good it is.

use std::time::Duration;

use serde_json::Value;

use crate::Case;
use crate::support::{Outcome, check};

pub fn cases() -> Vec<Case> {
    vec![
        Case {
            name: "bench_compares_tcp_mptcp_and_the_tunnel",
            limit: Duration::from_secs(120),
            tunnel: true,
            run: compares_tcp_mptcp_and_the_tunnel,
        },
        Case {
            name: "bench_measures_the_tunnel_without_limits",
            limit: Duration::from_secs(90),
            tunnel: true,
            run: measures_the_tunnel_without_limits,
        },
        Case {
            name: "bench_measures_its_emulator",
            limit: Duration::from_secs(60),
            tunnel: false,
            run: measures_its_emulator,
        },
    ]
}

/// Two links that any machine can emulate beside other work.
const LINKS: [&str; 4] = [
    "--link",
    "rate=20mbit delay=5ms queue=100ms",
    "--link",
    "rate=10mbit delay=15ms queue=100ms",
];

fn bench(words: &[&str]) -> Result<Value, crate::support::Failure> {
    let words: Vec<_> = words.iter().chain(&LINKS).copied().collect();
    bench_of(&words)
}

/// The JSON document of a benchmark.
fn bench_of(words: &[&str]) -> Result<Value, crate::support::Failure> {
    let program = option_env!("CARGO_BIN_EXE_chainlightning").unwrap_or("chainlightning");
    let output = std::process::Command::new(program)
        .arg("bench")
        .args(words)
        .arg("--json")
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    check!(output.status.success(), "{}: {errors}", output.status);
    let report = serde_json::from_slice(&output.stdout)?;
    println!("{errors}{report:#}");
    Ok(report)
}

fn compares_tcp_mptcp_and_the_tunnel() -> Outcome {
    let report = bench(&[
        "aggregation",
        "--direction=down",
        "--congestion=cubic",
        "--seconds=7",
        "--warmup=3",
    ])?;
    check!(report["schema"] == 1, "{}", report["schema"]);
    let row = &report["rows"][0];
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    check!((number(&row["bound_mbps"]) - 27.9).abs() < 1e-6, "{row:#}");
    for contender in row["contenders"].as_array().into_iter().flatten() {
        let name = contender["name"].as_str().unwrap_or_default();
        if name == "mptcp" && !contender["missing"].is_null() {
            println!("SKIPPED: {}", contender["missing"]);
            continue;
        }
        let run = &contender["runs"][0];
        check!(number(&run["goodput_mbps"]) > 1.0, "{name}: {run:#}");
        check!(number(&run["goodput_mbps"]) < 30.0, "{name}: {run:#}");
        check!(number(&run["rtt_ms"]["p50"]) >= 10.0, "{name}: {run:#}");
        check!(number(&run["rtt_ms"]["samples"]) > 20.0, "{name}: {run:#}");
        check!(
            number(&run["ping_idle"]["p50_ms"]) >= 10.0,
            "{name}: {run:#}"
        );
        check!(
            number(&run["ping_beside"]["sent"]) > 100.0,
            "{name}: {run:#}"
        );
        let unused = run["doubts"].to_string().contains("hardly anything");
        check!(!unused, "{name}: {}", run["doubts"]);
        let second = number(&run["link_mbps"][1]);
        check!((second > 0.5) == (name != "link"), "{name}: {run:#}");
        let cpu = number(&run["tunnel_cpu_s"]);
        check!(cpu.is_nan() == (name != "tunnel"), "{name}: {run:#}");
        if name == "mptcp" {
            let paths = run["paths"].as_array().map_or(0, Vec::len);
            check!(paths == 2, "{paths} paths: {run:#}");
            for (path, link) in run["paths"].as_array().into_iter().flatten().zip(1..) {
                let right = path["link"] == link
                    && (path["congestion"].is_null() || path["congestion"] == "cubic");
                check!(right, "{path}");
            }
        }
    }
    check!(number(&row["tunnel"]["to_bound"]) > 0.0, "{row:#}");
    check!(number(&row["tunnel"]["to_link"]) > 0.0, "{row:#}");
    Ok(())
}

fn measures_the_tunnel_without_limits() -> Outcome {
    let report = bench_of(&[
        "tunnel",
        "--direction=up",
        "--seconds=2",
        "--warmup=1",
        "--compare=baseline,relay,openvpn",
        "--set=fec_mode=off",
    ])?;
    check!(report["schema"] == 1, "{}", report["schema"]);
    let contenders = report["rows"][0]["contenders"].as_array();
    let names: Vec<_> = contenders.into_iter().flatten().collect();
    check!(names.len() == 4, "{report:#}");
    let number = |contender: usize, pointer: &str| {
        let value = names[contender].pointer(&format!("/runs/0{pointer}"));
        value.and_then(Value::as_f64).unwrap_or(f64::NAN)
    };
    for (contender, name) in ["tunnel", "baseline", "relay"].into_iter().enumerate() {
        check!(names[contender]["name"] == name, "{}", names[contender]);
        check!(
            number(contender, "/goodput_mbps") > 1.0,
            "{name}: {report:#}"
        );
        check!(
            number(contender, "/packets_per_s") > 100.0,
            "{name}: {report:#}"
        );
        check!(
            number(contender, "/ping_idle/p50_ms") > 0.0,
            "{name}: {report:#}"
        );
    }
    for (contender, name) in [(0, "tunnel"), (2, "relay")] {
        check!(
            number(contender, "/mbit_per_cpu_s") > 1.0,
            "{name}: {report:#}"
        );
    }
    for side in ["client", "server"] {
        check!(
            number(0, &format!("/{side}/resident_mb")) > 1.0,
            "{report:#}"
        );
    }
    check!(number(0, "/engine/datagrams_per_send") >= 1.0, "{report:#}");
    check!(number(0, "/engine/repair_share") < 1e-9, "{report:#}");
    check!(number(1, "/mbit_per_cpu_s").is_nan(), "{report:#}");
    // Another tunnel is measured, or what is missing is said; it is no part of this test.
    let rival = names[3];
    let ran = rival["runs"]
        .as_array()
        .is_some_and(|runs| !runs.is_empty());
    check!(ran || rival["missing"].is_string(), "{rival:#}");
    Ok(())
}

fn measures_its_emulator() -> Outcome {
    let report = bench(&["emulator", "--seconds=2"])?;
    let number = |pointer: &str| {
        let value = report.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or(f64::NAN)
    };
    for (link, rate) in [(0, 20.0), (1, 10.0)] {
        let measured = number(&format!("/links/{link}/measured_mbps"));
        check!((measured / rate - 1.0).abs() < 0.02, "{measured} of {rate}");
        let added = number(&format!("/links/{link}/added_p50_ms"));
        check!((0.0..5.0).contains(&added), "{added} ms");
    }
    check!(number("/late_full/frames") > 4000.0, "{report:#}");
    check!(number("/drops") == 0.0, "{report:#}");
    Ok(())
}
