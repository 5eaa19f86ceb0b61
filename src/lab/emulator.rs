//! The emulator as a program of the lab, spoken to over its pipes.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout};
use std::time::Duration;

use serde_json::Value;

use super::{LabError, Process};

/// A running emulator.
#[derive(Debug)]
pub struct Emulator {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Emulator {
    /// Waits until the program is ready.
    ///
    /// # Errors
    /// What its log says, when it ends instead.
    pub(super) fn new(mut process: Process) -> Result<Self, LabError> {
        let Some((input, output)) = process.take_pipes() else {
            return Err(LabError::Program(
                "the emulator was started without pipes".into(),
            ));
        };
        let mut emulator = Self {
            process,
            input,
            output: BufReader::new(output),
        };
        match emulator.read()?.as_str() {
            "ready" => Ok(emulator),
            other => Err(LabError::Program(format!(
                "the emulator said '{other}' instead of 'ready'"
            ))),
        }
    }

    /// Gives it a command: `1 down outage`, `both loss=2%`, `2 rebind`.
    ///
    /// # Errors
    /// Its answer, when it refuses.
    pub fn command(&mut self, command: &str) -> Result<(), LabError> {
        match self.ask(command)?.as_str() {
            "ok" => Ok(()),
            answer => Err(LabError::Program(format!(
                "emulator, '{command}': {answer}"
            ))),
        }
    }

    /// Its counters; `stats["wans"][0]["up"]["delivered_bytes"]` and so on.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn stats(&mut self) -> Result<Value, LabError> {
        let answer = self.ask("stats")?;
        serde_json::from_str(&answer)
            .map_err(|error| LabError::Program(format!("emulator stats: {error}")))
    }

    /// Processor time that it has used.
    pub fn cpu_time(&self) -> Duration {
        self.process.cpu_time()
    }

    fn ask(&mut self, command: &str) -> Result<String, LabError> {
        writeln!(self.input, "{command}").map_err(LabError::io("emulator's input"))?;
        self.read()
    }

    fn read(&mut self) -> Result<String, LabError> {
        let mut line = String::new();
        let count = self
            .output
            .read_line(&mut line)
            .map_err(LabError::io("emulator's output"))?;
        if count == 0 {
            return Err(LabError::Program(format!(
                "the emulator ended: {}",
                self.process.log().trim()
            )));
        }
        Ok(line.trim().to_owned())
    }
}
