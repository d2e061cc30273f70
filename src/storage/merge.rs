//! Merging sealed runs: fewer and larger ones, without what nobody can see any more. Space comes back here.
//!
//! A merge of neighbouring runs goes range by range. Each step takes the least keys of all inputs, writes about one file,
//! and makes one edit of `CURRENT`; between two steps the newer inputs begin where the merge stands.
//!
//! ```text
//!   newer   ........│NNNNNNNNNNNNNNN      only the part from here on still counts
//!   older   MMMMMMMM│OOOOOOOOOOOOOOO      merged files, then what is still to be merged
//!                   ^ a block of an input that reaches over this line is cut: its rest becomes a small file of its own
//! ```
//!
//! * The outcome is judged by the *birth state*, never by a later one: a replay must find all that its commands saw.
//! * Merged rows stand in the place of the oldest input: nothing newer holds that range any more but newer runs.
//! * A step that was begun is resumed from `CURRENT` alone: the runs that do not begin at the least place say where.
//! * What is merged is chosen by size. Runs of a like size are merged four at a time, so a row is rewritten about
//!   log4(runs' worth of data) times; and a file of which much is expired is rewritten by itself.

use crate::error::Result;
use crate::ids::KeyspaceId;
use crate::storage::current::{Current, SealedName};
use crate::storage::entry::{Place, prune, start};
use crate::storage::judge::{Judge, Verdict};
use crate::storage::keys::{Key, KeyRange};
use crate::storage::level::{Level, RangeDelete};
use crate::storage::rows::Rows;
use crate::storage::seal::{Lookup, RunWriter, Target, WriteReport, pass};
use crate::storage::sealed::{self, SealedRun};
use crate::storage::state::StateRecord;
use crate::storage::stream::Stream;
use std::ops::RangeInclusive;

/// Runs that may exist: each one is another level that a read looks into.
pub const RUNS_MAX: usize = 8;

/// Neighbours of a like size that are merged at once: fewer rewrite rows more often, more keep more levels around.
const FAN_IN: usize = 4;

/// Sizes are alike up to this ratio.
const LIKE_RATIO: u64 = 4;

/// A file is rewritten by itself once this share of its blocks' bytes can be left out unread: half, so that a byte
/// freed costs at most a byte written.
const WASTE_SHARE_MIN: u64 = 2;

/// What to merge next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Which runs of `CURRENT`, newest first.
    pub runs: RangeInclusive<usize>,
    /// Where the step begins.
    pub from: Place,
    /// Where it ends at the latest; none means at the end.
    pub to: Option<Place>,
}

/// One merge step, done but for `CURRENT`.
#[derive(Clone, Debug)]
pub struct Step {
    /// What `CURRENT` says next. To be stored, then the runs opened anew and swapped.
    pub next: Current,
    /// Files that `next` does not name any more: to be doomed once it is durable.
    pub obsolete: Vec<u32>,
    /// What was written.
    pub report: WriteReport,
}

/// Chooses what to merge: the merge that is under way; else too many runs of a like size; else a file that is mostly
/// waste; else, where the runs are as many as may be, the cheapest neighbours. None where all is well.
pub fn pick(current: &Current, runs: &[SealedRun], birth: &StateRecord) -> Option<Pick> {
    if let Some(newest) = current.runs.iter().position(|run| Current::is_partial(run)) {
        let partial = current.runs[newest..].iter().take_while(|run| Current::is_partial(run)).count();
        let from = current.runs[newest][0].from.clone();
        return Some(Pick { runs: newest..=newest + partial, from, to: None });
    }
    let whole = |runs: RangeInclusive<usize>| Pick { runs, from: start(), to: None };
    let sizes: Vec<u64> = runs.iter().map(SealedRun::bytes).collect();
    let alike = |sizes: &[u64]| {
        let (least, greatest) = (sizes.iter().min().copied(), sizes.iter().max().copied());
        least.zip(greatest).is_some_and(|(least, greatest)| greatest <= least.saturating_mul(LIKE_RATIO))
    };
    if let Some(newest) = sizes.windows(FAN_IN).position(alike) {
        return Some(whole(newest..=newest + FAN_IN - 1));
    }
    if let Some(pick) = wasteful_file(runs, birth) {
        return Some(pick);
    }
    if runs.len() < RUNS_MAX {
        return None;
    }
    let cost = |newest: &usize| sizes[*newest] + sizes[newest + 1];
    (0..runs.len() - 1).min_by_key(cost).map(|newest| whole(newest..=newest + 1))
}

/// A file of which a large share need not even be read to be left out.
fn wasteful_file(runs: &[SealedRun], birth: &StateRecord) -> Option<Pick> {
    let levels: Vec<Level> = runs.iter().map(|run| run.level.clone()).collect();
    for (i, run) in runs.iter().enumerate() {
        let judge = Judge::new(birth, &levels[i + 1..], hiding(&runs[..=i]));
        let mut bytes = vec![(0u64, 0u64); run.names.len()];
        for keyspace in run.level.manifest.keyspaces() {
            let keyspace_judge = judge.keyspace(keyspace);
            for entry in run.level.manifest.blocks(keyspace) {
                let file = run.names.partition_point(|name| (name.from.0, &name.from.1) <= (keyspace, &entry.first));
                let (all, waste) = &mut bytes[file.saturating_sub(1)];
                *all += u64::from(entry.bytes);
                if keyspace_judge.as_ref().is_none_or(|judge| judge.block(entry) == Verdict::Drop) {
                    *waste += u64::from(entry.bytes);
                }
            }
        }
        if let Some(file) = bytes.iter().position(|(all, waste)| *waste > 0 && waste * WASTE_SHARE_MIN >= *all) {
            let name = &run.names[file];
            return Some(Pick { runs: i..=i, from: name.from.clone(), to: name.to.clone() });
        }
    }
    None
}

/// The range deletes of these runs. Those of newer runs than the ones that are merged hide rows in these as well: the
/// rows can go at once, while the range delete stays where it is and goes on counting as their tombstone.
fn hiding(runs: &[SealedRun]) -> Vec<RangeDelete> {
    let mut deletes: Vec<RangeDelete> = runs.iter().flat_map(|run| run.level.range_deletes.iter().cloned()).collect();
    prune(&mut deletes);
    deletes
}

/// Merges one step: about one file's worth from `pick.from` on. `runs` are the open runs of `current`, all of them;
/// `birth` is the state at its birth. Files are drawn from `target.first_number`, which is at least
/// `current.next_number`, and are synced with their directory; the rest is the caller's: store `next`, swap, doom.
pub fn merge_step(
    target: Target<'_>,
    current: &Current,
    runs: &[SealedRun],
    birth: &StateRecord,
    pick: &Pick,
) -> Result<Step> {
    let inputs = &runs[pick.runs.clone()];
    let levels: Vec<&Level> = inputs.iter().map(|run| &run.level).collect();
    let older: Vec<Level> = runs[pick.runs.end() + 1..].iter().map(|run| run.level.clone()).collect();
    let judge = Judge::new(birth, &older, hiding(&runs[..=*pick.runs.end()]));
    // The newest input's record goes with the merged rows: a run is never older than what it holds.
    let deletes = judge.kept(&hiding(inputs));
    let deletes_kept = deletes.len();
    let mut writer = RunWriter::new(target, &judge, deletes, &inputs[0].state, pick.from.clone());
    let mut cut: Option<(Place, Vec<Option<Rows>>)> = None;
    for keyspace in keyspaces_of(&levels, pick) {
        let Some(keyspace_judge) = judge.keyspace(keyspace) else { continue };
        writer.begin(keyspace, &keyspace_judge.layout, Lookup::of(&levels, keyspace))?;
        let range = range_within(keyspace, pick);
        let mut stream = Stream::new(&keyspace_judge, levels.iter().copied(), keyspace, &range);
        if !pass(&mut stream, &levels, &keyspace_judge, &mut writer, pick.to.is_none())? {
            let at = stream.position().expect("a stream that has not ended has a position");
            cut = Some(((keyspace, at), stream.tails()?));
            break;
        }
    }
    let end = cut.as_ref().map_or_else(|| pick.to.clone(), |(place, _)| Some(place.clone()));
    let (names, mut report) = writer.finish(end.clone())?;
    let mut guard = Created { target, numbers: names.iter().map(|name| name.number).collect() };
    let mut rests = vec![None; inputs.len()];
    if let Some((place, tails)) = cut {
        for (input, tail) in tails.into_iter().enumerate() {
            let Some(tail) = tail else { continue };
            let first_number = guard.numbers.iter().max().map_or(target.first_number, |last| last + 1);
            let target = Target { first_number, ..target };
            let (rest, written) = write_rest(target, &inputs[input], birth, &place, tail)?;
            guard.numbers.push(rest.number);
            report.bytes += written.bytes;
            report.rows += written.rows;
            report.blocks_encoded += written.blocks_encoded;
            rests[input] = Some(rest);
        }
    }
    let next_number = guard.numbers.iter().max().map_or(current.next_number, |last| last + 1);
    guard.numbers.clear();
    let mut next = edit(current, pick, end.as_ref(), &names, rests, next_number.max(current.next_number));
    if report.rows == 0 && deletes_kept == 0 && pick.runs.start() == pick.runs.end() {
        close_gap(target, &mut next, pick)?;
    }
    Ok(Step { obsolete: current.obsolete(&next), next, report })
}

/// Removes files that a failed step leaves behind.
struct Created<'a> {
    target: Target<'a>,
    numbers: Vec<u32>,
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        for &number in &self.numbers {
            // A failure here costs space until the next start, which removes what CURRENT does not name.
            let _ = self.target.files.remove(&sealed::path(self.target.directory, number));
        }
    }
}

/// Keyspaces in the range of a step that some input has.
fn keyspaces_of(levels: &[&Level], pick: &Pick) -> Vec<KeyspaceId> {
    let mut keyspaces: Vec<KeyspaceId> = levels.iter().flat_map(|level| level.manifest.keyspaces()).collect();
    keyspaces.sort_unstable();
    keyspaces.dedup();
    keyspaces.retain(|keyspace| {
        let ends_after = *keyspace >= pick.from.0;
        ends_after && pick.to.as_ref().is_none_or(|to| (*keyspace, &Key::new(&[])) < (to.0, &to.1))
    });
    keyspaces
}

fn range_within(keyspace: KeyspaceId, pick: &Pick) -> KeyRange {
    let from = if pick.from.0 == keyspace { pick.from.1.clone() } else { Key::new(&[]) };
    let to = pick.to.as_ref().filter(|to| to.0 == keyspace).map(|to| to.1.clone());
    KeyRange { from, to }
}

/// Writes the rest of a block that was cut at `place` as a file of its own, in its own run. It reaches to the next
/// block, or to the end of the file that the block came from.
fn write_rest(
    target: Target<'_>,
    run: &SealedRun,
    birth: &StateRecord,
    place: &Place,
    tail: Rows,
) -> Result<(SealedName, WriteReport)> {
    let last = Key::new(tail.keys.get(tail.len() - 1));
    let after = KeyRange { from: last.successor(), to: None };
    let manifest = &run.level.manifest;
    let within = manifest.overlapping(place.0, &after).first().map(|entry| (place.0, entry));
    let beyond = || {
        let keyspace = manifest.keyspaces().find(|keyspace| *keyspace > place.0)?;
        Some((keyspace, manifest.blocks(keyspace).first()?))
    };
    let next = within.or_else(beyond).map(|(keyspace, entry)| (keyspace, entry.first.clone()));
    let holder = run.names.iter().find(|name| name.holds(place.0, &last)).expect("a run's files tile its keys");
    let to = match (next, &holder.to) {
        (Some(next), Some(end)) => Some(next.min(end.clone())),
        (Some(next), None) => Some(next),
        (None, end) => end.clone(),
    };
    // Nothing is judged: these rows belong to their run until the next step takes them.
    let judge = Judge::new(birth, &[], run.level.range_deletes.to_vec());
    let layout = birth.catalog.layout(place.0).expect("a keyspace that is merged has a layout");
    let limits = crate::storage::seal::Limits { file_bytes: u64::MAX, ..target.limits };
    let target = Target { limits, ..target };
    let mut writer = RunWriter::new(target, &judge, run.level.range_deletes.to_vec(), &run.state, place.clone());
    writer.begin(place.0, &layout, Lookup::of(&[&run.level], place.0))?;
    writer.rows(tail)?;
    let (mut names, report) = writer.finish(to)?;
    Ok((names.pop().expect("a writer writes at least one file"), report))
}

/// The next `CURRENT`: merged files in the oldest input, the others begin at `end`.
fn edit(
    current: &Current,
    pick: &Pick,
    end: Option<&Place>,
    merged: &[SealedName],
    mut rests: Vec<Option<SealedName>>,
    next_number: u32,
) -> Current {
    let (newest, oldest) = (*pick.runs.start(), *pick.runs.end());
    let mut runs = Vec::with_capacity(current.runs.len());
    for (i, run) in current.runs.iter().enumerate() {
        if !pick.runs.contains(&i) {
            runs.push(run.clone());
            continue;
        }
        let after = match end {
            Some(end) => begin_at(run, end, rests[i - newest].take()),
            None => Vec::new(),
        };
        let next: Vec<SealedName> = if i == oldest {
            let before = run.iter().filter(|name| name.from < pick.from).cloned();
            before.chain(merged.iter().cloned()).chain(after).collect()
        } else {
            after
        };
        if !next.is_empty() {
            runs.push(next);
        }
    }
    Current { runs, next_number, ..current.clone() }
}

/// Takes a file in which nothing is left out of its run: a neighbour's range reaches over its place. The last file of
/// the newest run stays, for its state record is the birth state.
fn close_gap(target: Target<'_>, next: &mut Current, pick: &Pick) -> Result<()> {
    let run = *pick.runs.start();
    let names = &mut next.runs[run];
    if names.len() == 1 && run == 0 {
        return Ok(());
    }
    // No file of a run that no merge stands in holds anything outside the range that counts.
    let at = names.iter().position(|name| name.from == pick.from).expect("the step's own file is in the run");
    let gone = names.remove(at);
    if at > 0 {
        names[at - 1].to = gone.to;
    } else if let Some(first) = names.first_mut() {
        first.from = gone.from;
    } else {
        next.runs.remove(run);
    }
    target.files.remove(&sealed::path(target.directory, gone.number))
}

/// A run from `end` on, the rest of a cut block in front.
fn begin_at(run: &[SealedName], end: &Place, rest: Option<SealedName>) -> Vec<SealedName> {
    let begin = match &rest {
        Some(rest) => rest.to.clone(),
        None => Some(end.clone()),
    };
    let mut next: Vec<SealedName> = rest.into_iter().collect();
    let Some(begin) = begin else { return next };
    for name in run.iter().filter(|name| name.to.as_ref().is_none_or(|to| *to > begin)) {
        let from = name.from.clone().max(begin.clone());
        next.push(SealedName { from, ..name.clone() });
    }
    next
}
