//! A line to a node that a test cuts, or makes slow: nodes reach each other through it, and clients past it.

use crate::patience::pause_for;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Bytes that go over a slow line at a time.
const PIECE_BYTES: usize = 16 << 10;

/// The line to one node.
pub struct Line {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    cut: Mutex<Cut>,
    bytes_per_second: AtomicU64,
}

/// Who gets nothing through.
#[derive(Default)]
struct Cut {
    /// Everybody.
    all: bool,
    /// The processes of these ids.
    callers: BTreeSet<u32>,
    /// Connections that go through, with who made them.
    open: Vec<(Option<u32>, TcpStream, TcpStream)>,
    /// All processes that may call.
    known: Vec<u32>,
}

impl Cut {
    fn refuses(&self, caller: Option<u32>) -> bool {
        // Who cannot be told is gone by now, or is one of those.
        self.all || (!self.callers.is_empty() && caller.is_none_or(|caller| self.callers.contains(&caller)))
    }

    fn end_refused(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        open.retain(|(caller, near, far)| {
            if self.refuses(*caller) {
                // Both sides hear at once that it is over.
                let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
                return false;
            }
            true
        });
        self.open = open;
    }
}

impl Line {
    /// A line to where a node listens. Its threads end with the process.
    pub fn to(target: SocketAddr) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { target, cut: Mutex::default(), bytes_per_second: AtomicU64::new(u64::MAX) });
        let kept = shared.clone();
        std::thread::spawn(move || listener.incoming().flatten().for_each(|near| kept.connect(near)));
        Line { address, shared }
    }

    /// From now on no more than this goes over each connection, either way.
    pub fn slow_down(&self, bytes_per_second: u64) {
        self.shared.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }

    /// Cuts everybody off, or some processes; whole again with nobody. `known` are all that may call.
    pub fn cut(&self, all: bool, callers: &[u32], known: &[u32]) {
        let mut cut = self.shared.cut.lock().unwrap();
        (cut.all, cut.callers, cut.known) = (all, callers.iter().copied().collect(), known.to_vec());
        let made: Vec<u16> = cut.open.iter().filter_map(|(_, near, _)| Some(near.peer_addr().ok()?.port())).collect();
        let owners: Vec<Option<u32>> = made.iter().map(|port| owner(*port, known)).collect();
        if owners.len() == cut.open.len() {
            cut.open.iter_mut().zip(owners).for_each(|(open, owner)| open.0 = owner);
        }
        cut.end_refused();
    }
}

impl Shared {
    fn connect(self: &Arc<Shared>, near: TcpStream) {
        let mut cut = self.cut.lock().unwrap();
        let caller = near.peer_addr().ok().and_then(|address| owner(address.port(), &cut.known));
        if cut.refuses(caller) {
            return;
        }
        let Ok(far) = TcpStream::connect(self.target) else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), self.clone());
            std::thread::spawn(move || shared.pump(from, to));
        }
        cut.open.push((caller, near, far));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(bytes) = from.read(&mut piece) {
            if bytes == 0 || to.write_all(&piece[..bytes]).is_err() {
                break;
            }
            let rate = self.bytes_per_second.load(Ordering::Relaxed);
            let takes = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / rate);
            if !takes.is_zero() {
                pause_for(takes);
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }
}

/// Which of the processes has the socket of this local port.
fn owner(port: u16, known: &[u32]) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let local = format!(":{port:04X}");
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1)?.ends_with(&local)).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    })?;
    let socket = format!("socket:[{inode}]");
    let has = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        files.is_ok_and(|mut files| {
            files.any(|file| {
                file.is_ok_and(|file| {
                    std::fs::read_link(file.path()).is_ok_and(|link| link.as_os_str() == socket.as_str())
                })
            })
        })
    };
    known.iter().copied().find(has)
}
