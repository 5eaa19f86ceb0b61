//! Memory registered with the ring: pinned once instead of in every operation.

use super::super::Shared;
use super::super::ring::Ring;
use super::SEND_BUFFER;
use crate::sys::arena::Arena;

/// Registers as many send slots as locked memory allows, from the first; returns how many.
pub(super) fn register_slots(ring: &Ring, shared: &Shared, lockable: &mut usize) -> u16 {
    let slots = &shared.slots;
    let most = *lockable / slots.slot_bytes();
    let mut count = slots.count().min(most);
    while count > 0 {
        let bytes = count * slots.slot_bytes();
        if register(ring, SEND_BUFFER, slots.arena(), bytes) {
            *lockable -= bytes;
            return u16::try_from(count).unwrap_or(u16::MAX);
        }
        count /= 2;
    }
    0
}

/// How much memory this process should lock. The limit holds for all processes of a user together and rings
/// count as well, so who is bound by it takes an eighth.
pub(super) fn locked_bytes_max() -> usize {
    const CAP_IPC_LOCK: u32 = 14;
    let read = |name| std::fs::read_to_string(name).unwrap_or_default();
    // Only the first user namespace's capability lifts the limit; its map is the identity.
    let map = read("/proc/self/uid_map");
    let first = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let status = read("/proc/thread-self/status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if first && bits >> CAP_IPC_LOCK & 1 == 1 {
        return usize::MAX;
    }
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_MEMLOCK);
    limit.map_or(0, |(soft, _)| {
        usize::try_from(soft).unwrap_or(usize::MAX) / 8
    })
}

/// Registers the start of an arena as buffer `index`; `false` when the kernel refuses (locked memory).
pub(super) fn register(ring: &Ring, index: u16, arena: &Arena, bytes: usize) -> bool {
    let buffer = arena.iovec(bytes);
    // SAFETY: the arena is mapped for longer than the ring: send slots and port buffers are dropped after it,
    // or after the entry was emptied.
    let result = unsafe {
        ring.submitter()
            .register_buffers_update(u32::from(index), &[buffer], None)
    };
    result.is_ok()
}

/// Empties the place of a registered buffer that no operation uses.
pub(super) fn unregister(ring: &Ring, index: u16) {
    let nothing = libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    };
    // SAFETY: an empty entry names no memory. Should the kernel refuse, the pages stay pinned and the mapping
    // alone goes away; no operation uses them any more.
    let _ = unsafe {
        ring.submitter()
            .register_buffers_update(u32::from(index), &[nothing], None)
    };
}
