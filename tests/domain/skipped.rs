//! Says that a test did not run, where whoever reads the output sees it.
//!
//! What a test prints is captured, and shown only where it fails: one that is skipped looks like one that has passed. So
//! the reason goes straight to standard error. `.ci/run` gathers these lines at its end.

use std::io::Write;

/// Says why a test, or a part of it, does not run here.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // In one piece, so that tests beside it do not write into it. Nobody to tell is no reason to fail.
    let _ = std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes());
}
