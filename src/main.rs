//! The one binary: the command line, and behind `chronos node` the daemon.
//!
//! ```text
//! main ── cli ──┬── node ──────────────────> actors (the daemon)
//!               ├── client, import, export, bench ──gRPC──> a node
//!               └── single-node, snapshot, --data-dir ────> the embedded engine of the library
//! ```

// Mounted here, so that nothing in the library can reach what waits.
#[path = "../actors/mod.rs"]
mod actors;
mod allocator;
mod cli;

fn main() -> std::process::ExitCode {
    allocator::settle();
    cli::main()
}
