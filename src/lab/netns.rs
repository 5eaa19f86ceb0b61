//! A network namespace, kept by a descriptor; it ends with the last descriptor, process and socket in it.

use std::fs;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::LabError;

/// A network namespace. Copies are the same namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    name: &'static str,
    file: Arc<fs::File>,
}

impl Netns {
    /// Makes a namespace with nothing but its loopback interface, which is up, and with settings that keep the lab
    /// quiet and its addresses usable at once.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in the current user namespace.
    pub fn create(name: &'static str) -> Result<Self, LabError> {
        let make = move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            quiet_settings();
            fs::File::open("/proc/thread-self/ns/net")
        };
        let file = on_thread(make)?.map_err(LabError::io(format!("namespace {name}")))?;
        Ok(Self {
            name,
            file: Arc::new(file),
        })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Without /proc.
    pub fn current(name: &'static str) -> Result<Self, LabError> {
        let file =
            fs::File::open("/proc/thread-self/ns/net").map_err(LabError::io("own namespace"))?;
        Ok(Self {
            name,
            file: Arc::new(file),
        })
    }

    /// The name it was given.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The descriptor that keeps it.
    pub fn file(&self) -> &fs::File {
        &self.file
    }

    /// Moves the calling thread into it, for good. Sockets made from then on belong to it.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), LabError> {
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| LabError::io(format!("enter namespace {}", self.name))(errno.into()))
    }

    /// Runs `work` on a thread inside of it and waits for the result. The thread has a view of `/sys` that shows
    /// this namespace's interfaces, and so have the processes that it starts.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
        on_thread(|| {
            self.enter()?;
            // A view that fails to mount leaves the old one, in which only names of interfaces differ.
            if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
                let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), safe, None::<&str>);
            }
            Ok(work())
        })?
    }
}

/// Settings of a fresh namespace; each is a wish, because containers mount /proc/sys read-only.
pub(super) fn quiet_settings() {
    for (key, value) in [
        // Replies to one server address come by any of the WANs.
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        // Addresses are usable at once, and nobody advertises routers here.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
        // An interface that goes down and up again keeps its addresses, as with IPv4.
        ("ipv6/conf/all/keep_addr_on_down", "1"),
        ("ipv6/conf/default/keep_addr_on_down", "1"),
        ("ipv6/conf/all/accept_ra", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
    ] {
        let _ = fs::write(format!("/proc/sys/net/{key}"), value);
    }
}

/// Runs `work` on a thread of its own, so that what it does to the thread's namespaces ends with it.
fn on_thread<R: Send>(work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
    thread::scope(|scope| scope.spawn(work).join())
        .map_err(|_| LabError::Program("a thread of the lab panicked".into()))
}
