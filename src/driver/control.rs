//! The control thread: signals, the control socket, the statistics line, reload.
//!
//! Runs on tokio-uring; where the kernel refuses it a ring, on a plain current-thread tokio runtime. It asks the
//! data thread for snapshots and never touches a packet. It never waits for anything but all of its events at once:
//! a signal is heard whatever the data thread or a client of the control socket does.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::control_socket::{Connections, ControlSocket};
use super::landing::Landing;
use super::quota::Quotas;
use super::report::Reporter;
use super::setup::{Parts, Prepared};
use super::sockets::Sockets;
use super::worker::{Behaviour, Command, Role as WorkerRole, Snapshot, Worker};
use super::{RunError, convert};
use crate::base::WanId;
use crate::config::{self, Config};
use crate::endpoint::{Client, Server};
use crate::session::config::WanConfig;
use crate::status::{self, Request};
use crate::sys::{Clock, Datapath, Wake};

/// How long the data thread may take to answer; it answers between two turns.
const ANSWER_MAX: Duration = Duration::from_millis(900);
/// Time between the snapshots that rates are computed from.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the data thread may take to say farewell and end.
const ENDING_MAX: Duration = Duration::from_millis(700);
/// Stack of the data thread: the FEC decoder zeroes 128 KiB of it.
const STACK_BYTES: usize = 2 << 20;

/// The data thread as the control thread sees it.
struct Handle {
    line: Line,
    thread: std::thread::JoinHandle<Result<(), String>>,
    ended: oneshot::Receiver<()>,
}

/// How to speak to the data thread.
#[derive(Clone)]
struct Line {
    commands: mpsc::Sender<Command>,
    wake: Arc<Wake>,
}

impl Line {
    fn send(&self, command: Command) {
        // A data thread that has ended is noticed by `ended`.
        let _ = self.commands.send(command);
        self.wake.signal();
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Snapshot(reply));
        tokio::time::timeout(ANSWER_MAX, answer).await.ok()?.ok()
    }
}

/// What a task brings back to the main loop, which alone has the reporter.
enum News {
    /// The periodic snapshot.
    Sample(Option<Snapshot>),
    /// A snapshot that a client asked for, and where the answer goes.
    Asked(Option<Snapshot>, oneshot::Sender<String>),
}

/// Why the control thread stopped serving.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Signal,
    DataThreadEnded,
}

/// The control thread's runtime.
enum Runtime {
    Ring(tokio_uring::Runtime),
    Plain(tokio::runtime::Runtime, tokio::task::LocalSet),
}

impl Runtime {
    fn open() -> std::io::Result<Self> {
        match tokio_uring::Runtime::new(&tokio_uring::builder()) {
            Ok(runtime) => Ok(Self::Ring(runtime)),
            Err(error) => {
                tracing::info!(%error, "control thread without io_uring");
                let mut builder = tokio::runtime::Builder::new_current_thread();
                let runtime = builder.enable_all().build()?;
                Ok(Self::Plain(runtime, tokio::task::LocalSet::new()))
            }
        }
    }

    const fn is_ring(&self) -> bool {
        matches!(self, Self::Ring(_))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self {
            Self::Ring(runtime) => runtime.block_on(future),
            Self::Plain(runtime, tasks) => tasks.block_on(runtime, future),
        }
    }
}

/// What the control thread reads and writes besides.
struct Files {
    /// The configuration.
    path: PathBuf,
    /// The accounts of the WANs.
    quotas: Quotas,
}

/// What a signal asks for.
enum Wish {
    Stop,
    Reload,
}

/// What the operator sends us.
struct Signals {
    terminate: UnixSignal,
    interrupt: UnixSignal,
    hangup: UnixSignal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Wish {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}

/// The control thread before there is anything to control. From here on signals wait for the control loop, so that
/// none leaves half of the set-up behind.
pub struct Control {
    runtime: Runtime,
    signals: Signals,
}

impl Control {
    /// Opens the runtime and listens to signals.
    pub fn open() -> Result<Self, RunError> {
        let system = |what| move |source| RunError::System { what, source };
        let runtime = Runtime::open().map_err(system("starting the control runtime"))?;
        let signals = runtime.block_on(async { Signals::listen() });
        let signals = signals.map_err(system("waiting for signals"))?;
        Ok(Self { runtime, signals })
    }

    /// Starts the data thread and serves until a signal says stop.
    pub fn run(
        self,
        config: Config,
        path: PathBuf,
        mut prepared: Prepared,
    ) -> Result<(), RunError> {
        let now = unix_time();
        let quotas = Quotas::open(&config, now);
        if let Some(Parts::Client(parts)) = &mut prepared.parts {
            let spent = |wan: &&mut WanConfig| quotas.is_spent(&wan.name);
            parts.wans.iter_mut().filter(spent).for_each(convert::spend);
        }
        let mut handle = start_worker(&config, &mut prepared)?;
        let Self { runtime, signals } = self;
        let on_ring = runtime.is_ring();
        let files = Files { path, quotas };
        let serving = serve_and_stop(config, files, &prepared, signals, &mut handle, on_ring);
        let (served, ended) = runtime.block_on(serving);
        if !ended {
            // What was made on the host is removed all the same; the process ends and takes the thread with it.
            return Err(RunError::Worker("it does not end".to_owned()));
        }
        let result = handle.thread.join();
        drop(prepared);
        match (result, served?) {
            (Ok(Ok(())), Stop::Signal) => Ok(()),
            (Ok(Ok(())), Stop::DataThreadEnded) => {
                Err(RunError::Worker("without a reason".to_owned()))
            }
            (Ok(Err(reason)), _) => Err(RunError::Worker(reason)),
            (Err(_), _) => Err(RunError::Worker("it panicked".to_owned())),
        }
    }
}

/// Serves, then ends the data thread; says why serving stopped and whether the thread has ended.
async fn serve_and_stop(
    config: Config,
    mut files: Files,
    prepared: &Prepared,
    signals: Signals,
    handle: &mut Handle,
    on_ring: bool,
) -> (Result<Stop, RunError>, bool) {
    let served = serve(config, &mut files, prepared, signals, handle, on_ring).await;
    files.quotas.write(unix_time());
    if matches!(served, Ok(Stop::DataThreadEnded)) {
        return (served, true);
    }
    handle.line.send(Command::Stop);
    let ended = tokio::time::timeout(ENDING_MAX, &mut handle.ended).await;
    (served, ended.is_ok())
}

/// Opens the datapath in its own thread and waits until it is there, so that its faults are start-up faults.
fn start_worker(config: &Config, prepared: &mut Prepared) -> Result<Handle, RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let wake = Arc::new(Wake::new().map_err(system("making an eventfd"))?);
    let thread_wake = Arc::clone(&wake);
    let clock = Clock::start();
    let (commands, received) = mpsc::channel();
    let (ready, started) = mpsc::sync_channel(1);
    let (ended_tell, ended) = oneshot::channel();
    let tun_queue = prepared
        .tun
        .queue(0)
        .try_clone_to_owned()
        .map_err(system("sharing the TUN"))?;
    let parts = prepared.parts.take();
    let datagram_bytes_max = prepared.datagram_bytes_max;
    let offload = config.performance.offload;
    let datapath_config = convert::datapath(config);
    let role = make_role(config, parts.as_ref(), datagram_bytes_max, &clock)?;
    let landing = Landing::new(prepared.tun.offloads());
    let work = move || -> Result<(), String> {
        if let Err(error) = crate::sys::priority::raise() {
            tracing::debug!(%error, "data thread keeps ordinary priority");
        }
        let opened = Datapath::open(datapath_config).and_then(|mut datapath| {
            use std::os::fd::AsFd;
            datapath.add_tun(tun_queue.as_fd())?;
            datapath.add_wake(&thread_wake)?;
            let sockets = match parts {
                Some(Parts::Client(client)) => {
                    Sockets::connected(client.sockets, offload, &mut datapath)?
                }
                Some(Parts::Server(listeners)) => {
                    Sockets::listening(listeners, offload, &mut datapath)?
                }
                None => Sockets::listening(Vec::new(), offload, &mut datapath)?,
            };
            Ok((datapath, sockets))
        });
        let result = match opened {
            Ok((datapath, sockets)) => {
                let _ = ready.send(Ok(datapath.description().to_owned()));
                let worker = Worker::new(role, datapath, sockets, landing, clock, received);
                worker.run().map_err(|error| chain(&error))
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
        };
        let _ = ended_tell.send(());
        result
    };
    let thread = std::thread::Builder::new()
        .name("data".to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .map_err(system("starting the data thread"))?;
    match started.recv() {
        Ok(Ok(description)) => tracing::info!(description, "datapath"),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => return Err(RunError::Worker("it ended while starting".to_owned())),
    }
    Ok(Handle {
        line: Line { commands, wake },
        thread,
        ended,
    })
}

fn make_role(
    config: &Config,
    parts: Option<&Parts>,
    datagram_bytes_max: u16,
    clock: &Clock,
) -> Result<WorkerRole, RunError> {
    let now = clock.now();
    Ok(match parts {
        Some(Parts::Client(parts)) => {
            let (wans, of_link) = (parts.wans.clone(), parts.wan_of_link.clone());
            let client = convert::client(config, wans, of_link, datagram_bytes_max, clock)?;
            WorkerRole::Client(Box::new(Client::new(client, now)))
        }
        Some(Parts::Server(_)) | None => WorkerRole::Server(Box::new(Server::new(
            convert::server(config, datagram_bytes_max)?,
            now,
        ))),
    })
}

/// Serves until a signal or the end of the data thread.
async fn serve(
    mut config: Config,
    files: &mut Files,
    prepared: &Prepared,
    mut signals: Signals,
    handle: &mut Handle,
    on_ring: bool,
) -> Result<Stop, RunError> {
    let socket = ControlSocket::listen(&config.control_socket)?;
    let connections = Connections::default();
    let (tell, mut news) = tokio::sync::mpsc::unbounded_channel();
    let mut reporter = Reporter::new(&config, prepared, on_ring);
    reporter.set_quotas(files.quotas.usage());
    let mut sample = tokio::time::interval(SAMPLE_INTERVAL);
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_line = Duration::ZERO;
    tracing::info!(role = config.role.name(), control_socket = %config.control_socket.display(), on_ring, "running");
    let stop = loop {
        tokio::select! {
            biased;
            wish = signals.next() => match wish {
                Wish::Stop => break Stop::Signal,
                Wish::Reload => reload(&mut config, files, &prepared.opened, &handle.line, &mut reporter),
            },
            _ = &mut handle.ended => break Stop::DataThreadEnded,
            Some(news) = news.recv() => match news {
                News::Sample(Some(snapshot)) => {
                    count(&snapshot, &config, files, &prepared.opened, &handle.line);
                    reporter.set_quotas(files.quotas.usage());
                    reporter.sample(&snapshot);
                }
                News::Sample(None) => {}
                News::Asked(snapshot, reply) => {
                    let _ = reply.send(answer(snapshot.as_ref(), &reporter));
                }
            },
            _ = sample.tick() => {
                let (line, tell) = (handle.line.clone(), tell.clone());
                tokio::task::spawn_local(async move {
                    let _ = tell.send(News::Sample(line.snapshot().await));
                });
                since_line += SAMPLE_INTERVAL;
                if config.logging.stats_interval.is_some_and(|interval| since_line >= interval) {
                    since_line = Duration::ZERO;
                    reporter.log();
                }
            }
            stream = socket.accept() => {
                let (line, tell) = (handle.line.clone(), tell.clone());
                connections.serve(stream, on_ring, move |request| ask(request, line, tell));
            }
        }
    };
    connections.close().await;
    Ok(stop)
}

/// The answer to a request line of the control socket.
async fn ask(
    request: String,
    line: Line,
    tell: tokio::sync::mpsc::UnboundedSender<News>,
) -> String {
    if let Err(refusal) = Request::parse(&request) {
        return status::to_line(&refusal);
    }
    let (reply, answer) = oneshot::channel();
    let _ = tell.send(News::Asked(line.snapshot().await, reply));
    answer.await.unwrap_or_default()
}

fn answer(snapshot: Option<&Snapshot>, reporter: &Reporter) -> String {
    match snapshot {
        Some(snapshot) => status::to_line(&reporter.status(snapshot)),
        None => status::to_line(&status::Refusal {
            schema: status::SCHEMA,
            error: "the data thread does not answer".to_owned(),
        }),
    }
}

/// Reads the configuration again. All of it is applied, or nothing.
fn reload(
    config: &mut Config,
    files: &mut Files,
    opened: &[WanId],
    line: &Line,
    reporter: &mut Reporter,
) {
    let loaded = match Config::load(&files.path, config.role) {
        Ok(loaded) => loaded,
        Err(errors) => {
            tracing::error!("reload refused, the running configuration stays:\n{errors}");
            return;
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let diff = config::diff(config, &loaded.config);
    let mut restart: Vec<_> = diff.restart().map(ToString::to_string).collect();
    // A WAN that was off at the start has no sockets to switch on; one in use can be switched off and on.
    let sleeping = |config: &Config| -> Vec<bool> {
        let wans = config.links.wans.iter();
        wans.map(|wan| wan.role == config::WanRole::Off && !opened.contains(&wan.id))
            .collect()
    };
    if sleeping(config) != sleeping(&loaded.config) {
        restart.push("links.wan.role of a WAN that was off at the start".to_owned());
    }
    if !restart.is_empty() {
        tracing::error!(
            keys = restart.join(", "),
            "reload refused: these need a restart; nothing was changed"
        );
        return;
    }
    let changes: Vec<_> = diff.live().map(ToString::to_string).collect();
    *config = loaded.config;
    crate::logging::set_level(config.logging.level.filter());
    files.quotas.reconfigure(config, unix_time());
    reporter.set_quotas(files.quotas.usage());
    line.send(Command::Reconfigure(behaviour(config, files, opened)));
    reporter.reconfigure(config);
    tracing::info!(changes = changes.join(", "), "configuration reloaded");
}

/// What the data thread is to do by this configuration and these quotas.
fn behaviour(config: &Config, files: &Files, opened: &[WanId]) -> Box<Behaviour> {
    Box::new(Behaviour {
        session: convert::session(config),
        wans: convert::opened_wans(config, opened, |name| files.quotas.is_spent(name)),
        allowed: config.peers.iter().map(convert::addresses).collect(),
    })
}

/// Counts what the WANs carried; the data thread hears when a quota is used up or begins anew.
fn count(snapshot: &Snapshot, config: &Config, files: &mut Files, opened: &[WanId], line: &Line) {
    let peers = snapshot.endpoint.peers.iter();
    let links = peers
        .filter_map(|peer| peer.session.as_ref())
        .flat_map(|session| &session.links);
    let bytes = links.map(|link| (link.id.0, link.wan.as_str(), link.sent.0 + link.received.0));
    if files.quotas.sample(bytes, unix_time()) {
        for wan in &config.links.wans {
            let spent = files.quotas.is_spent(&wan.name);
            if wan.quota.is_some() {
                tracing::info!(wan = wan.name, spent, "quota");
            }
        }
        line.send(Command::Reconfigure(behaviour(config, files, opened)));
    }
}

/// Since 1970: days of a month are the only thing that follows from it.
fn unix_time() -> Duration {
    Clock::start().unix_time()
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
