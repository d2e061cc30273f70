//! Random histories with power cuts: what was synced is there, and what is there was appended.

use super::*;

/// What a log may hold: entries by index from 1, and the hard state.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    entries: Vec<Entry>,
    hard_state: Option<HardState>,
}

/// A log together with every state that a crash may leave.
struct Model {
    now: State,
    possible: Vec<State>,
    /// Asked of `trim`: entries from here on must be there.
    kept_from: u64,
}

impl Model {
    fn append(&mut self, new: &[Entry], hard_state: Option<&HardState>) {
        let mut truncated = self.now.clone();
        if let Some(first) = new.first() {
            truncated.entries.truncate(first.index.0 as usize - 1);
        }
        let mut with_state = truncated.clone();
        if hard_state.is_some() {
            with_state.hard_state = hard_state.cloned();
        }
        self.possible.extend([truncated, with_state.clone()]);
        for entry in new {
            with_state.entries.push(entry.clone());
            self.possible.push(with_state.clone());
        }
        self.now = with_state;
    }

    fn sync(&mut self) {
        self.possible = vec![self.now.clone()];
    }

    /// Takes what recovery found as the new present, after checking that it may be.
    fn adopt(&mut self, recovered: &Recovered, what: &str) {
        let found = content(&recovered.wal).unwrap_or_else(|error| panic!("{what}: {error}"));
        let first = recovered.first.0;
        assert!(first <= self.kept_from.max(1), "{what}: the log begins at {first}, {} was kept", self.kept_from);
        let fits = |state: &&State| {
            state.hard_state == recovered.hard_state && state.entries.get(first as usize - 1..) == Some(&found[..])
        };
        let Some(state) = self.possible.iter().find(fits) else {
            panic!(
                "{what}: {} entries from {first}, {:?}, fit none of {} states; synced were {}",
                found.len(),
                recovered.hard_state,
                self.possible.len(),
                self.possible[0].entries.len()
            );
        };
        self.now = state.clone();
        self.sync();
        assert_eq!(recovered.last.index.0, self.now.entries.len() as u64, "{what}");
        let term = self.now.entries.last().map_or(Term(0), |entry| entry.term);
        assert_eq!(recovered.last.term, term, "{what}");
        assert_eq!(recovered.previous.index.next(), recovered.first, "{what}");
    }
}

/// One random operation on log and model alike. The model learns of it first: a crash may come in between.
fn step(wal: &mut Wal, model: &mut Model, random: &mut Random) -> chronos::Result<()> {
    let last = model.now.entries.len() as u64;
    let known = model.now.hard_state.as_ref().map_or(1, |state| state.term.0);
    let term = model.now.entries.last().map_or(1, |entry| entry.term.0).max(known);
    match random.below(20) {
        0..=9 => {
            let count = random.below(6);
            let new: Vec<Entry> = (1..=count).map(|i| random_entry(last + i, term, random)).collect();
            let state = (random.below(5) == 0).then(|| random_state(term, random));
            model.append(&new, state.as_ref());
            wal.append(&new, state.as_ref())
        }
        10 if last > model.kept_from => {
            let from = model.kept_from.max(1) + random.below(last - model.kept_from);
            let new: Vec<Entry> =
                (from..=from + random.below(4)).map(|index| random_entry(index, term + 1, random)).collect();
            let state = random_state(term + 1, random);
            model.append(&new, Some(&state));
            wal.append(&new, Some(&state))
        }
        11 if last > model.kept_from => {
            model.kept_from += random.below(last - model.kept_from);
            wal.trim(LogIndex(model.kept_from))
        }
        12 => wal.pool().prepare_spare(&mut || Ok(())).map(|_| ()),
        _ => {
            wal.sync()?;
            model.sync();
            Ok(())
        }
    }
}

fn random_entry(index: u64, term: u64, random: &mut Random) -> Entry {
    let length = if random.below(30) == 0 { random.below(6000) } else { random.below(200) };
    let fill = random.next() as u8;
    entry(index, term, &vec![fill; length as usize])
}

fn random_state(term: u64, random: &mut Random) -> HardState {
    let vote = (random.below(2) == 0).then(|| random.next());
    HardState { term: Term(term), vote, membership: vec![7; random.below(60) as usize], ..HardState::default() }
}

/// Runs `steps` operations from a seed, with a crash at operation `stop` of the disk; then recovers, and goes on.
fn history(seed: u64, stop: u64, mode: Crash) -> bool {
    let what = format!("seed {seed}, stop {stop}, {mode:?}");
    let mut random = Random(seed * 2 + 1);
    let disk = Disk::new();
    let mut wal = create(&disk);
    let mut model = Model { now: State::default(), possible: vec![State::default()], kept_from: 1 };
    disk.stop_at(disk.operations() + stop);
    let finished = (0..40).all(|_| step(&mut wal, &mut model, &mut random).is_ok());
    // Twice: what a first recovery reported must survive a second crash, without a single append in between.
    let mut disk = disk.crash(seed ^ stop, mode);
    let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.adopt(&recovered, &what);
    disk = disk.crash(seed ^ stop, Crash::Lose);
    let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    model.adopt(&recovered, &what);
    let mut wal = recovered.wal;
    for _ in 0..15 {
        step(&mut wal, &mut model, &mut random).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(content(&wal).unwrap(), model.now.entries[wal.previous().index.0 as usize..], "{what}");
    let disk = disk.crash(seed ^ stop ^ 1, mode);
    model.adopt(&open(&disk).unwrap_or_else(|error| panic!("{what}, at last: {error}")), &what);
    finished
}

#[test]
fn every_synced_entry_survives_a_power_cut_at_every_operation() {
    for seed in 1..=10 {
        for mode in Crash::ALL {
            let mut stop = 0;
            while !history(seed, stop, mode) {
                stop += 1;
            }
            assert!(stop > 20, "the history ends after {stop} operations");
        }
    }
}

#[test]
fn long_histories_survive_power_cuts_now_and_then() {
    for seed in 1..=150u64 {
        let mut random = Random(seed * 77 + 5);
        let mut disk = Disk::new();
        let mut wal = create(&disk);
        let mut model = Model { now: State::default(), possible: vec![State::default()], kept_from: 1 };
        for round in 0..8 {
            let mode = Crash::ALL[random.below(4) as usize];
            let what = format!("seed {seed}, round {round}, {mode:?}");
            disk.stop_at(disk.operations() + random.below(60));
            while step(&mut wal, &mut model, &mut random).is_ok() {}
            if random.below(3) == 0 {
                // Only the process dies: the page cache stays as it is.
                disk.revive();
            } else {
                disk = disk.crash(random.next(), mode);
            }
            let recovered = open(&disk).unwrap_or_else(|error| panic!("{what}: {error}"));
            model.adopt(&recovered, &what);
            wal = recovered.wal;
        }
    }
}
