//! How long a crash is felt: from the panic to the next statement served, while a flood keeps the mailboxes full.
//!
//! `CHRONOS_CRASHES=500 cargo test --release --bin chronos crash_to_served -- --nocapture` measures; without the variable
//! a few crashes show that it works. Nothing asserts a time.

use crate::actors::messages::{Execute, Output};
use crate::actors::route::MAILBOX_MESSAGES_MAX;
use crate::actors::router::Router;
use crate::actors::tests::node::{Poison, Running, on_a_system, statement, terms};
use chronos::clock::{Clock, SystemClock};
use chronos::error::Result;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

/// Crashes of each actor.
fn crashes() -> usize {
    std::env::var("CHRONOS_CRASHES").ok().and_then(|count| count.parse().ok()).unwrap_or(5)
}

/// Reads and writes from threads of their own, as many as mailboxes take; one is sent for each that was answered.
fn flood(router: &Router, stop: &Arc<AtomicBool>, sent: &Arc<AtomicU64>) -> Vec<JoinHandle<()>> {
    let flooder = |at: usize| {
        let (router, stop, sent) = (router.clone(), stop.clone(), sent.clone());
        std::thread::spawn(move || {
            let executor = &router.routes().executors[at];
            let mut answers: VecDeque<Receiver<Result<Output>>> = VecDeque::new();
            while !stop.load(Ordering::Relaxed) {
                if answers.len() >= MAILBOX_MESSAGES_MAX {
                    // An answer that nobody waits for would not be worked for.
                    let _ = answers.pop_front().map(Receiver::blocking_recv);
                }
                let number = sent.fetch_add(1, Ordering::Relaxed);
                let write = format!("INSERT INTO t VALUES ({number})");
                let sql = if number.is_multiple_of(2) { "SELECT 1" } else { write.as_str() };
                let mut answer = executor.ask_now(Execute { statement: statement(sql), terms: terms() });
                if matches!(answer.try_recv(), Err(TryRecvError::Empty)) {
                    answers.push_back(answer);
                } else {
                    // Refused: full as it should be. The next one goes when there is room, for a flood that only spins
                    // would measure the processor it takes from everybody.
                    let _ = answers.pop_front().map(Receiver::blocking_recv);
                }
            }
        })
    };
    (0..router.routes().executors.len()).map(flooder).collect()
}

async fn measure(node: &Running, name: &str, poison: &impl AsyncFn(&Router) -> Result<()>) {
    let mut all = Vec::new();
    for _ in 0..crashes() {
        while poison(&node.router).await.is_ok() {}
        let began = SystemClock.monotonic();
        // A full mailbox refuses; whoever asks again is served as soon as there is room.
        while node.execute("SELECT 1").await.is_err() {
            tokio::task::yield_now().await;
        }
        let took = SystemClock.monotonic().saturating_sub(began);
        all.push(took);
    }
    all.sort_unstable();
    let at = |share: f64| all[((all.len() - 1) as f64 * share).round() as usize];
    println!("{name}: {} crashes, served again p50 {:?} p99 {:?} max {:?}", all.len(), at(0.5), at(0.99), at(1.0));
}

#[test]
fn crash_to_served_under_a_flood() {
    let directory = tempfile::tempdir().unwrap();
    on_a_system(async {
        let node = Running::start(directory.path()).await;
        node.execute("CREATE TABLE t (id INT PRIMARY KEY)").await.unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let flooders = flood(&node.router, &stop, &sent);
        let deadline = || terms().deadline;
        measure(&node, "executor", &async |router: &Router| router.routes().executors[0].ask(Poison, deadline()).await)
            .await;
        measure(&node, "raft", &async |router: &Router| router.routes().raft.ask(Poison, deadline()).await).await;
        measure(&node, "storage", &async |router: &Router| router.routes().storage.ask(Poison, deadline()).await).await;
        stop.store(true, Ordering::Relaxed);
        for flooder in flooders {
            flooder.join().unwrap();
        }
        println!("{} statements of the flood", sent.load(Ordering::Relaxed));
        assert!(sent.load(Ordering::Relaxed) > MAILBOX_MESSAGES_MAX as u64, "the mailboxes were full");
        node.stop().await;
    });
}
