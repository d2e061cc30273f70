//! The sync actor: knows how far the sync target is behind.
//!
//! No target can be configured in this version: a node neither delivers to one nor receives as one, and the service
//! says so. The status is served all the same, since operators' tools ask every node for it.
//!
//! Restart: nothing to rebuild.

use crate::actors::lifeline::Lifeline;
use crate::actors::messages::{Receive, SyncProgress, SyncReport};
use crate::actors::published::Published;
use crate::actors::route::Ask;
use actix::{Actor, Context, Handler};
use chronos::error::Error;
use std::sync::Arc;

/// Answers for the queue to the sync target.
pub struct Sync {
    published: Arc<Published>,
    _lifeline: Lifeline,
}

impl Sync {
    /// Builds the actor. Boot and restart both come here.
    pub fn recover(published: Arc<Published>, lifeline: Lifeline) -> Sync {
        // Nothing is queued, so nothing waits and nothing failed.
        published.set_sync(SyncReport::default());
        Sync { published, _lifeline: lifeline }
    }
}

impl Actor for Sync {
    type Context = Context<Self>;
}

impl Handler<Ask<SyncProgress>> for Sync {
    type Result = ();

    fn handle(&mut self, ask: Ask<SyncProgress>, _: &mut Self::Context) {
        let (SyncProgress, reply) = ask.open();
        reply.send(Ok((*self.published.sync()).clone()));
    }
}

impl Handler<Ask<Receive>> for Sync {
    type Result = ();

    fn handle(&mut self, ask: Ask<Receive>, _: &mut Self::Context) {
        let (Receive, reply) = ask.open();
        reply.send(Err(Error::unsupported("this node is no sync target: receiving operations from edges is")));
    }
}
