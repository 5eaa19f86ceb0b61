//! A network namespace of the lab: one of the kernel's, with quiet settings and its own view of `/sys`.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::LabError;
use crate::sys::Namespace;

/// A network namespace; it ends with the last descriptor, process and socket in it. Copies are the same namespace.
#[derive(Clone, Debug)]
pub struct Netns {
    name: &'static str,
    namespace: Arc<Namespace>,
}

impl Netns {
    /// Makes a namespace with nothing but its loopback interface, which is up, and with settings that keep the lab
    /// quiet and its addresses usable at once.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in the current user namespace.
    pub fn create(name: &'static str) -> Result<Self, LabError> {
        let namespace = Namespace::create().map_err(LabError::io(format!("namespace {name}")))?;
        let netns = Self {
            name,
            namespace: Arc::new(namespace),
        };
        netns.run(quiet_settings)?;
        Ok(netns)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// Without /proc.
    pub fn current(name: &'static str) -> Result<Self, LabError> {
        let namespace = Namespace::current().map_err(LabError::io("own namespace"))?;
        Ok(Self {
            name,
            namespace: Arc::new(namespace),
        })
    }

    /// The name it was given.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs `work` on a thread inside of it and waits for the result. The thread has a view of `/sys` that shows
    /// this namespace's interfaces, and so have the processes that it starts.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
        let inside = || {
            // A view that fails to mount leaves the old one, in which only names of interfaces differ.
            if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
                let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                let _ = mount(Some("sysfs"), "/sys", Some("sysfs"), safe, None::<&str>);
            }
            work()
        };
        self.namespace
            .run(inside)
            .map_err(LabError::io(format!("enter namespace {}", self.name)))
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.namespace.as_fd()
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
