//! Network namespaces, and the user namespace in which everybody is root.
//!
//! A namespace is kept by a descriptor and has no name in the file system: nothing is left behind when the
//! process dies. Work happens in it on a thread of its own, so that the caller never changes its own.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{getgid, getuid};

use super::netdev::Netdev;

/// One network namespace.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
}

impl Namespace {
    /// Makes a new one, in which the loopback interface is up and nothing else exists.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN in this user namespace.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            enter_new_network()?;
            Self::current()
        })
    }

    /// The calling thread's own.
    ///
    /// # Errors
    /// No /proc.
    pub fn current() -> io::Result<Self> {
        Ok(Self {
            fd: fs::File::open("/proc/thread-self/ns/net")?.into(),
        })
    }

    /// Runs `work` inside, on a thread of its own, and returns its result. A panic passes through.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> io::Result<R> {
        on_own_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        })
    }

    /// Starts a program inside.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN, or the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.run(|| command.spawn())?
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Moves the calling thread into a new network namespace and brings its loopback interface up.
///
/// # Errors
/// Without CAP_SYS_ADMIN in this user namespace.
pub fn enter_new_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let mut netdev = Netdev::open().map_err(io::Error::other)?;
    netdev.set_up("lo", true).map_err(io::Error::other)
}

/// Makes the process root of a new user namespace with its own network and mounts, as far as the host permits
/// that without privilege. Must be called while the process has one thread only.
///
/// # Errors
/// The host forbids user namespaces, or there is more than one thread.
pub fn become_root() -> io::Result<()> {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)?;
    // Groups must be given up before an unprivileged process may map its group (user_namespaces(7)).
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1\n"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1\n"))?;
    // Mounts made from here on stay here.
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    let mut netdev = Netdev::open().map_err(io::Error::other)?;
    netdev.set_up("lo", true).map_err(io::Error::other)
}

fn on_own_thread<R: Send>(work: impl FnOnce() -> io::Result<R> + Send) -> io::Result<R> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    fn create() -> Option<Namespace> {
        match Namespace::create() {
            Ok(namespace) => Some(namespace),
            Err(error) => {
                eprintln!("SKIPPED: cannot make a network namespace: {error}");
                None
            }
        }
    }

    #[test]
    fn a_new_namespace_has_a_working_loopback_and_nothing_else() {
        let Some(namespace) = create() else { return };
        let names = namespace.run(|| {
            let mut netdev = Netdev::open().unwrap();
            assert!(netdev.interface("lo").unwrap().unwrap().up);
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.1:9").unwrap();
            netdev.interfaces().unwrap().len()
        });
        // Some kernels add their fallback tunnels (sit0, ip6tnl0), which are down.
        assert!(names.unwrap() >= 1);
    }

    #[test]
    fn the_caller_stays_where_it_is_and_a_child_goes_inside() {
        let Some(namespace) = create() else { return };
        let link = || fs::read_link("/proc/thread-self/ns/net").unwrap();
        let outside = link();
        let inside = namespace.run(link).unwrap();
        assert_ne!(outside, inside);
        assert_eq!(link(), outside);
        let mut command = Command::new("readlink");
        command.arg("/proc/self/ns/net").stdout(Stdio::piped());
        let child = namespace.spawn(&mut command).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            inside.to_str().unwrap()
        );
    }

    #[test]
    fn a_process_becomes_root_of_its_own_namespaces_and_configures_them() {
        use nix::sys::wait::{WaitStatus, waitpid};
        // Only a process of one thread may enter a user namespace, so a child does it.
        // SAFETY: the child runs nothing but the lines below and leaves by _exit; of the other threads' locks
        // it could meet only the allocator's, which glibc makes safe for a child.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let code = match become_root() {
                    Ok(()) if getuid().is_root() => {
                        let up = Netdev::open()
                            .and_then(|mut netdev| netdev.add_veth("a", "b"))
                            .is_ok_and(|made| made);
                        if up { 0 } else { 1 }
                    }
                    Ok(()) => 2,
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 77,
                    Err(_) => 3,
                };
                // SAFETY: _exit takes no pointers and does not return.
                unsafe { libc::_exit(code) }
            }
            nix::unistd::ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, 77) => eprintln!("SKIPPED: no user namespaces here"),
                status => assert_eq!(status, WaitStatus::Exited(child, 0)),
            },
        }
    }
}
