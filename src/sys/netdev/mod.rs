//! Interfaces, addresses, routes and rules.
#![allow(dead_code)]

/// An ioctl request naming an interface; `None` when the name is impossible.
pub(super) fn interface_request(name: &str) -> Option<libc::ifreq> {
    let possible = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name
            .bytes()
            .all(|b| b != 0 && b != b'/' && !b.is_ascii_whitespace());
    if !possible {
        return None;
    }
    // SAFETY: an ifreq is plain integers and pointers, for all of which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    Some(request)
}
