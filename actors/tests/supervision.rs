//! The supervisor with actors that do nothing but die: panics under load, floods, and the end of patience.

use crate::actors::child::{Watch, WhenHung};
use crate::actors::lifeline::{Lifeline, News};
use crate::actors::policy::Policy;
use crate::actors::route::{Ask, Deadline, Effect, MAILBOX_MESSAGES_MAX, Question, Route, route};
use crate::actors::supervisor::{End, Supervisor};
use crate::actors::tests::quiet;
use actix::{Actor, Context, Handler};
use chronos::clock::SystemClock;
use chronos::error::{Error, Kind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

/// Answers with its generation of lives, and does what it is told.
struct Dummy {
    life: usize,
    _lifeline: Lifeline,
}

impl Actor for Dummy {
    type Context = Context<Self>;
}

struct Ping;
impl Question for Ping {
    type Answer = usize;
}

struct Poison;
impl Question for Poison {
    type Answer = ();
    fn effect(&self) -> Effect {
        Effect::Write
    }
}

/// Holds the actor's thread until the sender is dropped.
struct Hold(std::sync::mpsc::Receiver<()>);
impl Question for Hold {
    type Answer = ();
}

impl Handler<Ask<Ping>> for Dummy {
    type Result = ();
    fn handle(&mut self, ask: Ask<Ping>, _: &mut Self::Context) {
        let (Ping, reply) = ask.open();
        reply.send(Ok(self.life));
    }
}

impl Handler<Ask<Poison>> for Dummy {
    type Result = ();
    fn handle(&mut self, ask: Ask<Poison>, _: &mut Self::Context) {
        let (Poison, _reply) = ask.open();
        panic!("poison");
    }
}

impl Handler<Ask<Hold>> for Dummy {
    type Result = ();
    fn handle(&mut self, ask: Ask<Hold>, _: &mut Self::Context) {
        let (Hold(until), reply) = ask.open();
        let _ = until.recv();
        reply.send(Ok(()));
    }
}

const WATCH: Watch = Watch { rank: 0, hang_after: Duration::from_secs(30), when_hung: WhenHung::NewArbiter };

fn patient() -> Policy {
    Policy { failures_max: usize::MAX, backoff_first: Duration::ZERO, ..Policy::default() }
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn supervisor(policy: Policy) -> Supervisor {
    quiet();
    Supervisor::new(policy, Arc::new(SystemClock), Box::new(|_| {}))
}

/// Adds an actor that counts its lives.
fn add(supervisor: &mut Supervisor, name: &'static str, rank: u8) -> (Route<Dummy>, Arc<AtomicUsize>) {
    let lives = Arc::new(AtomicUsize::new(0));
    let counted = lives.clone();
    let (slot, route) = route(name);
    supervisor
        .add(slot, Watch { rank, ..WATCH }, move |lifeline| {
            Ok(Dummy { life: counted.fetch_add(1, Ordering::SeqCst) + 1, _lifeline: lifeline })
        })
        .unwrap();
    (route, lives)
}

fn on_a_system<F: Future>(work: F) -> F::Output {
    actix::System::new().block_on(work)
}

#[test]
fn an_actor_is_served_again_after_each_of_hundreds_of_panics_under_load() {
    on_a_system(async {
        let mut supervisor = supervisor(patient());
        let (dummy, lives) = add(&mut supervisor, "dummy", 0);
        supervisor.start().await.unwrap();
        actix::spawn(supervisor.run());
        let stop = Arc::new(AtomicBool::new(false));
        let load = (0..8).map(|_| {
            let (dummy, stop) = (dummy.clone(), stop.clone());
            actix::spawn(async move {
                let mut answered = 0u32;
                while !stop.load(Ordering::Relaxed) {
                    match dummy.ask(Ping, soon()).await {
                        Ok(_) => answered += 1,
                        Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                    }
                }
                answered
            })
        });
        let load: Vec<_> = load.collect();
        for _ in 0..500 {
            let lost = dummy.ask(Poison, soon()).await.unwrap_err();
            // Opened and lost: a write is in doubt. Never opened, because its actor was just ending: nothing happened.
            assert!(matches!(lost.kind(), Kind::InDoubt | Kind::Unavailable), "{lost}");
            let again = loop {
                match dummy.ask(Ping, soon()).await {
                    Ok(life) => break life,
                    Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{error}"),
                }
            };
            assert!(again > 1);
        }
        stop.store(true, Ordering::Relaxed);
        for task in load {
            assert!(task.await.unwrap() > 0, "load was served between the panics");
        }
        assert!(lives.load(Ordering::SeqCst) > 400, "each opened poison ended a life");
    });
}

#[test]
fn an_end_restarts_what_was_started_after_it_and_nothing_else() {
    on_a_system(async {
        let mut supervisor = supervisor(patient());
        let (_first, first_lives) = add(&mut supervisor, "first", 0);
        let (second, second_lives) = add(&mut supervisor, "second", 1);
        let (_twin, twin_lives) = add(&mut supervisor, "twin", 1);
        let (third, third_lives) = add(&mut supervisor, "third", 2);
        supervisor.start().await.unwrap();
        actix::spawn(supervisor.run());
        second.ask(Poison, soon()).await.unwrap_err();
        while second.ask(Ping, soon()).await.ok() != Some(2) {}
        while third.ask(Ping, soon()).await.ok() != Some(2) {}
        let lives = [first_lives, second_lives, twin_lives, third_lives].map(|lives| lives.load(Ordering::SeqCst));
        assert_eq!(lives, [1, 2, 1, 2]);
    });
}

#[test]
fn a_full_mailbox_answers_overloaded_at_once_and_holds_its_limit() {
    on_a_system(async {
        let mut supervisor = supervisor(patient());
        let (dummy, _) = add(&mut supervisor, "dummy", 0);
        supervisor.start().await.unwrap();
        let (_hold, held) = std::sync::mpsc::channel();
        let _busy = dummy.ask_now(Hold(held));
        let asked: Vec<_> = (0..3 * MAILBOX_MESSAGES_MAX).map(|_| dummy.ask_now(Ping)).collect();
        let mut refused = 0;
        for mut answer in asked {
            match answer.try_recv() {
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), Kind::Overloaded);
                    refused += 1;
                }
                Ok(Ok(_)) => panic!("answered by an actor that is held"),
                Err(_) => {}
            }
        }
        assert!(refused >= 2 * MAILBOX_MESSAGES_MAX - 2, "{refused} were refused");
    });
}

#[test]
fn a_mailbox_holds_as_many_messages_as_it_was_told() {
    on_a_system(async {
        let mut supervisor = supervisor(patient()).with_mailbox(16);
        let (dummy, _) = add(&mut supervisor, "dummy", 0);
        supervisor.start().await.unwrap();
        let (_hold, held) = std::sync::mpsc::channel();
        let _busy = dummy.ask_now(Hold(held));
        let asked: Vec<_> = (0..100).map(|_| dummy.ask_now(Ping)).collect();
        let refused = asked.into_iter().filter_map(|mut answer| answer.try_recv().ok()).count();
        // One message above the limit is let through, and the held one may have left the mailbox or not.
        assert!((82..=85).contains(&refused), "{refused} were refused");
    });
}

#[test]
fn a_flood_does_not_delay_a_restart() {
    on_a_system(async {
        let mut supervisor = supervisor(patient());
        let (dummy, _) = add(&mut supervisor, "dummy", 0);
        supervisor.start().await.unwrap();
        actix::spawn(supervisor.run());
        let stop = Arc::new(AtomicBool::new(false));
        // From another thread, without waiting for answers: the mailbox is full all the time.
        let (flooded, flooding) = (dummy.clone(), stop.clone());
        let flood = std::thread::spawn(move || {
            while !flooding.load(Ordering::Relaxed) {
                drop(flooded.ask_now(Ping));
            }
        });
        for _ in 0..50 {
            while !dummy.ask(Poison, soon()).await.is_err_and(|error| error.kind() == Kind::InDoubt) {}
            // Served again: the answer may take its turn in the flood, but it comes well before the deadline.
            while dummy.ask(Ping, soon()).await.is_err() {}
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap();
    });
}

#[test]
fn what_no_handler_opened_is_told_that_nothing_happened() {
    on_a_system(async {
        let mut supervisor = supervisor(patient());
        let (dummy, _) = add(&mut supervisor, "dummy", 0);
        supervisor.start().await.unwrap();
        actix::spawn(supervisor.run());
        let (release, held) = std::sync::mpsc::channel();
        let _busy = dummy.ask_now(Hold(held));
        let first = dummy.ask_now(Poison);
        let second = dummy.ask_now(Poison);
        drop(release);
        assert!(first.await.is_err(), "opened: its answer is lost");
        assert_eq!(second.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    });
}

#[test]
fn a_caller_waits_for_the_next_life_up_to_its_deadline() {
    on_a_system(async {
        let (slot, route) = route::<Dummy>("dummy");
        let error = route.ask(Ping, Deadline::after(Duration::from_millis(5))).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable);
        let mut supervisor = supervisor(patient());
        supervisor.add(slot, WATCH, |lifeline| Ok(Dummy { life: 7, _lifeline: lifeline })).unwrap();
        let waiting = actix::spawn(async move { route.ask(Ping, soon()).await });
        supervisor.start().await.unwrap();
        assert_eq!(waiting.await.unwrap().unwrap(), 7);
    });
}

#[test]
fn an_actor_that_cannot_recover_at_boot_is_an_error_of_the_start() {
    on_a_system(async {
        let mut supervisor = supervisor(Policy::default());
        let (slot, _route) = route::<Dummy>("dummy");
        supervisor.add(slot, WATCH, |_| -> Result<Dummy> { Err(Error::damaged("000012.blk")) }).unwrap();
        assert_eq!(supervisor.start().await.unwrap_err().kind(), Kind::Damaged);
    });
}

#[test]
fn a_recovery_that_fails_counts_and_ends_the_process_at_last() {
    on_a_system(async {
        let mut supervisor = supervisor(Policy { backoff_first: Duration::from_millis(1), ..Policy::default() });
        let (slot, dummy) = route::<Dummy>("dummy");
        let first = AtomicBool::new(true);
        let once = move |lifeline| {
            if first.swap(false, Ordering::SeqCst) {
                Ok(Dummy { life: 1, _lifeline: lifeline })
            } else {
                panic!("poison")
            }
        };
        supervisor.add(slot, WATCH, once).unwrap();
        supervisor.start().await.unwrap();
        let running = actix::spawn(supervisor.run());
        dummy.ask(Poison, soon()).await.unwrap_err();
        assert!(matches!(running.await.unwrap(), End::GaveUp(_)));
    });
}

#[test]
fn a_recovery_whose_ground_has_gone_waits_for_its_restart_and_does_not_count() {
    on_a_system(async {
        // Not one failure is forgiven but the first actor's own two.
        let mut supervisor = supervisor(Policy { failures_max: 2, backoff_first: Duration::ZERO, ..Policy::default() });
        let (ground, _) = add(&mut supervisor, "ground", 0);
        let (slot, upper) = route::<Dummy>("upper");
        let (lower, lives) = (ground.clone(), AtomicUsize::new(0));
        let recover = move |lifeline| {
            let life = lives.fetch_add(1, Ordering::SeqCst) + 1;
            if life == 2 {
                // The ground goes while this one recovers on it.
                drop(lower.ask_now(Poison));
                return Err(Error::unavailable("the ground is restarting"));
            }
            Ok(Dummy { life, _lifeline: lifeline })
        };
        supervisor.add(slot, Watch { rank: 1, ..WATCH }, recover).unwrap();
        supervisor.start().await.unwrap();
        actix::spawn(supervisor.run());
        ground.ask(Poison, soon()).await.unwrap_err();
        while upper.ask(Ping, soon()).await.ok() != Some(3) {}
    });
}

#[test]
fn a_fatal_report_ends_it_and_a_shutdown_ends_all_actors() {
    on_a_system(async {
        let failing = supervisor(Policy::default());
        let news = failing.sender();
        news.send(News::Fatal(Error::damaged("fsync failed"))).unwrap();
        assert!(matches!(failing.run().await, End::GaveUp(error) if error.message() == "fsync failed"));

        let mut stopping = supervisor(Policy::default());
        let (dummy, _) = add(&mut stopping, "dummy", 0);
        stopping.start().await.unwrap();
        let (done, ended) = oneshot::channel();
        stopping.sender().send(News::Shutdown(done)).unwrap();
        assert!(matches!(stopping.run().await, End::Shutdown));
        ended.await.unwrap();
        assert!(!dummy.is_live());
    });
}

#[test]
fn a_hanging_actor_gets_a_new_thread_and_one_with_files_ends_the_process() {
    on_a_system(async {
        for when_hung in [WhenHung::NewArbiter, WhenHung::EndProcess] {
            let mut supervisor = supervisor(patient());
            let (slot, dummy) = route::<Dummy>("dummy");
            let watch = Watch { rank: 0, hang_after: Duration::from_millis(10), when_hung };
            supervisor.add(slot, watch, |lifeline| Ok(Dummy { life: 1, _lifeline: lifeline })).unwrap();
            supervisor.start().await.unwrap();
            let running = actix::spawn(supervisor.run());
            let (_hold, held) = std::sync::mpsc::channel();
            let _hangs = dummy.ask_now(Hold(held));
            match when_hung {
                // The first of them goes into the mailbox of the life that hangs.
                WhenHung::NewArbiter => {
                    while dummy.ask(Ping, Deadline::after(Duration::from_millis(100))).await.is_err() {}
                }
                WhenHung::EndProcess => assert!(matches!(running.await.unwrap(), End::GaveUp(_))),
            }
        }
    });
}

/// Names the test below to the process that it starts.
const CHILD: &str = "CHRONOS_TEST_SIX_FAILURES";

#[test]
fn the_sixth_failure_in_ten_seconds_ends_the_process_with_a_code() {
    if std::env::var_os(CHILD).is_some() {
        let end = on_a_system(async {
            let mut supervisor = supervisor(Policy { backoff_first: Duration::from_millis(1), ..Policy::default() });
            let (dummy, lives) = add(&mut supervisor, "dummy", 0);
            supervisor.start().await.unwrap();
            let mut running = actix::spawn(supervisor.run());
            loop {
                tokio::select! {
                    end = &mut running => {
                        assert_eq!(lives.load(Ordering::SeqCst), 6, "five restarts, and no sixth");
                        return end.unwrap();
                    }
                    _ = dummy.ask(Poison, soon()) => {}
                }
            }
        });
        let failed = crate::actors::exit_code(Ok(end)) == std::process::ExitCode::FAILURE;
        std::process::exit(if failed { 77 } else { 0 });
    }
    let name = "actors::tests::supervision::the_sixth_failure_in_ten_seconds_ends_the_process_with_a_code";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert_eq!(child.status.code(), Some(77), "{}", String::from_utf8_lossy(&child.stdout));
}
