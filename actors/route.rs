//! A route: the way to an actor that may be restarted at any moment.
//!
//! ```text
//!   caller ── Ask {question, reply} ──> Route ──> present address ──> mailbox (1,024) ──> handler
//!     ^                                   |  no live address: wait for the next, up to the deadline
//!     |                                   |  mailbox full: `overloaded`, at once
//!     +────────────── reply ──────────────+  never opened, actor gone: `unavailable`; opened: what the question says
//! ```
//!
//! Why not `Addr::send`: in actix every *clone* of an address may put one message above the limit, and `send` clones
//! when the mailbox is full. Here all callers share one address, and only `try_send` is used, so the limit holds.
//!
//! * A question that no handler opened had no effect, and its caller is told so, even when the actor died under it.
//! * A question that was opened and lost is `unavailable` where it only reads, `in doubt` where it may have written.
//! * Asking goes down: doors, executor, raft. What storage has to tell goes up by channels; there is no cycle of asks.

use actix::dev::ToEnvelope;
use actix::prelude::SendError;
use actix::{Actor, Addr, Context, Handler, Message};
use chronos::error::{Error, Result, SqlState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// Messages a mailbox holds. A thousand point statements are some 30 ms of work: more would only wait past its use.
pub const MAILBOX_MESSAGES_MAX: usize = 1024;

/// When an answer is no longer wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub fn after(wait: Duration) -> Deadline {
        Deadline(Instant::now() + wait)
    }

    /// How long is left; zero when it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The same, so much later.
    #[must_use]
    pub fn plus(self, wait: Duration) -> Deadline {
        Deadline(self.0 + wait)
    }

    /// The point in time.
    pub fn instant(self) -> Instant {
        self.0
    }
}

/// What a lost answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Asking changes nothing: ask again.
    None,
    /// A write, which may have happened.
    Write,
    /// A change of the group's members, which may have happened.
    Change,
    /// A transfer of its leadership, which may have happened.
    Transfer,
}

/// What a client does where a write may have happened or not.
pub const READ_FIRST: &str = "read before writing again";

/// What an operator does where a change of the group, or a transfer, may have happened or not.
pub const LOOK_AT_MEMBERS: &str = "look at the members before asking again: chronos admin members";

impl Effect {
    /// What may have happened, and how to find out; none where nothing may have.
    fn doubt(self, why: &str) -> Option<Error> {
        let (what, then) = match self {
            Effect::None => return None,
            Effect::Write => ("write", READ_FIRST),
            Effect::Change => ("change", LOOK_AT_MEMBERS),
            Effect::Transfer => ("transfer", LOOK_AT_MEMBERS),
        };
        Some(Error::in_doubt(format!("the outcome of the {what} is unknown: {why}, {then}")))
    }
}

/// Something that an actor can be asked.
pub trait Question: Send + 'static {
    /// What it answers.
    type Answer: Send + 'static;
    /// What is known when the answer gets lost.
    fn effect(&self) -> Effect {
        Effect::None
    }
}

/// Where the answer goes; it may travel on with the work.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<Result<T>>);

impl<T> Reply<T> {
    /// Answers; a caller that has gone away is no concern of the actor's.
    pub fn send(self, answer: Result<T>) {
        let _ = self.0.send(answer);
    }

    /// True where nobody waits any more: work for it can be left out.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }

    /// Waits until nobody waits any more.
    pub async fn abandoned(&mut self) {
        self.0.closed().await;
    }

    /// The channel itself, for parts that know nothing of actors.
    pub fn into_sender(self) -> oneshot::Sender<Result<T>> {
        self.0
    }
}

/// A question on its way.
pub struct Ask<Q: Question> {
    content: Option<(Q, Reply<Q::Answer>)>,
    depth: Option<Waiting>,
}

impl<Q: Question> Message for Ask<Q> {
    type Result = ();
}

impl<Q: Question> Ask<Q> {
    /// Takes the question out: from here on its effects may have happened.
    pub fn open(mut self) -> (Q, Reply<Q::Answer>) {
        self.content.take().expect("an ask is opened once: opening consumes it")
    }

    /// The same, with the place in the queue, for work that goes on after the handler has returned.
    pub fn open_and_stay(mut self) -> (Q, Reply<Q::Answer>, Option<Waiting>) {
        let depth = self.depth.take();
        let (question, reply) = self.content.take().expect("an ask is opened once: opening consumes it");
        (question, reply, depth)
    }
}

impl<Q: Question> Drop for Ask<Q> {
    fn drop(&mut self) {
        if let Some((_, reply)) = self.content.take() {
            reply.send(Err(Error::unavailable("the request was not begun: its actor restarts")));
        }
    }
}

/// A place in the count of what an actor has before it; given back on drop.
pub struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn take(depth: &Arc<AtomicUsize>) -> Waiting {
        depth.fetch_add(1, Ordering::Relaxed);
        Waiting(depth.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The supervisor's end of a route: it says where the actor is.
pub struct Slot<A: Actor> {
    name: &'static str,
    address: watch::Sender<Option<Arc<Addr<A>>>>,
}

type Address<A> = watch::Receiver<Option<Arc<Addr<A>>>>;

/// The callers' end: cheap to clone.
pub struct Route<A: Actor> {
    name: &'static str,
    address: Address<A>,
    depth: Arc<AtomicUsize>,
}

impl<A: Actor> Clone for Route<A> {
    fn clone(&self) -> Route<A> {
        Route { name: self.name, address: self.address.clone(), depth: self.depth.clone() }
    }
}

/// Both ends of a way to an actor that is not started yet.
pub fn route<A: Actor>(name: &'static str) -> (Slot<A>, Route<A>) {
    let (sender, receiver) = watch::channel(None);
    (Slot { name, address: sender }, Route { name, address: receiver, depth: Arc::default() })
}

impl<A: Actor> Slot<A> {
    /// What logs call the actor.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Publishes where the actor is, or that it is nowhere.
    pub fn set(&self, address: Option<Addr<A>>) {
        self.address.send_replace(address.map(Arc::new));
    }
}

impl<A: Actor<Context = Context<A>>> Route<A> {
    /// Asks and waits for the answer, at most until the deadline.
    pub async fn ask<Q: Question>(&self, question: Q, deadline: Deadline) -> Result<Q::Answer>
    where
        A: Handler<Ask<Q>>,
        A::Context: ToEnvelope<A, Ask<Q>>,
    {
        let effect = question.effect();
        let (sender, receiver) = oneshot::channel();
        let depth = Some(Waiting::take(&self.depth));
        self.deliver(Ask { content: Some((question, Reply(sender))), depth }, deadline).await?;
        match tokio::time::timeout_at(deadline.0, receiver).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.lost(effect)),
            Err(_) => Err(late(effect)),
        }
    }

    /// Asks the present life and hands the answer's channel out: for callers that wait elsewhere. An actor that is
    /// away or has too much before it has answered at once; a dropped answer is for the caller to judge.
    pub fn ask_now<Q: Question>(&self, question: Q) -> oneshot::Receiver<Result<Q::Answer>>
    where
        A: Handler<Ask<Q>>,
        A::Context: ToEnvelope<A, Ask<Q>>,
    {
        let (sender, receiver) = oneshot::channel();
        let ask = Ask { content: Some((question, Reply(sender))), depth: Some(Waiting::take(&self.depth)) };
        let present = self.address.borrow().clone();
        // Without an address the ask is dropped here, which answers `unavailable`.
        if let Some(present) = present
            && let Err(SendError::Full(mut refused)) = present.try_send(ask)
            && let Some((_, reply)) = refused.content.take()
        {
            reply.send(Err(self.overloaded()));
        }
        receiver
    }

    /// Waits until the actor has an address, at most until the deadline.
    pub async fn present(&self, deadline: Deadline) -> Result<()> {
        let mut address = self.address.clone();
        while !self.is_live() {
            self.next_life(&mut address, deadline).await?;
        }
        Ok(())
    }

    /// Puts a message into the mailbox of the present life, or of the next one where there is none.
    async fn deliver<M>(&self, mut message: M, deadline: Deadline) -> Result<()>
    where
        M: Message + Send + 'static,
        M::Result: Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let mut address = self.address.clone();
        loop {
            let present = address.borrow_and_update().clone();
            if let Some(present) = present {
                message = match present.try_send(message) {
                    Ok(()) => return Ok(()),
                    Err(SendError::Full(_)) => return Err(self.overloaded()),
                    Err(SendError::Closed(message)) => message,
                };
            }
            self.next_life(&mut address, deadline).await?;
        }
    }

    async fn next_life(&self, address: &mut Address<A>, deadline: Deadline) -> Result<()> {
        match tokio::time::timeout_at(deadline.0, address.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Error::unavailable("the node is stopping")),
            Err(_) => Err(Error::unavailable(format!("{} is restarting", self.name))),
        }
    }

    fn overloaded(&self) -> Error {
        Error::overloaded(format!("{} has too much before it, retry", self.name))
    }

    fn lost(&self, effect: Effect) -> Error {
        let doubt = effect.doubt(&format!("{} restarted under it", self.name));
        doubt.unwrap_or_else(|| Error::unavailable(format!("{} restarted under the request, retry", self.name)))
    }
}

impl<A: Actor> Route<A> {
    /// What logs call the actor.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// True where the actor has a present address. It may be gone a moment later.
    pub fn is_live(&self) -> bool {
        self.address.borrow().as_ref().is_some_and(|address| address.connected())
    }

    /// Questions in its mailbox or being answered.
    pub fn depth(&self) -> usize {
        self.depth.load(Ordering::Relaxed)
    }
}

/// What is known when the deadline comes before the answer.
pub fn late(effect: Effect) -> Error {
    let doubt = effect.doubt("its deadline passed before the answer");
    doubt.unwrap_or_else(|| Error::limit(SqlState::QUERY_CANCELED, "the request's deadline has passed"))
}
