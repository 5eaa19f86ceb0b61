//! A WAN emulator: the model of `sim::impairment` in real time, between two interfaces.
//!
//! ```text
//!   inside ──► nat ──► up: Impairment ───────► outside        one such pair for each WAN,
//!   inside ◄── nat ◄──────── down: Impairment ◄── outside      one thread for all of them
//! ```
//!
//! Frames are read from packet sockets with the kernel's arrival stamps, so that reading late changes nothing about
//! the emulated link; they are sent when they are due, at most one tick late. The interfaces that face the emulator
//! must have their offloads off ([`crate::sys::PacketSocket`] says why).

mod command;
mod engine;
mod frame;

use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

pub use command::{Command, CommandError, Side, WanConfig};
pub use engine::{Engine, EngineError};

/// The text of `wanem --help`.
pub const USAGE: &str = "\
usage: wanem [--seed N] [--tick 200us] [--quit-on-eof] WAN...

Emulates WANs between pairs of network interfaces. Each WAN is one argument:
  'INSIDE:OUTSIDE [nat] [up KEY=VALUE...] [down KEY=VALUE...] [both KEY=VALUE...]'
  for example 'w1c:w1s nat both delay=5ms up rate=20mbit down rate=100mbit loss=0.1%'
Keys: rate, trace, queue, delay, delay_trace, jitter, loss, gilbert, mtu, dup, reorder, corrupt, outage, handover.

Commands on standard input, one a line, answered by one line each:
  [WAN] up|down|both KEY=VALUE...   change what is named; WAN counts from 1, without it all WANs change
  [WAN] up|down|both outage         nothing passes until outage=off
  [WAN] rebind                      the NAT forgets its mappings
  stats                             counters as one line of JSON
  quit                              end
";

/// Runs the emulator with the words of a command line (without the program's name) until it is told to quit.
pub fn run(args: &[String]) -> ExitCode {
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            let _ = writeln!(io::stderr(), "wanem: {message}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &[String]) -> Result<(), String> {
    let mut options = Options {
        seed: 1,
        tick: Duration::from_micros(200),
        quit_on_eof: false,
        wans: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--help" | "-h" => {
                return io::stdout()
                    .write_all(USAGE.as_bytes())
                    .map_err(|error| error.to_string());
            }
            "--seed" => {
                options.seed = value(args.next(), "--seed")?
                    .parse()
                    .map_err(|_| "--seed: not a number")?
            }
            "--tick" => options.tick = parse_tick(value(args.next(), "--tick")?)?,
            "--quit-on-eof" => options.quit_on_eof = true,
            option if option.starts_with("--") => {
                return Err(format!("unknown option {option}\n{USAGE}"));
            }
            wan => options.wans.push(
                wan.parse::<WanConfig>()
                    .map_err(|error| format!("'{wan}': {error}"))?,
            ),
        }
    }
    if options.wans.is_empty() {
        return Err(format!("no WAN given\n{USAGE}"));
    }
    let mut engine =
        Engine::new(options.wans, options.seed, options.tick).map_err(|error| error.to_string())?;
    engine
        .run(options.quit_on_eof)
        .map_err(|error| error.to_string())
}

struct Options {
    seed: u64,
    tick: Duration,
    quit_on_eof: bool,
    wans: Vec<WanConfig>,
}

fn value<'a>(arg: Option<&'a String>, option: &str) -> Result<&'a str, String> {
    arg.map(String::as_str)
        .ok_or_else(|| format!("{option} needs a value"))
}

fn parse_tick(text: &str) -> Result<Duration, String> {
    let micros = text
        .strip_suffix("us")
        .and_then(|number| number.parse().ok());
    let tick = micros
        .map(Duration::from_micros)
        .filter(|tick| (20..=10_000).contains(&tick.as_micros()));
    tick.ok_or_else(|| format!("--tick {text}: expected 20us to 10000us"))
}

/// Reads what waits on standard input without blocking longer than one line takes.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let count = input.read_line(&mut line)?;
    Ok((count > 0).then(|| line.trim().to_owned()))
}
