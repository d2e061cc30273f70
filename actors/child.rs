//! A child of the supervisor: one actor's factory, thread and present life.
//!
//! The supervisor knows nothing of what its children are; here an actor's type becomes two closures, one that starts a
//! life and publishes its address, one that withdraws the address.

use crate::actors::lifeline::{Generation, Lifeline};
use crate::actors::policy::Streak;
use crate::actors::route::Slot;
use actix::{Actor, Arbiter, ArbiterHandle, AsyncContext, Context};
use chronos::clock::Monotonic;
use chronos::error::{Error, Result};
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How an actor is watched.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Start order; the same number for actors that do not know each other.
    pub rank: u8,
    /// A thread silent for so long hangs.
    pub hang_after: Duration,
    /// What then.
    pub when_hung: WhenHung,
}

/// What to do about a thread that hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenHung {
    /// It owns files: only the end of the process frees them.
    EndProcess,
    /// A new thread.
    NewArbiter,
}

/// Starts one life.
pub type Launch = Box<dyn Fn(&ArbiterHandle, Lifeline) -> Started>;

/// The task of a life that has started.
pub type Started = Pin<Box<dyn Future<Output = Result<JoinHandle<()>>>>>;

/// Where an actor runs.
pub enum Thread {
    /// A thread of its own.
    Own(Arbiter),
    /// A thread that it shares with others, who are none of the supervisor's business.
    Shared(ArbiterHandle),
}

impl Thread {
    /// A thread of its own.
    pub fn new() -> Result<Thread> {
        Ok(Thread::Own(new_arbiter()?))
    }

    /// To run something there.
    pub fn handle(&self) -> ArbiterHandle {
        match self {
            Thread::Own(arbiter) => arbiter.handle(),
            Thread::Shared(handle) => handle.clone(),
        }
    }

    /// Is left for another one. One of its own ends when, and if, what it hangs in returns.
    pub fn leave(&self) {
        match self {
            Thread::Own(arbiter) => {
                arbiter.stop();
            }
            Thread::Shared(_) => {}
        }
    }
}

/// One actor, whatever it is at the moment.
pub struct Child {
    /// What logs call it.
    pub name: &'static str,
    /// How it is watched.
    pub watch: Watch,
    /// Its present life.
    pub generation: Generation,
    /// Where it runs.
    pub thread: Thread,
    /// Threads it was given in place of hanging ones.
    pub threads_made: u8,
    /// Makes the actor on the arbiter and, once it stands, publishes its address.
    pub launch: Launch,
    /// Withdraws the address.
    pub withdraw: Box<dyn Fn()>,
    /// The present life, while there is one.
    pub task: Option<JoinHandle<()>>,
    /// When it began.
    pub started: Monotonic,
    /// Failures in a row.
    pub streak: Streak,
    /// The last heartbeat.
    pub beat: Option<Beat>,
}

/// A heartbeat on its way.
pub struct Beat {
    /// When it left.
    pub sent: Monotonic,
    /// Set by the actor's thread.
    pub answered: Arc<AtomicBool>,
}

impl Child {
    /// A child that is not started yet. Its mailbox will hold `mailbox` messages.
    pub fn new<A, F>(slot: Slot<A>, watch: Watch, factory: F, thread: Thread, mailbox: usize, now: Monotonic) -> Child
    where
        A: Actor<Context = Context<A>>,
        F: Fn(Lifeline) -> Result<A> + Send + Sync + 'static,
    {
        let name = slot.name();
        let (slot, factory) = (Arc::new(slot), Arc::new(factory));
        let withdrawn = slot.clone();
        let launch = move |arbiter: &ArbiterHandle, lifeline: Lifeline| -> Started {
            let (sender, receiver) = oneshot::channel();
            let factory = factory.clone();
            let sent = arbiter.spawn_fn(move || {
                // A caller that waits no longer has given this life up: dropping it all ends it.
                let _ = sender.send(start_here(&*factory, lifeline, mailbox));
            });
            let slot = slot.clone();
            Box::pin(async move {
                if !sent {
                    return Err(Error::internal("its thread has ended"));
                }
                let started = receiver.await.map_err(|_| Error::internal("its thread ended while it started"))?;
                let (address, task) = started?;
                slot.set(Some(address));
                Ok(task)
            })
        };
        Child {
            name,
            watch,
            generation: Generation::default(),
            thread,
            threads_made: 0,
            launch: Box::new(launch),
            withdraw: Box::new(move || withdrawn.set(None)),
            task: None,
            started: now,
            streak: Streak::default(),
            beat: None,
        }
    }
}

type Life<A> = (actix::Addr<A>, JoinHandle<()>);

/// Makes the actor and runs it, on the thread that this is called on.
fn start_here<A, F>(factory: &F, lifeline: Lifeline, mailbox: usize) -> Result<Life<A>>
where
    A: Actor<Context = Context<A>>,
    F: Fn(Lifeline) -> Result<A>,
{
    let actor = catch_unwind(AssertUnwindSafe(|| factory(lifeline)))
        .map_err(|_| Error::internal("panicked while it recovered"))??;
    let mut context = Context::new();
    context.set_mailbox_capacity(mailbox);
    let address = context.address();
    // Spawned by hand, not by `run`: the handle lets the supervisor end it without a message that would queue.
    let task = actix::spawn(context.into_future(actor));
    Ok((address, task))
}

/// A thread for an actor.
pub fn new_arbiter() -> Result<Arbiter> {
    // `Arbiter::try_new` would do, but for its panic where no system runs; the supervisor's thread has one.
    Arbiter::try_with_tokio_rt(|| tokio::runtime::Builder::new_current_thread().enable_all().build())
        .map_err(|error| Error::io("start a thread", &error))
}
