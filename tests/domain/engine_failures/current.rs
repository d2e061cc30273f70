//! `CURRENT` cannot be put in its place: from then on nobody knows what it says, so the engine ends.

use super::*;

/// The steps by which `CURRENT` is put in its place.
const STEPS: [&str; 5] = ["create", "write", "sync", "rename", "sync the directory"];

/// Fails one of them, the first time after `begins`.
fn fail_current(disk: &Disk, step: &'static str, begins: impl Fn(Operation, &Path) -> bool + Send + Sync + 'static) {
    let (begun, renamed, failed) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
    disk.fail_where(Some(Arc::new(move |operation, path| {
        if begins(operation, path) {
            begun.store(true, Ordering::Relaxed);
        }
        let is_current = path.ends_with("CURRENT.tmp");
        let is_step = match operation {
            Operation::Create => is_current && step == "create",
            Operation::Write => is_current && step == "write",
            Operation::Sync => is_current && step == "sync",
            Operation::Name => is_current && step == "rename",
            Operation::SyncDir => {
                path.ends_with("state") && step == "sync the directory" && renamed.load(Ordering::Relaxed)
            }
            Operation::SetLen => false,
        };
        if operation == Operation::Name && is_current && begun.load(Ordering::Relaxed) {
            renamed.store(true, Ordering::Relaxed);
        }
        is_step && begun.load(Ordering::Relaxed) && !failed.swap(true, Ordering::Relaxed)
    })));
}

/// The engine has failed by name; the next one finds all rows, and seals and merges as ever.
fn check_that_current_is_fatal(mut world: World, db: Database, what: &str) {
    let told = failure(&db);
    assert!(told.message().contains(what) && told.message().contains("injected error"), "{told}");
    let db = world.restart(db);
    world.check(&db);
    let merges = of(&counters(&db).merges);
    for _ in 0..5 {
        world.seal_one(&db);
    }
    until(|| of(&counters(&db).merges) > merges);
    world.check(&db);
    let db = world.restart(db);
    world.check(&db);
}

#[test]
fn a_seal_that_cannot_switch_current_ends_the_engine_at_whichever_step() {
    for step in STEPS {
        let mut world = World::new();
        let db = world.create();
        world.seal_one(&db);
        world.insert(&db).unwrap();
        fail_current(&world.disk, step, |_, _| true);
        let error = seal(&db).unwrap_err();
        assert_eq!(error.kind(), Kind::Unavailable, "{step}: {error}");
        check_that_current_is_fatal(world, db, "sealing");
    }
}

#[test]
fn a_merge_that_cannot_switch_current_ends_the_engine_at_whichever_step() {
    for step in STEPS {
        let mut world = World::new();
        let db = world.create();
        for _ in 0..3 {
            world.seal_one(&db);
        }
        fail_current(&world.disk, step, |_, path| path.ends_with("000005.blk"));
        world.seal_one(&db);
        check_that_current_is_fatal(world, db, "merging");
    }
}
