//! The link emulator as a program; `lab::wanem` holds what it does.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    chainlightning::lab::wanem::run(&args)
}
