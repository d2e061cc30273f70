//! Places beyond what clients may fill: for other nodes, and to tell clients why they are refused.
//!
//! ```text
//!   limits.connections are open ── a reserved place is free? ──no──> refused
//!                                      | yes
//!                                      v
//!   served on trial ── a call that is let in as a peer's, within [`TRIAL`] ──> it stays
//!                   └─ any other call is refused, and nothing at all ends it
//! ```
//!
//! Clients hold all connections where somebody opens them and keeps them; a member that comes back then must not stand
//! before a full door. Who it is shows only in its first call, so a place is given to whoever comes, for a moment.
//!
//! * A client is refused in his first call, by the name of the limit: a connection that is only closed tells him no more
//!   than that of a node that has just died. So a node without a group has such places too.
//! * Whoever opens connections without end takes these too, for a moment each: a member then comes in between two of them.

use crate::actors::auth::Role;
use chronos::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Reserved places: each other member of a large group has a link, a channel for statements and one for copies, and those
/// that are on trial stand beside them.
const PLACES_MAX: usize = 64;

/// How long a connection on such a place may take to its first call as a peer: a handshake and some round trips.
pub const TRIAL: Duration = Duration::from_secs(2);

/// What a client is told.
const FULL: &str = "limits.connections is reached: end connections that are idle, ask another node, or raise the limit";

/// The places of one door.
#[derive(Default)]
pub struct Reserve {
    taken: Arc<AtomicUsize>,
}

impl Reserve {
    /// A place, where there is one.
    pub fn take(&self) -> Option<Place> {
        let enter = |taken: usize| (taken < PLACES_MAX).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(Place { is_peer: AtomicBool::new(false), taken: self.taken.clone() })
    }

    /// How many are taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed) as u64
    }
}

/// A reserved place that a connection has.
#[derive(Debug)]
pub struct Place {
    is_peer: AtomicBool,
    taken: Arc<AtomicUsize>,
}

impl Place {
    /// A call of this role has been let in over the connection.
    ///
    /// # Errors
    ///
    /// 53300, retryable, for who is no peer.
    pub fn admit(&self, role: Role) -> Result<()> {
        match role {
            Role::Peer => {
                self.is_peer.store(true, Ordering::Relaxed);
                Ok(())
            }
            Role::Admin | Role::ReadOnly | Role::None if self.is_peer() => Ok(()),
            Role::Admin | Role::ReadOnly | Role::None => Err(Error::overloaded(FULL)),
        }
    }

    /// True once a peer's call has come over it.
    pub fn is_peer(&self) -> bool {
        self.is_peer.load(Ordering::Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::Relaxed);
    }
}
