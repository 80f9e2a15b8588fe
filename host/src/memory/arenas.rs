//! The C allocator's arenas.

/// Most arenas of the C allocator. glibc makes eight per core, one for each thread that meets another, and keeps what each has
/// once had; windows wander over all threads, so that the process would take a multiple of what it uses.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 4;

/// Bounds the arenas of the C allocator, where it has any. To be called before the first thread is started.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the allocator is the C library's")]
pub fn bound_arenas() {
    // SAFETY: sets a parameter of the allocator and touches no memory of ours. It is refused for a wrong value alone.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Bounds the arenas of the C allocator, where it has any: here it has none.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn bound_arenas() {}
