//! A program of the lab: started inside a namespace, its output kept in a file, killed by its number on drop.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::enter::MARK;
use super::{LabError, Netns, wait_until};

/// How to start a program: its file and the arguments that always stand first.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable file.
    pub program: PathBuf,
    /// For a program inside of another: the words that select it.
    pub leading_args: Vec<OsString>,
}

impl Launch {
    /// A program of its own.
    pub fn program(file: impl Into<PathBuf>) -> Self {
        Self {
            program: file.into(),
            leading_args: Vec::new(),
        }
    }

    /// This very executable with a word that selects what it shall be.
    ///
    /// # Errors
    /// When the system does not say which file runs.
    pub fn this_program(word: &str) -> Result<Self, LabError> {
        let program = std::env::current_exe().map_err(LabError::io("own executable file"))?;
        Ok(Self {
            program,
            leading_args: vec![word.into()],
        })
    }
}

/// Memory of a program that the kernel holds in RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it, in bytes.
    pub resident: u64,
    /// Part of it that is the program's own, and not pages of files.
    pub anonymous: u64,
    /// Most that was ever resident.
    pub peak: u64,
}

impl Memory {
    /// From the text of `/proc/PID/status` (proc_pid_status(5)).
    fn parse(status: &str) -> Self {
        let bytes = |key: &str| {
            let mut lines = status.lines();
            let value = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
            let kilobytes: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(kilobytes << 10)
        };
        Self {
            resident: bytes("VmRSS").unwrap_or(0),
            anonymous: bytes("RssAnon").unwrap_or(0),
            peak: bytes("VmHWM").unwrap_or(0),
        }
    }
}

/// A running (or ended) program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program in `namespace` with `directory` as its working directory. Standard error (and output, unless
    /// `talk`) go to `NAME.log` there, behind what stands in it. With `talk`, input and output are pipes.
    ///
    /// # Errors
    /// When the program or the log file is not there.
    pub fn start(
        name: &str,
        launch: &Launch,
        args: &[OsString],
        namespace: &Netns,
        directory: &Path,
        talk: bool,
    ) -> Result<Self, LabError> {
        let log = directory.join(format!("{name}.log"));
        let file = fs::File::options().create(true).append(true).open(&log);
        let file = file.map_err(LabError::io(log.display().to_string()))?;
        let stdout = if talk {
            Ok(Stdio::piped())
        } else {
            file.try_clone().map(Stdio::from)
        };
        let stdout = stdout.map_err(LabError::io(log.display().to_string()))?;
        let mut command = Command::new(&launch.program);
        command
            .args(&launch.leading_args)
            .args(args)
            .current_dir(directory);
        command.env_remove(MARK);
        command
            .stdin(if talk { Stdio::piped() } else { Stdio::null() })
            .stdout(stdout)
            .stderr(file);
        let child = namespace.run(|| command.spawn())?;
        let child = child.map_err(LabError::io(format!("start {}", launch.program.display())))?;
        Ok(Self {
            name: name.into(),
            child,
            log,
        })
    }

    /// Its name in the lab.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The pipes of a program that was started to talk; `None` the second time.
    pub fn take_pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// What it wrote so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended; `None` while it runs.
    pub fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut status = None;
        wait_until(limit, || {
            status = self.try_exit();
            status.is_some()
        });
        status
    }

    /// Sends a signal to a program that runs.
    pub fn signal(&mut self, signal: Signal) {
        if self.try_exit().is_none()
            && let Ok(id) = i32::try_from(self.id())
        {
            // It may end between the two lines; its number is not given away before we have waited for it.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// Processor time that it has used, all threads together, in the kernel's steps of 10 ms.
    pub fn cpu_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The name stands in parentheses and may contain anything; numbers follow the last one (proc(5)).
        let numbers = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: u64 = numbers
            .split_ascii_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|text| text.parse::<u64>().ok())
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// Time for which its threads that still run have run, exact where the kernel keeps such statistics
    /// (CONFIG_SCHED_INFO), else [`Process::cpu_time`]. For an idle program, whose time is a few of that one's steps.
    pub fn run_time(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id()));
        let run = |task: fs::DirEntry| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        };
        let all: u64 = tasks.map_or(0, |tasks| tasks.flatten().filter_map(run).sum());
        if all == 0 {
            return self.cpu_time();
        }
        Duration::from_nanos(all)
    }

    /// Memory that it has; zero when it has ended.
    pub fn memory(&self) -> Memory {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()));
        Memory::parse(&status.unwrap_or_default())
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Writes a line into its log, so that the log tells what the lab did when.
    pub fn note(&self, text: &str) {
        if let Ok(mut file) = fs::File::options().append(true).open(&self.log) {
            let _ = writeln!(file, "--- {}: {text}", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_kernels_words() {
        let text =
            "Name:\tserver\nVmHWM:\t   34000 kB\nVmRSS:\t   33692 kB\nRssAnon:\t   20480 kB\n";
        let memory = Memory::parse(text);
        assert_eq!(memory.resident, 33_692 << 10);
        assert_eq!(memory.anonymous, 20 << 20);
        assert_eq!(memory.peak, 34_000 << 10);
        assert_eq!(Memory::parse("Name:\tgone"), Memory::default());
    }
}
