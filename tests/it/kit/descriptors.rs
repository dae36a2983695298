//! Limits on the file descriptors of a running gateway.

use super::gateway::Gateway;

/// Allows the gateway only descriptors below `limit`. Descriptors that are open already stay open.
pub fn set_limit(gateway: &Gateway, limit: u64) {
    let pid = i32::try_from(gateway.pid()).expect("a process id");
    let mut current = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the pointers are null, or to a live `rlimit`, and the call writes nothing else.
    let read = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut current) };
    current.rlim_cur = limit.min(current.rlim_max);
    // SAFETY: as above.
    let written = unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const current, std::ptr::null_mut()) };
    assert_eq!((read, written), (0, 0), "the limits of a child may be changed");
}

/// Allows the gateway no further descriptor.
pub fn exhaust(gateway: &Gateway) {
    set_limit(gateway, lowest_free(gateway));
}

/// Allows the gateway as many descriptors as its hard limit allows.
pub fn lift(gateway: &Gateway) {
    set_limit(gateway, u64::MAX);
}

/// The lowest number that is no open descriptor of the gateway. The system assigns it next.
pub fn lowest_free(gateway: &Gateway) -> u64 {
    let folder = format!("/proc/{}/fd", gateway.pid());
    let is_open = |number: &u64| std::fs::symlink_metadata(format!("{folder}/{number}")).is_ok();
    (0..).find(|number| !is_open(number)).expect("a free number")
}
