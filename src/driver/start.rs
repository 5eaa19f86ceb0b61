//! The data threads: how they begin, and how to speak to them.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::oneshot;

use super::command::{Behaviour, Command, Snapshot};
use super::landing::Landing;
use super::mailbox::{self, Bell, Mailbox};
use super::role::Role as WorkerRole;
use super::setup::{Parts, Prepared};
use super::sockets::Sockets;
use super::worker::Worker;
use super::{RunError, convert};
use crate::base::Instant;
use crate::config::Config;
use crate::endpoint::{Client, PeerId, Server, SessionId};
use crate::sys::datapath::Config as DatapathConfig;
use crate::sys::{Clock, Datapath, DatapathError, UdpSocket, Wake, priority};

/// How long a data thread may take to answer; it answers between two turns.
const ANSWER_MAX: Duration = Duration::from_millis(900);
/// Stack of a data thread: the FEC decoder zeroes 128 KiB of it.
const STACK_BYTES: usize = 2 << 20;

/// The data threads as the control thread sees them.
pub struct Workers {
    pub lines: Lines,
    threads: Vec<std::thread::JoinHandle<Result<(), String>>>,
    /// One word from each thread that ends.
    ended: tokio::sync::mpsc::UnboundedReceiver<()>,
}

/// How to speak to the data threads.
#[derive(Clone)]
pub struct Lines(Vec<Line>);

/// How to speak to one of them.
#[derive(Clone)]
struct Line {
    commands: mpsc::Sender<Command>,
    bell: Arc<Bell>,
}

impl Line {
    fn send(&self, command: Command) {
        // A data thread that has ended is noticed by its last word.
        let _ = self.commands.send(command);
        self.bell.wake.signal();
    }
}

impl Lines {
    /// Ends all of them.
    pub fn stop(&self) {
        for line in &self.0 {
            line.send(Command::Stop);
        }
    }

    /// Changes the behaviour of all of them.
    pub fn reconfigure(&self, behaviour: &Behaviour) {
        for line in &self.0 {
            line.send(Command::Reconfigure(Box::new(behaviour.clone())));
        }
    }

    /// What all of them know, in order; `None` when one does not answer.
    pub async fn snapshot(&self) -> Option<Vec<Snapshot>> {
        let asked = self.0.iter().map(|line| {
            let (reply, answer) = oneshot::channel();
            line.send(Command::Snapshot(reply));
            answer
        });
        let asked: Vec<_> = asked.collect();
        let all = async {
            let mut snapshots = Vec::with_capacity(asked.len());
            for answer in asked {
                snapshots.push(answer.await.ok()?);
            }
            Some(snapshots)
        };
        tokio::time::timeout(ANSWER_MAX, all).await.ok()?
    }
}

impl Workers {
    /// Waits until one of them has ended.
    pub async fn one_ended(&mut self) {
        let _ = self.ended.recv().await;
    }

    /// Waits until all of them have ended; `false` when that takes longer than `longest`.
    pub async fn all_ended(&mut self, longest: Duration) -> bool {
        let wait = async { while self.ended.recv().await.is_some() {} };
        tokio::time::timeout(longest, wait).await.is_ok()
    }

    /// What they ended with: the first fault, if there is one.
    pub fn join(self) -> Result<(), RunError> {
        let mut result = Ok(());
        for thread in self.threads {
            let fault = match thread.join() {
                Ok(Ok(())) => continue,
                Ok(Err(reason)) => reason,
                Err(_) => "it panicked".to_owned(),
            };
            result = result.and(Err(RunError::Worker(fault)));
        }
        result
    }
}

/// What one data thread begins with.
struct Start {
    number: u8,
    role: WorkerRole,
    sockets: Vec<UdpSocket>,
    is_client: bool,
    tun_queue: std::os::fd::OwnedFd,
    offload: bool,
    datapath: DatapathConfig,
    landing: Landing,
    cpu: Option<u16>,
    clock: Clock,
    bell: Arc<Bell>,
    mailbox: Mailbox,
}

/// Opens the datapaths, each in its own thread, and waits until they are there, so that their faults are start-up
/// faults.
pub fn start(config: &Config, prepared: &mut Prepared) -> Result<Workers, RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let count = prepared.workers;
    let bells = (0..count).map(|_| Wake::new().map(Bell::new).map(Arc::new));
    let bells: Vec<_> = bells
        .collect::<Result<_, _>>()
        .map_err(system("making an eventfd"))?;
    let clock = Clock::start();
    let roles = roles(config, prepared, &clock)?;
    let is_client = matches!(prepared.parts, Some(Parts::Client(_)));
    let mut sockets = sockets(prepared)?.into_iter();
    let (tell_end, ended) = tokio::sync::mpsc::unbounded_channel();
    let (mut lines, mut threads) = (Vec::new(), Vec::new());
    let mailboxes = mailbox::connect(&bells).into_iter();
    for (((number, role), mailbox), bell) in (0..count).zip(roles).zip(mailboxes).zip(&bells) {
        let queue = prepared.tun.queue(usize::from(number));
        let start = Start {
            number,
            role,
            sockets: sockets.next().unwrap_or_default(),
            is_client,
            tun_queue: queue
                .try_clone_to_owned()
                .map_err(system("sharing the TUN"))?,
            offload: config.performance.offload,
            datapath: convert::datapath(config),
            landing: Landing::new(prepared.tun.offloads()),
            cpu: cpu_of(config, number),
            clock,
            bell: Arc::clone(bell),
            mailbox,
        };
        let (commands, received) = mpsc::channel();
        threads.push(spawn(start, received, tell_end.clone())?);
        let bell = Arc::clone(bell);
        lines.push(Line { commands, bell });
    }
    Ok(Workers {
        lines: Lines(lines),
        threads,
        ended,
    })
}

/// The processor of a worker: the list is used in turn.
fn cpu_of(config: &Config, number: u8) -> Option<u16> {
    let cpus = &config.performance.cpu_affinity;
    let turn = usize::from(number).checked_rem(cpus.len())?;
    cpus.get(turn).copied()
}

fn spawn(
    mut start: Start,
    commands: mpsc::Receiver<Command>,
    ended: tokio::sync::mpsc::UnboundedSender<()>,
) -> Result<std::thread::JoinHandle<Result<(), String>>, RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let (ready, started) = mpsc::sync_channel(1);
    let number = start.number;
    let work = move || -> Result<(), String> {
        if let Err(error) = priority::raise() {
            tracing::debug!(%error, "data thread keeps ordinary priority");
        }
        if let Some(cpu) = start.cpu
            && let Err(error) = priority::pin(cpu)
        {
            tracing::warn!(%error, cpu, number, "data thread is not bound to its processor");
        }
        let result = match open(&mut start) {
            Ok(datapath) => match add_sockets(start, datapath, commands) {
                Ok((worker, description)) => {
                    let _ = ready.send(Ok(description));
                    worker.run().map_err(|error| super::chain(&error))
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                    Ok(())
                }
            },
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
        };
        let _ = ended.send(());
        result
    };
    let thread = std::thread::Builder::new()
        .name(format!("data{number}"))
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(system("starting a data thread"))?;
    match started.recv() {
        Ok(Ok(description)) => tracing::info!(worker = number, description, "datapath"),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(RunError::Worker("it ended while starting".to_owned())),
    }
    Ok(thread)
}

fn open(start: &mut Start) -> Result<Datapath, DatapathError> {
    use std::os::fd::AsFd;
    let mut datapath = Datapath::open(std::mem::take(&mut start.datapath))?;
    datapath.add_tun(start.tun_queue.as_fd())?;
    datapath.add_wake(&start.bell.wake)?;
    Ok(datapath)
}

fn add_sockets(
    start: Start,
    mut datapath: Datapath,
    commands: mpsc::Receiver<Command>,
) -> Result<(Worker, String), DatapathError> {
    let (sockets, offload) = (start.sockets, start.offload);
    let sockets = if start.is_client {
        let session = SessionId {
            peer: PeerId(0),
            number: start.number,
        };
        Sockets::connected(session, sockets, offload, &mut datapath)?
    } else {
        Sockets::listening(sockets, start.number == 0, offload, &mut datapath)?
    };
    let description = datapath.description().to_owned();
    let worker = Worker::new(
        start.role,
        datapath,
        sockets,
        start.landing,
        start.clock,
        commands,
        start.mailbox,
    );
    Ok((worker, description))
}

/// The endpoints of all workers.
fn roles(config: &Config, prepared: &Prepared, clock: &Clock) -> Result<Vec<WorkerRole>, RunError> {
    let (now, bytes): (Instant, u16) = (clock.now(), prepared.datagram_bytes_max);
    let workers = convert::workers(prepared.workers)?;
    Ok(match &prepared.parts {
        Some(Parts::Client(parts)) => {
            let clients = convert::clients(config, parts, bytes, clock, &workers)?;
            let client = |config| WorkerRole::Client(Box::new(Client::new(config, now)));
            clients.into_iter().map(client).collect()
        }
        Some(Parts::Server(_)) | None => {
            let servers = convert::servers(config, bytes, &workers)?;
            let server = |config| WorkerRole::Server(Box::new(Server::new(config, now)));
            servers.into_iter().map(server).collect()
        }
    })
}

/// The sockets of all workers: a client's own ones, or the listeners, by which every worker of a server sends.
fn sockets(prepared: &mut Prepared) -> Result<Vec<Vec<UdpSocket>>, RunError> {
    match prepared.parts.take() {
        Some(Parts::Client(parts)) => Ok(parts.sockets),
        Some(Parts::Server(listeners)) => {
            let copy = || -> Result<Vec<UdpSocket>, RunError> {
                let copies = listeners.iter().map(UdpSocket::try_clone);
                Ok(copies.collect::<Result<_, _>>()?)
            };
            (0..prepared.workers).map(|_| copy()).collect()
        }
        None => Ok(Vec::new()),
    }
}
