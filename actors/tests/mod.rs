//! The daemon from inside: what only a test that can reach an actor can show.

mod backups;
mod damage;
mod engine;
mod files;
mod forward;
mod janitor;
mod latency;
mod metrics;
pub mod node;
pub mod patience;
mod streams;
mod supervision;

/// What a panic says that a test asked for. Hundreds of them would bury a real one, so only others are shown.
const EXPECTED: &str = "poison";

/// Silences expected panics.
fn quiet() {
    std::panic::set_hook(Box::new(|panic| {
        if panic.payload_as_str() != Some(EXPECTED) {
            eprintln!("{panic}");
        }
    }));
}
