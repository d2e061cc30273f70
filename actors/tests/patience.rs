//! Waiting in a test for what another thread or a timer does: the one place that sleeps, and it gives up.

use crate::actors::route::Deadline;
use std::time::Duration;

/// How long a test waits for something that takes milliseconds: a busy machine is slow, and one that hangs is to be told
/// from it.
const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks: nothing beside what is waited for, and others get the processor.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until something is so; fails where that is not soon.
#[track_caller]
pub fn until(condition: impl AsyncFn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Deadline::after(PATIENCE);
        while !condition().await {
            assert!(!deadline.left().is_zero(), "{caller}: waited for {PATIENCE:?} in vain");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
