//! The control thread: signals, the control socket, the statistics line, reload.
//!
//! Runs on tokio-uring; where the kernel refuses it a ring, on a plain current-thread tokio runtime. It asks the
//! data thread for snapshots and never touches a packet.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::report::Reporter;
use super::setup::{Parts, Prepared};
use super::sockets::Sockets;
use super::worker::{Behaviour, Command, Role as WorkerRole, Snapshot, Worker};
use super::{RunError, convert};
use crate::base::WanId;
use crate::config::{self, Backend, Config};
use crate::endpoint::{Client, Server};
use crate::status::{self, Request};
use crate::sys::datapath::Config as DatapathConfig;
use crate::sys::{Clock, Datapath, Tier, Wake};

/// How long the data thread may take to answer; it answers between two turns.
const ANSWER_MAX: Duration = Duration::from_millis(900);
/// Time between the snapshots that rates are computed from.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that says nothing is closed after this.
const CONNECTION_IDLE_MAX: Duration = Duration::from_secs(5);
/// Stack of the data thread: the FEC decoder zeroes 128 KiB of it.
const STACK_BYTES: usize = 2 << 20;

/// The data thread as the control thread sees it.
struct Handle {
    commands: mpsc::Sender<Command>,
    wake: Wake,
    thread: std::thread::JoinHandle<Result<(), String>>,
    ended: tokio::sync::oneshot::Receiver<()>,
}

impl Handle {
    fn send(&self, command: Command) {
        // A data thread that has ended is noticed by `ended`.
        let _ = self.commands.send(command);
        self.wake.signal();
    }

    fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send(Command::Snapshot(reply));
        answer.recv_timeout(ANSWER_MAX).ok()
    }
}

/// Starts the data thread and serves until a signal says stop.
pub fn run(config: Config, path: PathBuf, mut prepared: Prepared) -> Result<(), RunError> {
    let mut handle = start_worker(&config, &mut prepared)?;
    let (ended_early, control) = match tokio_uring::Runtime::new(&tokio_uring::builder()) {
        Ok(runtime) => runtime.block_on(serve(config, path, &prepared, &mut handle, true)),
        Err(error) => {
            tracing::info!(%error, "control thread without io_uring");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|source| RunError::System {
                    what: "starting the control runtime",
                    source,
                })?;
            runtime.block_on(serve(config, path, &prepared, &mut handle, false))
        }
    }?;
    let _ = control;
    handle.send(Command::Stop);
    let result = handle.thread.join();
    drop(prepared);
    match result {
        Ok(Ok(())) if !ended_early => Ok(()),
        Ok(Ok(())) => Err(RunError::Worker("without a reason".to_owned())),
        Ok(Err(reason)) => Err(RunError::Worker(reason)),
        Err(_) => Err(RunError::Worker("it panicked".to_owned())),
    }
}

/// Opens the datapath in its own thread and waits until it is there, so that its faults are start-up faults.
fn start_worker(config: &Config, prepared: &mut Prepared) -> Result<Handle, RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let wake = Wake::new().map_err(system("making an eventfd"))?;
    let thread_wake = wake.try_clone().map_err(system("making an eventfd"))?;
    let clock = Clock::start();
    let (commands, received) = mpsc::channel();
    let (ready, started) = mpsc::sync_channel(1);
    let (ended_tell, ended) = tokio::sync::oneshot::channel();
    let tun_queue = prepared
        .tun
        .queue(0)
        .try_clone_to_owned()
        .map_err(system("sharing the TUN"))?;
    let parts = prepared.parts.take();
    let datagram_bytes_max = prepared.datagram_bytes_max;
    let offload = config.performance.offload;
    let datapath_config = DatapathConfig {
        tier: tier(config.performance.backend),
        ..DatapathConfig::default()
    };
    let role = make_role(config, parts.as_ref(), datagram_bytes_max, &clock)?;
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
                let worker = Worker::new(role, datapath, sockets, clock, received);
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
        commands,
        wake,
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

const fn tier(backend: Backend) -> Option<Tier> {
    match backend {
        Backend::Auto => None,
        Backend::IoUring => Some(Tier::Multishot),
        Backend::IoUringOneshot => Some(Tier::OneShot),
        Backend::Epoll => Some(Tier::Epoll),
    }
}

/// Serves until a signal or the end of the data thread; says whether it was the latter.
async fn serve(
    mut config: Config,
    path: PathBuf,
    prepared: &Prepared,
    handle: &mut Handle,
    on_ring: bool,
) -> Result<(bool, ()), RunError> {
    let system = |what| move |source| RunError::System { what, source };
    let mut terminate = signal(SignalKind::terminate()).map_err(system("waiting for TERM"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(system("waiting for INT"))?;
    let mut hangup = signal(SignalKind::hangup()).map_err(system("waiting for HUP"))?;
    let socket = ControlSocket::listen(&config.control_socket)?;
    let mut reporter = Reporter::new(&config, prepared, on_ring);
    let mut sample = tokio::time::interval(SAMPLE_INTERVAL);
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut since_line = Duration::ZERO;
    tracing::info!(role = config.role.name(), control_socket = %config.control_socket.display(), on_ring, "running");
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok((false, ())),
            _ = interrupt.recv() => return Ok((false, ())),
            _ = &mut handle.ended => return Ok((true, ())),
            _ = hangup.recv() => reload(&mut config, &path, &prepared.opened, handle, &mut reporter),
            _ = sample.tick() => {
                if let Some(snapshot) = handle.snapshot() {
                    reporter.sample(&snapshot);
                }
                since_line += SAMPLE_INTERVAL;
                if config.logging.stats_interval.is_some_and(|interval| since_line >= interval) {
                    since_line = Duration::ZERO;
                    reporter.log();
                }
            }
            connection = socket.listener.accept() => {
                if let Ok((stream, _)) = connection {
                    let reply = |line: &str| answer(line, handle, &mut reporter);
                    let served = tokio::time::timeout(CONNECTION_IDLE_MAX, converse(stream, on_ring, reply)).await;
                    if let Ok(Err(error)) = served {
                        tracing::debug!(%error, "control connection");
                    }
                }
            }
        }
    }
}

/// One request line in, one reply line out.
async fn converse(
    stream: tokio::net::UnixStream,
    on_ring: bool,
    reply: impl FnOnce(&str) -> String,
) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(status::REQUEST_BYTES_MAX);
    if on_ring {
        let stream = tokio_uring::net::UnixStream::from_std(stream.into_std()?);
        while !line.contains(&b'\n') && line.len() < status::REQUEST_BYTES_MAX {
            let (count, buffer) = stream.read(vec![0; status::REQUEST_BYTES_MAX]).await;
            match count? {
                0 => break,
                count => line.extend_from_slice(&buffer[..count]),
            }
        }
        let (written, _) = stream
            .write_all(reply(&String::from_utf8_lossy(&line)).into_bytes())
            .await;
        written
    } else {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = stream;
        while !line.contains(&b'\n') && line.len() < status::REQUEST_BYTES_MAX {
            if stream.read_buf(&mut line).await? == 0 {
                break;
            }
        }
        stream
            .write_all(reply(&String::from_utf8_lossy(&line)).as_bytes())
            .await
    }
}

fn answer(line: &str, handle: &Handle, reporter: &mut Reporter) -> String {
    match Request::parse(line) {
        Ok(_) => match handle.snapshot() {
            Some(snapshot) => status::to_line(&reporter.status(&snapshot)),
            None => status::to_line(&status::Refusal {
                schema: status::SCHEMA,
                error: "the data thread does not answer".to_owned(),
            }),
        },
        Err(refusal) => status::to_line(&refusal),
    }
}

/// Reads the configuration again. All of it is applied, or nothing.
fn reload(
    config: &mut Config,
    path: &Path,
    opened: &[WanId],
    handle: &Handle,
    reporter: &mut Reporter,
) {
    let loaded = match Config::load(path, config.role) {
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
    let off = |config: &Config| -> Vec<bool> {
        config
            .links
            .wans
            .iter()
            .map(|wan| wan.role == config::WanRole::Off)
            .collect()
    };
    if off(config) != off(&loaded.config) {
        restart.push("links.wan.role to or from \"off\"".to_owned());
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
    handle.send(Command::Reconfigure(Box::new(Behaviour {
        session: convert::session(config),
        wans: convert::opened_wans(config, opened),
        allowed: config.peers.iter().map(convert::addresses).collect(),
    })));
    reporter.reconfigure(config);
    tracing::info!(changes = changes.join(", "), "configuration reloaded");
}

/// The control socket; its file is removed when it is dropped.
struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    fn listen(path: &Path) -> Result<Self, RunError> {
        let fault = |source| RunError::ControlSocket {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(fault)?;
        }
        // A file nobody listens behind is left over from a daemon that was killed.
        if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
            std::fs::remove_file(path).map_err(fault)?;
        }
        let listener = UnixListener::bind(path).map_err(fault)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(fault)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
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
