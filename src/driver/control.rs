//! The control thread: signals, the control socket, the statistics line, reload.
//!
//! Runs on tokio-uring; where the kernel refuses it a ring, on a plain current-thread tokio runtime. It asks the
//! data threads for snapshots and never touches a packet. It never waits for anything but all of its events at once:
//! a signal is heard whatever a data thread or a client of the control socket does.

use std::path::PathBuf;
use std::time::Duration;

use tokio::signal::unix::{Signal as UnixSignal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::command::{Behaviour, Snapshot};
use super::control_socket::{Connections, ControlSocket};
use super::quota::Quotas;
use super::report::Reporter;
use super::setup::{Parts, Prepared};
use super::start::{self, Lines, Workers};
use super::{RunError, convert};
use crate::base::WanId;
use crate::config::{self, Config};
use crate::session::config::WanConfig;
use crate::status::{self, Request};
use crate::sys::Clock;

/// Time between the snapshots that rates are computed from.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the data threads may take to say farewell and end.
const ENDING_MAX: Duration = Duration::from_millis(700);

/// What a task brings back to the main loop, which alone has the reporter.
enum News {
    /// The periodic snapshot.
    Sample(Option<Vec<Snapshot>>),
    /// A snapshot that a client asked for, and where the answer goes.
    Asked(Option<Vec<Snapshot>>, oneshot::Sender<String>),
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

    /// Starts the data threads and serves until a signal says stop.
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
        let mut workers = start::start(&config, &mut prepared)?;
        let Self { runtime, signals } = self;
        let on_ring = runtime.is_ring();
        let files = Files { path, quotas };
        let serving = serve_and_stop(config, files, &prepared, signals, &mut workers, on_ring);
        let (served, ended) = runtime.block_on(serving);
        if !ended {
            // What was made on the host is removed all the same; the process ends and takes the threads with it.
            return Err(RunError::Worker("it does not end".to_owned()));
        }
        let result = workers.join();
        drop(prepared);
        match (result, served?) {
            (Ok(()), Stop::DataThreadEnded) => Err(RunError::Worker("without a reason".to_owned())),
            (result, _) => result,
        }
    }
}

/// Serves, then ends the data threads; says why serving stopped and whether all threads have ended.
async fn serve_and_stop(
    config: Config,
    mut files: Files,
    prepared: &Prepared,
    signals: Signals,
    workers: &mut Workers,
    on_ring: bool,
) -> (Result<Stop, RunError>, bool) {
    let served = serve(config, &mut files, prepared, signals, workers, on_ring).await;
    files.quotas.write(unix_time());
    // Where one has ended by itself, the others end with it.
    workers.lines.stop();
    let ended = workers.all_ended(ENDING_MAX).await;
    (served, ended)
}

/// Serves until a signal or the end of a data thread.
async fn serve(
    mut config: Config,
    files: &mut Files,
    prepared: &Prepared,
    mut signals: Signals,
    workers: &mut Workers,
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
                Wish::Reload => reload(&mut config, files, &prepared.opened, &workers.lines, &mut reporter),
            },
            () = workers.one_ended() => break Stop::DataThreadEnded,
            Some(news) = news.recv() => match news {
                News::Sample(Some(snapshots)) => {
                    count(&snapshots, &config, files, &prepared.opened, &workers.lines);
                    reporter.set_quotas(files.quotas.usage());
                    reporter.sample(&snapshots);
                }
                News::Sample(None) => {}
                News::Asked(snapshots, reply) => {
                    let _ = reply.send(answer(snapshots.as_ref(), &reporter));
                }
            },
            _ = sample.tick() => {
                let (lines, tell) = (workers.lines.clone(), tell.clone());
                tokio::task::spawn_local(async move {
                    let _ = tell.send(News::Sample(lines.snapshot().await));
                });
                since_line += SAMPLE_INTERVAL;
                if config.logging.stats_interval.is_some_and(|interval| since_line >= interval) {
                    since_line = Duration::ZERO;
                    reporter.log();
                }
            }
            stream = socket.accept() => {
                let (lines, tell) = (workers.lines.clone(), tell.clone());
                connections.serve(stream, on_ring, move |request| ask(request, lines, tell));
            }
        }
    };
    connections.close().await;
    if stop == Stop::Signal
        && !files.quotas.is_empty()
        && let Some(snapshots) = workers.lines.snapshot().await
    {
        count(&snapshots, &config, files, &prepared.opened, &workers.lines);
    }
    Ok(stop)
}

/// The answer to a request line of the control socket.
async fn ask(
    request: String,
    lines: Lines,
    tell: tokio::sync::mpsc::UnboundedSender<News>,
) -> String {
    if let Err(refusal) = Request::parse(&request) {
        return status::to_line(&refusal);
    }
    let (reply, answer) = oneshot::channel();
    let _ = tell.send(News::Asked(lines.snapshot().await, reply));
    answer.await.unwrap_or_default()
}

fn answer(snapshots: Option<&Vec<Snapshot>>, reporter: &Reporter) -> String {
    match snapshots {
        Some(snapshots) => status::to_line(&reporter.status(snapshots)),
        None => status::to_line(&status::Refusal {
            schema: status::SCHEMA,
            error: "a data thread does not answer".to_owned(),
        }),
    }
}

/// Reads the configuration again. All of it is applied, or nothing.
fn reload(
    config: &mut Config,
    files: &mut Files,
    opened: &[WanId],
    lines: &Lines,
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
    lines.reconfigure(&behaviour(config, files, opened));
    reporter.reconfigure(config);
    tracing::info!(changes = changes.join(", "), "configuration reloaded");
}

/// What the data threads are to do by this configuration and these quotas.
fn behaviour(config: &Config, files: &Files, opened: &[WanId]) -> Behaviour {
    Behaviour {
        session: convert::session(config),
        wans: convert::opened_wans(config, opened, |name| files.quotas.is_spent(name)),
        allowed: config.peers.iter().map(convert::addresses).collect(),
    }
}

/// Counts what the WANs carried; the data threads hear when a quota is used up or begins anew.
fn count(
    snapshots: &[Snapshot],
    config: &Config,
    files: &mut Files,
    opened: &[WanId],
    lines: &Lines,
) {
    let peers = snapshots.iter().flat_map(|worker| &worker.endpoint.peers);
    let links = peers.flat_map(|peer| {
        let links = peer.session.iter().flat_map(|session| &session.links);
        links.map(|link| (peer.id.number, link))
    });
    let bytes = links.map(|(session, link)| {
        let bytes = link.sent.0 + link.received.0;
        ((session, link.id.0), link.wan.as_str(), bytes)
    });
    if files.quotas.sample(bytes, unix_time()) {
        for wan in &config.links.wans {
            let spent = files.quotas.is_spent(&wan.name);
            if wan.quota.is_some() {
                tracing::info!(wan = wan.name, spent, "quota");
            }
        }
        lines.reconfigure(&behaviour(config, files, opened));
    }
}

/// Since 1970: days of a month are the only thing that follows from it.
fn unix_time() -> Duration {
    Clock::start().unix_time()
}
