//! The room of an answer on its way.
//!
//! ```text
//!   rows that are not written | pieces that have not left      <= what it holds
//! ```
//!
//! It shrinks as rows become pieces and pieces leave, so a client that stops before the end keeps what it has not taken.

use crate::actors::transit::Hold;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tonic::codegen::Bytes;

/// The room, shared by an answer and those of its pieces that have not left yet.
#[derive(Clone)]
pub struct Room(Arc<Shared>);

struct Shared {
    content: Mutex<Content>,
    /// A piece has left.
    left: Notify,
}

struct Content {
    holds: Vec<Hold>,
    /// Bytes of rows that are not written yet.
    rows: usize,
    /// Bytes of pieces that have not left yet.
    pieces: usize,
}

/// Bytes on their way.
struct Piece {
    bytes: Vec<u8>,
    room: Room,
}

impl Room {
    /// The room of so many bytes of rows.
    pub fn new(holds: Vec<Hold>, rows: usize) -> Room {
        let content = Mutex::new(Content { holds, rows, pieces: 0 });
        Room(Arc::new(Shared { content, left: Notify::new() }))
    }

    /// So many bytes of rows are in the piece that comes next.
    pub fn written(&self, rows: usize) {
        // Shrinking comes with the piece, which has room too.
        self.lock().rows -= rows;
    }

    /// Bytes that leave when they are dropped.
    pub fn piece(&self, bytes: Vec<u8>) -> Bytes {
        let mut content = self.lock();
        content.pieces += bytes.len();
        content.shrink();
        drop(content);
        Bytes::from_owner(Piece { bytes, room: self.clone() })
    }

    /// What is not written never will be.
    pub fn no_more_rows(&self) {
        let mut content = self.lock();
        content.rows = 0;
        content.shrink();
    }

    /// Waits until all pieces have left; false where for `stall_max` none did.
    pub async fn all_left(&self, stall_max: Duration) -> bool {
        while self.lock().pieces > 0 {
            // A piece that leaves between the look and the wait is not missed: the notice is kept.
            if tokio::time::timeout(stall_max, self.0.left.notified()).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Gives all of it back, whatever has not left.
    pub fn give_back(&self) {
        self.lock().holds.clear();
    }

    /// No code panics while it holds this lock, so a poisoned one still guards whole numbers.
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn shrink(&mut self) {
        let mut needed = self.rows + self.pieces;
        for hold in &mut self.holds {
            hold.shrink_to(needed);
            needed -= hold.bytes();
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut content = self.room.lock();
        content.pieces -= self.bytes.len();
        content.shrink();
        drop(content);
        self.room.0.left.notify_one();
    }
}
