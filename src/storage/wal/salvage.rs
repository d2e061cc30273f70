//! Salvage: what a member of a group may keep of a damaged log, and what it must know to keep its seat.
//!
//! A damaged log must not simply be cut: the member may have acknowledged what was lost, and a majority may have
//! counted on it (CTRL, "Protocol-Aware Recovery", FAST'18). It may stay if it knows its term and vote, and how far
//! its log reached; then it is quarantined until it has fetched that far again.
//!
//! ```text
//!   segment 7        segment 8               segment 9
//!   |h|b|b|b|b|      |h|b|XX|b|b|            |h|b|b|B|
//!    '---- kept -------'   '-- not kept ------'     ^ the last batch: how far the log reached, and how many hard
//!         copied into segment 10, marked restart      states there were, so that a lost one is noticed
//! ```
//!
//! * Term and vote are known where the newest hard state that can be read is the newest that was written.
//! * The quarantine, and what is kept, are durable before anything of the old log is let go: where the others are damaged
//!   too, it may be all that is left (`storage::engine::claim`).

use super::batch::{Body, HEADER_BYTES, Header, Reading};
use super::recovery::{Listing, Log, Opened, check};
use super::roll::Continuity;
use super::scan::{At, Scan};
use super::{HardState, Recovered, Survey, Wal, WalOptions};
use crate::error::{Error, Kind, Result};
use crate::ids::LogIndex;
use crate::storage::files::{Files, Open};
use std::path::Path;
use std::sync::Arc;

/// Entries copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A log up to this size is copied into one segment, whose offsets have 32 bits; batches may be cut anew on the way. Of a
/// larger one, far above what is kept by default, a crash in the midst of it costs the part that is not copied yet.
const WHOLE_BYTES_MAX: u64 = 3 << 30;

impl Wal {
    /// The newest hard state that a log on disk tells of, without opening it: nothing is changed.
    pub fn last_words(files: &dyn Files, directory: &Path) -> Result<HardState> {
        let listing = Listing::read(files, directory)?;
        let opened = listing.segments.into_iter().map(|(sequence, path)| Opened::open(files, sequence, path));
        let opened: Vec<Opened> = opened.filter_map(Result::ok).collect();
        let last = opened.last().map(|last| Tail::read(files, last)).transpose()?;
        last.map(|tail| tail.hard_state)
            .ok_or_else(|| Error::damaged(format!("{} holds no log segment that can be read", directory.display())))
    }

    /// What a log at rest holds, damaged or not, as far as [`Wal::salvage`] would keep it: nothing is changed.
    pub fn survey(files: &dyn Files, directory: &Path) -> Result<Survey> {
        let damage = match check(files, directory) {
            Err(error) if error.kind() == Kind::Damaged => error,
            checked => {
                let log = checked?;
                let (last, hard_state) = (log.last(), log.hard_state.clone().unwrap_or_default());
                let reached = hard_state.quarantined_until.map_or(last.index, |until| until.max(last.index));
                return Ok(Survey { hard_state, last, reached, damage: None });
            }
        };
        let segments = Listing::read(files, directory)?.segments;
        let mut opened: Vec<Result<Opened>> =
            segments.into_iter().map(|(sequence, path)| Opened::open(files, sequence, path)).collect();
        let tail = match opened.last() {
            Some(Ok(last)) => Tail::read(files, last)?,
            Some(Err(error)) => return Err(seat_lost(error)),
            None => return Err(damage),
        };
        opened.drain(..opened.iter().rposition(restarts).unwrap_or(0));
        let last = Log::before_damage(files, &opened, Log::read)?.last();
        let reached = tail.hard_state.quarantined_until.max(Some(tail.last)).unwrap_or(tail.last);
        Ok(Survey { hard_state: tail.hard_state, last, reached, damage: Some(damage) })
    }

    /// Opens a damaged log: what lies before the damage is kept, and the hard state says until where the member is
    /// quarantined. Refused where term, vote or the old last index cannot be known: such a member must come back as a
    /// new one. A log without damage is opened as ever, and so, in vain, is one whose hard state is not `admitted`: what a
    /// node alone has lost, nobody brings back.
    pub fn salvage(
        files: Arc<dyn Files>,
        directory: &Path,
        options: WalOptions,
        admitted: impl FnOnce(&HardState) -> bool,
    ) -> Result<Recovered> {
        let damaged = match Wal::open(files.clone(), directory, options) {
            Err(error) if error.kind() == Kind::Damaged => error,
            opened => return opened,
        };
        let mut listing = Listing::read(&*files, directory)?;
        let mut opened: Vec<Result<Opened>> = std::mem::take(&mut listing.segments)
            .into_iter()
            .map(|(sequence, path)| {
                listing.abandoned.push(path.clone());
                Opened::open(&*files, sequence, path)
            })
            .collect();
        let known = opened.iter().rev().find_map(|segment| segment.as_ref().ok()?.birth.hard_state.clone());
        let tail = match opened.last() {
            Some(Ok(last)) => Tail::read(&*files, last).map(|tail| (last.birth.sequence, tail)),
            Some(Err(error)) => Err(seat_lost(error)),
            None => return Err(damaged),
        };
        let newest = tail.as_ref().ok().map(|(_, tail)| tail.hard_state.clone()).or(known);
        if !admitted(&newest.unwrap_or_default()) {
            return Err(damaged);
        }
        let (sequence, tail) = tail?;
        opened.drain(..opened.iter().rposition(restarts).unwrap_or(0));
        let kept = Log::before_damage(&*files, &opened, Log::take)?;
        let mut hard_state = tail.hard_state;
        hard_state.quarantined_until = hard_state.quarantined_until.max(Some(tail.last));

        let nothing = Listing { segments: Vec::new(), abandoned: Vec::new(), spares: Vec::new() };
        let source = Wal::new(files.clone(), directory, options, kept, nothing)?;
        let mut wal = Wal::new(files, directory, options, Log::default(), listing)?;
        wal.next_sequence = sequence + 1;
        let begun = wal.prepare_segment(source.previous(), Continuity::Restart, Some(&hard_state))?;
        // Once it has its name, what was there before does not count: so it has all of that first, as one segment.
        let fits = source.statistics().bytes <= WHOLE_BYTES_MAX;
        if !fits {
            wal.name_segment(&begun)?;
        }
        wal.enter_segment(begun.clone())?;
        if fits {
            wal.options.segment_bytes = u64::from(u32::MAX);
        }
        let mut next = source.previous().index.next();
        while next <= source.last().index {
            let portion = source.read(next, COPY_BYTES)?;
            next = portion.last().map_or(source.last().index, |entry| entry.index).next();
            wal.append(&portion, None)?;
        }
        wal.sync()?;
        wal.options = options;
        if fits {
            wal.name_segment(&begun)?;
        }
        Ok(wal.recovered())
    }
}

/// What the last segment says about the end of the log.
struct Tail {
    hard_state: HardState,
    last: LogIndex,
}

impl Tail {
    /// Reads every batch of the segment that can be read, damaged ones between them or not.
    fn read(files: &dyn Files, opened: &Opened) -> Result<Tail> {
        let file = files.open(&opened.path, Open::Read)?;
        let mut scan = Scan::new(&*file, file.len()?);
        let seed = opened.birth.seed();
        let mut hard_state = (0, opened.birth.hard_state.clone());
        let (mut newest, mut bodiless, mut proven) = (None::<Header>, Vec::new(), 0);
        let mut at = opened.start;
        while scan.bytes(at, HEADER_BYTES)?.is_some() {
            let Reading::Valid(header) = scan.header(at, seed)? else {
                at += super::batch::ALIGNMENT as u64;
                continue;
            };
            proven = proven.max(u64::from(header.durable_end));
            if let At::Batch(header, body) = scan.batch(at, seed)? {
                if let Some((Some(found), _)) = Body::open(&header, body) {
                    hard_state = (header.hard_states, Some(found));
                }
                newest = Some(header);
                at += header.size();
            } else {
                bodiless.push((at, header));
                at += super::batch::ALIGNMENT as u64;
            }
        }
        // A header without its body counts where it is proven to have been whole; else it is a torn tail.
        let torn = bodiless.into_iter().filter(|(at, _)| *at < proven).map(|(_, header)| header);
        let newest = torn.chain(newest).max_by_key(|header| header.batch);
        let (count, last) = newest
            .map_or((0, opened.birth.previous.index), |header| (header.hard_states, header.next_index().previous()));
        if count != hard_state.0 {
            let what = "a term and vote were written that can no longer be read";
            return Err(seat_lost(&super::segment::damaged(&opened.path, opened.start, what)));
        }
        Ok(Tail { hard_state: hard_state.1.unwrap_or_default(), last })
    }
}

impl Log {
    /// Reads the segments up to the first damage, each with `take`.
    fn before_damage(
        files: &dyn Files,
        opened: &[Result<Opened>],
        take: impl Fn(&mut Log, &dyn Files, &Opened, Option<u64>) -> Result<u64>,
    ) -> Result<Log> {
        let mut log = Log::default();
        for (at, segment) in opened.iter().enumerate() {
            let Ok(segment) = segment else { break };
            let end = match opened.get(at + 1) {
                Some(Ok(next)) => Some(next.birth.former_end),
                Some(Err(_)) | None => None,
            };
            match take(&mut log, files, segment, end) {
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Damaged => break,
                Err(error) => return Err(error),
            }
        }
        if let Some(segment) = log.segments.last() {
            log.terms.truncate(segment.last);
        }
        Ok(log)
    }
}

/// True where nothing before the segment counts.
fn restarts(segment: &Result<Opened>) -> bool {
    segment.as_ref().is_ok_and(|segment| segment.birth.restart)
}

fn seat_lost(error: &Error) -> Error {
    Error::damaged(error.message().to_string())
        .hint("term and vote are lost with it: remove this member and add it again with an empty directory")
}
