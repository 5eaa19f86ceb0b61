//! Namespaces.
/// Enters a new network namespace and brings its loopback interface up.
pub(super) fn enter_new_network() -> std::io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    Ok(())
}
