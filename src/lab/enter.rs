//! Into namespaces of our own: user (without root), network, mount and process numbers.
//!
//! The process starts itself again inside, because a process can enter a new user namespace only while it has one
//! thread, and because process 1 of a PID namespace takes everything with it when it ends: nothing of the lab can
//! outlive it, not even after SIGKILL.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{getegid, geteuid};

/// Tells the process inside that it is inside; its value is the outer process' number, for unique names.
pub(super) const MARK: &str = "CHAINLIGHTNING_LAB";
/// The device that tunnels need.
const TUN_DEVICE: &str = "/dev/net/tun";

/// Where we are.
#[derive(Debug)]
pub enum Entry {
    /// In namespaces of our own: go on. The directory is for logs and configurations; it is in memory and vanishes
    /// with the namespaces (where that is refused: an empty one among the temporary files).
    Inside(PathBuf),
    /// The program ran inside and has ended: return this.
    Finished(ExitCode),
}

/// Why there are no namespaces.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// No user namespace.
    #[error(
        "user namespaces are refused ({source}). Run as root, or allow them: sysctl user.max_user_namespaces=10000; \
         on Debian also kernel.unprivileged_userns_clone=1; in a container start it with --privileged"
    )]
    User {
        /// What the kernel said.
        source: io::Error,
    },
    /// No network, mount or PID namespace inside of the user namespace.
    #[error(
        "network namespaces are refused ({source}). Run as root, or lift the restriction: on Ubuntu sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0; in a container start it with --privileged"
    )]
    Network {
        /// What the kernel said.
        source: io::Error,
    },
    /// No TUN device.
    #[error("{TUN_DEVICE} is refused ({source}). Run as root, or: {hint}")]
    Tun {
        /// What the kernel said.
        source: io::Error,
        /// A command that helps.
        hint: &'static str,
    },
    /// The program could not be started again.
    #[error("starting {program} again: {source}")]
    Restart {
        /// This program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Enters new namespaces by starting the same program inside of them with the arguments `args`. Call it first thing
/// in `main`, before any thread exists. With `tun`, it also checks that TUN devices can be made.
///
/// # Errors
/// What is refused, and what to do about it.
pub fn enter(args: &[OsString], tun: bool) -> Result<Entry, EnterError> {
    if let Some(outer) = std::env::var(MARK)
        .ok()
        .and_then(|text| text.parse::<u32>().ok())
    {
        return Ok(Entry::Inside(settle(outer)));
    }
    if tun {
        check_tun()?;
    }
    leave_host()?;
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let status = Command::new(&program)
        .args(args)
        .env(MARK, std::process::id().to_string())
        .status();
    let status = status.map_err(|source| EnterError::Restart {
        program: program.display().to_string(),
        source,
    })?;
    let code = status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(1);
    Ok(Entry::Finished(ExitCode::from(code)))
}

fn check_tun() -> Result<(), EnterError> {
    let open = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN_DEVICE);
    open.map(drop).map_err(|source| {
        let hint = if Path::new(TUN_DEVICE).exists() {
            "sudo chmod 666 /dev/net/tun"
        } else {
            "sudo modprobe tun (in a container: --device /dev/net/tun)"
        };
        EnterError::Tun { source, hint }
    })
}

/// Leaves the host's namespaces. Root does not need a user namespace, unless it is root without rights.
fn leave_host() -> Result<(), EnterError> {
    let others = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
    if geteuid().is_root() && unshare(others).is_ok() {
        return Ok(());
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| EnterError::User {
        source: errno.into(),
    })?;
    let map = || {
        // A kernel without setgroups has nothing to deny.
        match fs::write("/proc/self/setgroups", "deny") {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
        fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
    };
    map().map_err(|source| EnterError::User { source })?;
    unshare(others).map_err(|errno| EnterError::Network {
        source: errno.into(),
    })
}

/// First steps inside: die with the outer process, and own mounts that hide the host's run-time files.
fn settle(outer: u32) -> PathBuf {
    // Each of these makes the lab tidier; none is needed for it to work, so refusals are no errors.
    let _ = prctl::set_pdeathsig(Signal::SIGKILL);
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let _: Result<(), Errno> = mount(None::<&str>, "/", None::<&str>, private, None::<&str>);
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let _ = mount(Some("proc"), "/proc", Some("proc"), safe, None::<&str>);
    match mount(Some("tmpfs"), "/run", Some("tmpfs"), safe, None::<&str>) {
        Ok(()) => "/run/lab".into(),
        Err(_) => std::env::temp_dir().join(format!("chainlightning-lab-{outer}")),
    }
}
