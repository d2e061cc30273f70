//! Hashing the content: a scan of everything, on a thread of its own that gives way to all others.
//!
//! ```text
//!   /status ──> known at the newest position? ──yes──> that
//!                  │ no
//!                  └──> a thread hashes already, or has only just? ──yes──> the last one that is known
//!                          │ no
//!                          └──> a thread ──> published, with its position
//! ```
//!
//! * Whoever asks is shown the newest hash that there is, with its position: a large database takes minutes for one.
//! * What the view keeps from being deleted has limits, as for a statement: beyond them this hash is given up. It may take
//!   longer than a statement.
//! * None is begun beside one that copies are compared by, one at a time, and after each a rest of several times as long: a scrape every second must not keep a large
//!   database reading itself for ever.

use super::Janitor;
use crate::actors::messages::{Content, Hashed};
use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use chronos::clock::{Clock, Monotonic};
use chronos::error::{Error, Result, SqlState};
use chronos::storage::content_hash::content_hash;
use chronos::storage::view::View;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tracing::{error, info};

/// How much hashing gives way to other threads of this machine, as `nice` counts.
const NICE: i32 = 10;

/// The longest pause after a step of hashing.
const STEP_PAUSE_MAX: Duration = Duration::from_millis(50);

/// The rest after a hash that somebody asked for, in times of what it took: so it has a fifth of a thread at most.
const REST: u32 = 4;

/// The rest after one that failed, as over a damaged block: it would fail again, with a line in the log each time.
const REST_AFTER_FAILURE: Duration = Duration::from_mins(1);

/// A thread that hashes; it ends early once this is dropped.
pub(super) struct Hashing(Arc<AtomicBool>);

impl Drop for Hashing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What is done for those who ask.
#[derive(Default)]
pub(super) struct Fingerprint {
    hashing: Option<Hashing>,
    rests_until: Monotonic,
}

impl Janitor {
    /// Has the newest view hashed, where that is not known and nothing speaks against it now.
    pub(super) fn fingerprint(&mut self, context: &mut Context<Janitor>) -> Hashed {
        let view = self.lent.handle.patient_view();
        if self.seed.published.content().is_some_and(|known| known.index == view.version) {
            return Hashed::Present;
        }
        if self.fingerprint.hashing.is_some() || self.is_comparing() {
            return Hashed::UnderWay;
        }
        let begun = self.seed.clock.monotonic();
        if begun < self.fingerprint.rests_until {
            return Hashed::Resting;
        }
        let Some((hashing, hashed)) = hash(view, self.seed.clock.clone()) else { return Hashed::Resting };
        self.fingerprint.hashing = Some(hashing);
        let hashed = hashed.into_actor(self).map(move |hashed, janitor, _| {
            let now = janitor.seed.clock.monotonic();
            let rest = now.saturating_sub(begun) * REST;
            let rest = match told(hashed) {
                Some(newest) => {
                    janitor.seed.published.set_content(newest);
                    rest
                }
                None => rest.max(REST_AFTER_FAILURE),
            };
            janitor.fingerprint = Fingerprint { hashing: None, rests_until: now + rest };
        });
        context.spawn(hashed);
        Hashed::UnderWay
    }
}

/// Hashes what a view shows, on a thread that gives way to all others; none where there can be no thread.
pub(super) fn hash(view: View, clock: Arc<dyn Clock>) -> Option<(Hashing, oneshot::Receiver<Result<Content>>)> {
    let is_wanted = Arc::new(AtomicBool::new(true));
    let (wanted, (done, hashed)) = (is_wanted.clone(), oneshot::channel());
    let work = move || {
        // Where it is refused this runs like everything else.
        let _ = rustix::process::nice(NICE);
        let step = Cell::new(clock.monotonic());
        let go_on = || {
            // As long as the step before took, the disk is left to others.
            let took = clock.monotonic().saturating_sub(step.get());
            std::thread::park_timeout(took.min(STEP_PAUSE_MAX));
            step.set(clock.monotonic());
            if wanted.load(Ordering::Acquire) { Ok(()) } else { Err(Error::unavailable("nobody asks any more")) }
        };
        let hash = content_hash(&view, &go_on).map(|hash| Content { index: view.version, hash });
        // A janitor that is gone has a successor, which is asked again.
        let _ = done.send(hash);
    };
    if let Err(error) = std::thread::Builder::new().name("content-hash".to_string()).spawn(work) {
        error!(%error, "cannot start a thread to hash the content");
        return None;
    }
    Some((Hashing(is_wanted), hashed))
}

/// What a thread has found out; where it is nothing the log says so.
pub(super) fn told(hashed: std::result::Result<Result<Content>, oneshot::error::RecvError>) -> Option<Content> {
    match hashed {
        Ok(Ok(content)) => return Some(content),
        Ok(Err(error)) if error.sqlstate() == SqlState::SNAPSHOT_TOO_OLD => {
            info!("the content is not hashed: what was written meanwhile is too much to keep its former state beside");
        }
        // A damaged block was told of by whoever met it.
        Ok(Err(error)) => error!(%error, "the content could not be hashed"),
        Err(_) => error!("the thread that hashes the content has ended"),
    }
    None
}
