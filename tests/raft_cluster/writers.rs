//! Clients that write without pause, and remember what they were told.

use crate::group::Group;
use crate::patience::{pause, until};
use crate::process::body;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What became of the writes.
#[derive(Default)]
pub struct Written {
    pub acknowledged: BTreeSet<i64>,
    /// May be there or not.
    pub in_doubt: BTreeSet<i64>,
}

struct Shared {
    nodes: Mutex<Vec<SocketAddr>>,
    next: AtomicI64,
    count: AtomicUsize,
    ends: AtomicBool,
}

/// Writers on all nodes.
pub struct Writers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Written>>,
}

impl Writers {
    pub fn start(group: &Group, count: usize) -> Writers {
        let shared = Arc::new(Shared {
            nodes: Mutex::new(addresses(group)),
            next: AtomicI64::new(1),
            count: AtomicUsize::new(0),
            ends: AtomicBool::new(false),
        });
        let threads = (0..count)
            .map(|writer| {
                let shared = shared.clone();
                std::thread::spawn(move || write(&shared, writer))
            })
            .collect();
        Writers { shared, threads }
    }

    /// The nodes have other addresses since one was started again.
    pub fn follow(&self, group: &Group) {
        *self.shared.nodes.lock().unwrap() = addresses(group);
    }

    pub fn acknowledged(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }

    pub fn wait_for(&self, count: usize) {
        until("writes go on", || match self.acknowledged() {
            acknowledged if acknowledged >= count => Ok(()),
            acknowledged => Err(format!("{acknowledged} of {count} are acknowledged")),
        });
    }

    pub fn stop(self) -> Written {
        self.shared.ends.store(true, Ordering::SeqCst);
        let mut all = Written::default();
        for thread in self.threads {
            let written = thread.join().unwrap();
            all.acknowledged.extend(written.acknowledged);
            all.in_doubt.extend(written.in_doubt);
        }
        all
    }
}

fn addresses(group: &Group) -> Vec<SocketAddr> {
    group.nodes.iter().flatten().map(|node| node.http).collect()
}

fn write(shared: &Shared, writer: usize) -> Written {
    let mut written = Written::default();
    while !shared.ends.load(Ordering::SeqCst) {
        let id = shared.next.fetch_add(1, Ordering::SeqCst);
        let nodes = shared.nodes.lock().unwrap().clone();
        let node = nodes[(writer + id as usize) % nodes.len()];
        let sql = json!({ "sql": format!("INSERT INTO t VALUES ({id}, {writer})") }).to_string();
        match post(node, &[], &sql) {
            Some((200, _)) => {
                assert!(written.acknowledged.insert(id));
                shared.count.fetch_add(1, Ordering::SeqCst);
            }
            // Nothing happened, as the answer says.
            Some((503 | 429, _)) => {}
            Some((500, answer)) if answer["sqlstate"] == json!("08007") => drop(written.in_doubt.insert(id)),
            Some((status, answer)) => panic!("{status} {answer}"),
            None => drop(written.in_doubt.insert(id)),
        }
    }
    written
}

/// The answer to what is sent to `/sql`; none where the connection broke.
pub fn post(node: SocketAddr, headers: &[(&str, &str)], content: &str) -> Option<(u16, Json)> {
    let Ok(mut stream) = TcpStream::connect(node) else {
        // Nothing was sent: as good as an answer that nothing happened.
        pause();
        return Some((503, Json::Null));
    };
    let named = headers.iter().fold(String::new(), |named, (name, value)| named + name + ": " + value + "\r\n");
    let head = format!(
        "POST /sql HTTP/1.1\r\nhost: node\r\nconnection: close\r\ncontent-type: application/json\r\n{named}\
         content-length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(content.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body(&answer)).ok()?))
}

/// The same under a name of a session's.
pub fn post_named(node: SocketAddr, client: &str, sequence: u64, content: &str) -> Option<(u16, Json)> {
    post(node, &[("x-chronos-client-id", client), ("x-chronos-sequence", &sequence.to_string())], content)
}
