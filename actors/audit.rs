//! The audit line: which statements were asked for, by whom.
//!
//! ```text
//! audit_sql user=anna role=Admin sql=INSERT INTO t VALUES (1)
//! audit_admin user=- role=Admin action=add-node id="node4" address="10.0.0.4:8000" role=""
//! ```
//!
//! * The target of the lines is `chronos_audit`, so `log.level = "info,chronos_audit=off"` is a log without them.
//! * They are at INFO where tokens or certificates say who may ask. Where nobody is asked who he is, there is nothing to
//!   hold against anybody and a line a statement would cost what a statement does: they are at DEBUG then.
//! * A statement has its line before it runs, refused ones too; what became of it is in its answer.
//! * What operators do to a group or take out of it has its line at INFO always, for that is rare: on the node that was
//!   asked, and, with the role Peer, on the leader that it was handed to.
//! * A line stays one line of bounded length, see `chronos::sql::outline`.

use crate::actors::auth::{Caller, Guard};
use chronos::sql::outline::outline;
use tracing::{debug, enabled, info};

/// What the lines are filtered by.
macro_rules! target {
    () => {
        "chronos_audit"
    };
}

/// Characters of an operator's request in its line: more than any that is valid has.
const ACTION_CHARS_MAX: usize = 512;

/// Bytes of a statement in its line: all of what people write by hand, and the beginning of what programs send.
const SQL_BYTES_MAX: usize = 2048;

/// Writes the line of something that an operator asks for; whatever it quotes must be escaped.
pub fn audit_admin(caller: &Caller, action: &str) {
    let (user, role) = (caller.user(), caller.role);
    let action: String = action.chars().take(ACTION_CHARS_MAX).collect();
    info!(target: target!(), "audit_admin user={user} role={role} action={action}");
}

/// Writes a statement's line.
pub fn audit(guard: &Guard, caller: &Caller, sql: &str) {
    let is_known = guard.tls().is_some() || guard.asks_for_tokens();
    let is_wanted = if is_known {
        enabled!(target: target!(), tracing::Level::INFO)
    } else {
        enabled!(target: target!(), tracing::Level::DEBUG)
    };
    if !is_wanted {
        return;
    }
    let (user, role) = (caller.user(), caller.role);
    let sql = outline(sql, SQL_BYTES_MAX, guard.audited());
    if is_known {
        info!(target: target!(), "audit_sql user={user} role={role} sql={sql}");
    } else {
        debug!(target: target!(), "audit_sql user={user} role={role} sql={sql}");
    }
}
