//! A lifeline: how the supervisor learns that an actor ended, whatever ended it.
//!
//! actix tells nobody when a handler panics: the actor is dropped, and that is all. So each actor holds a lifeline,
//! and its `Drop`, which runs in a panic too, is the report.
//!
//! * One life, one report: the channel holds at most one message for each life that was started.
//! * A report names its generation, so the end of a life that was already replaced changes nothing.

use tokio::sync::mpsc;

/// Counts the lives of one actor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

/// Position of an actor among the supervisor's children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildId(pub usize);

/// How a life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A handler panicked.
    Panicked,
    /// The actor stopped, or its task was cancelled.
    Stopped,
}

/// What the supervisor is told.
#[derive(Debug)]
pub enum News {
    /// A life ended.
    Exited {
        /// Whose.
        child: ChildId,
        /// Which one.
        generation: Generation,
        /// How.
        ending: Ending,
    },
    /// Something that no restart mends, a failed fsync first of all: the process must end.
    Fatal(chronos::Error),
    /// The process is to end well; answered when all actors have.
    Shutdown(tokio::sync::oneshot::Sender<()>),
}

/// Held by an actor for as long as it lives.
#[derive(Debug)]
pub struct Lifeline {
    child: ChildId,
    generation: Generation,
    // Unbounded, but each life sends once and lives are started one at a time.
    news: mpsc::UnboundedSender<News>,
}

impl Lifeline {
    /// A lifeline for one life of one child.
    pub fn new(child: ChildId, generation: Generation, news: mpsc::UnboundedSender<News>) -> Lifeline {
        Lifeline { child, generation, news }
    }

    /// Reports what no restart mends: the process is to end.
    pub fn fatal(&self, error: chronos::Error) {
        // Without a supervisor the process is ending anyway.
        let _ = self.news.send(News::Fatal(error));
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        let ending = if std::thread::panicking() { Ending::Panicked } else { Ending::Stopped };
        // Without a supervisor the process is ending anyway.
        let _ = self.news.send(News::Exited { child: self.child, generation: self.generation, ending });
    }
}
