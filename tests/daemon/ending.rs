//! Told to stop, a node ends: in time, whatever hangs, and however far its start has come.

use crate::process::{FREE, Node, command};
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Far above what any end may take.
const PATIENCE: Duration = Duration::from_secs(30);

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

/// Runs what ends with the process of this id; without an end it is killed.
fn in_time<T>(id: Pid, work: impl FnOnce() -> T) -> T {
    let (done, told) = channel::<()>();
    let watching = std::thread::spawn(move || {
        if told.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = kill_process(id, Signal::KILL);
        }
    });
    let outcome = work();
    drop(done);
    watching.join().unwrap();
    outcome
}

/// Waits until the process minds SIGTERM.
fn until_it_listens(child: &Child) {
    let minds = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
        caught >> (Signal::TERM.as_raw() - 1) & 1 == 1
    };
    while !minds() {
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_is_told_to_stop_while_it_recovers_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    node.post_sql(r#"{"sql": "CREATE TABLE t (id INT PRIMARY KEY)"}"#);
    assert!(node.terminate().success());
    // A file that is never read to its end: so recovery takes for ever.
    let (current, kept) = (directory.path().join("node1/state/CURRENT"), directory.path().join("kept"));
    std::fs::rename(&current, &kept).unwrap();
    pipe(&current);
    let mut child = command(directory.path(), FREE).env("RUST_LOG", "info").stderr(Stdio::piped()).spawn().unwrap();
    let (mut output, mut log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    until_it_listens(&child);
    let id = Pid::from_child(&child);
    kill_process(id, Signal::TERM).unwrap();
    let status: ExitStatus = in_time(id, || child.wait().unwrap());
    let mut said = String::new();
    output.read_to_string(&mut said).unwrap();
    assert!(status.success() && said.is_empty(), "{status} {said}");
    log.read_to_string(&mut said).unwrap();
    assert!(said.contains("stopped before it served"), "it waited for its end: {said}");
    // And what is there is as it was.
    std::fs::rename(&kept, &current).unwrap();
    let node = Node::start(directory.path());
    node.until_ready();
    assert_eq!(node.post_sql(r#"{"sql": "SELECT COUNT(*) FROM t"}"#).0, 200);
}

#[test]
fn a_node_whose_log_lines_go_nowhere_ends_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    pipe(&log);
    // Both ends, so that nobody waits for the other one; nothing is ever read.
    let mut full = std::fs::OpenOptions::new().read(true).write(true).open(&log).unwrap();
    fcntl_setfl(&full, OFlags::NONBLOCK).unwrap();
    let mut command = command(directory.path(), FREE);
    command.env("CHRONOS_LOG_FILE", &log).env("RUST_LOG", "info").stderr(Stdio::null());
    let node = Node::spawn(command, directory.path());
    node.until_ready();
    for bytes in [4096, 1] {
        let refused = loop {
            if let Err(refused) = full.write_all(&vec![b'.'; bytes]) {
                break refused;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::WouldBlock);
    }
    // The next line is never written, and whoever writes it waits.
    let id = Pid::from_raw(node.id().cast_signed()).unwrap();
    let (status, took) = in_time(id, || node.terminate_timed());
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
}
