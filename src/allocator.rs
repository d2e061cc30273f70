//! How the daemon has its C library allocate: so that memory that was given back leaves the process.
//!
//! glibc keeps an arena for each few threads, and what is freed in one stays there. And it learns: once a buffer of some
//! megabytes was freed, buffers of that size no longer come from the kernel, and go back to it only from the end of an
//! arena. After an UPDATE of 1,000,000 rows a node held 20 MB and occupied 100; at the peak, 47 MB occupied 104. With
//! these settings it occupied 79, and 104 instead of 145 with an index on the column.
//!
//! They can be given to a process only as it starts, unless by a call that is not safe Rust; so it starts once more, as
//! the same process, with them in its environment. That takes a millisecond. Where somebody has set any himself, his count.

use std::ffi::OsString;

/// What glibc is told: buffers from 256 KiB on are the kernel's, whatever was freed before; an arena's end goes back
/// from 512 KiB on; and there are few arenas: two for each of the two cores of a small gateway.
const TUNABLES: &str = "glibc.malloc.mmap_threshold=262144:glibc.malloc.trim_threshold=524288:glibc.malloc.arena_max=4";

/// Its name in the environment.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// Settings of older versions, which somebody may have used instead.
const OLDER: [&str; 3] = ["MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"];

/// The command that runs for long. Others are over before it matters.
const DAEMON: &str = "node";

/// Starts the process again where it is the daemon and its allocator was told nothing. Comes back where that cannot be
/// done: it then runs as it is, with more memory.
pub fn settle() {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if wants_settings(&arguments, |name| std::env::var_os(name).is_some()) {
        start_again(&arguments);
    }
}

fn wants_settings(arguments: &[OsString], is_set: impl Fn(&str) -> bool) -> bool {
    // Set by the first start, so there is no third.
    let is_told = is_set(VARIABLE) || OLDER.iter().any(|name| is_set(name));
    !is_told && arguments.get(1).is_some_and(|command| command == DAEMON)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn start_again(arguments: &[OsString]) {
    use std::os::unix::process::CommandExt;
    let Ok(program) = std::env::current_exe() else { return };
    let mut again = std::process::Command::new(program);
    again.arg0(&arguments[0]).args(&arguments[1..]).env(VARIABLE, TUNABLES);
    // It returns only where it failed: the program was replaced or removed meanwhile.
    let _ = again.exec();
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn start_again(_: &[OsString]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_daemon_that_was_told_nothing_starts_again() {
        let wants = |arguments: &[&str], set: &[&str]| {
            let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
            wants_settings(&arguments, |name| set.contains(&name))
        };
        assert!(wants(&["chronos", "node", "--id", "a"], &[]));
        assert!(!wants(&["chronos", "node"], &["GLIBC_TUNABLES"]));
        assert!(!wants(&["chronos", "node"], &["MALLOC_ARENA_MAX"]));
        assert!(!wants(&["chronos", "client", "node"], &[]));
        assert!(!wants(&["chronos"], &[]));
    }
}
