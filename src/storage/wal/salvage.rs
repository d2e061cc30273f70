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
//! * What sealed files cover is not needed of the log: reading begins in the last segment that reaches back to it. Damage
//!   in older ones, which are kept for peers, costs those entries and no quarantine. Damage in that one does, even before
//!   the entries that are needed: a batch counts only with all of its segment before it.
//! * Term and vote are known where the newest hard state that can be read is the newest that was written. An operator who
//!   claims a copy (`storage::engine::claim`) needs neither: what can be read counts, a segment whose header is lost
//!   included, be it the only one, and until the claim is durable the member is out, as one that was removed.
//! * Of a lost header, the file's name says after which entry the segment begins, and the database whose salt it has. The
//!   term of that entry is known only from what lies before, or from what is sealed.
//! * The quarantine, and what is kept, are durable before anything of the old log is let go: where the others are damaged
//!   too, it may be all that is left.

use super::batch::{Body, HEADER_BYTES, Header, Reading};
use super::recovery::{Listing, Log, Opened, check};
use super::roll::Continuity;
use super::scan::{At, Scan};
use super::segment::{self, Birth};
use super::{HardState, Position, Recovered, Survey, Wal, WalOptions};
use crate::error::{Error, Kind, Result};
use crate::ids::{LogIndex, Term};
use crate::storage::files::{Files, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Entries copied at once.
const COPY_BYTES: usize = 1 << 20;

/// A log up to this size is copied into one segment, whose offsets have 32 bits; batches may be cut anew on the way. Of a
/// larger one, far above what is kept by default, a crash in the midst of it costs the part that is not copied yet.
const WHOLE_BYTES_MAX: u64 = 3 << 30;

/// What becomes of a member whose newest term and vote, or last index, cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seat {
    /// Its log is refused: the member must come back as a new one.
    #[default]
    Kept,
    /// What can be read of its log is kept, and the member is out until somebody says otherwise.
    GivenUp,
}

/// What whoever opens a damaged log needs of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// Nothing up to here: a sealed state covers it.
    pub behind: Position,
    /// The seat in the group.
    pub seat: Seat,
}

impl Wal {
    /// The newest hard state that a log on disk tells of, without opening it: nothing is changed.
    pub fn last_words(files: &dyn Files, directory: &Path) -> Result<HardState> {
        let listing = Listing::read(files, directory)?;
        let opened = listing.segments.into_iter().map(|(sequence, path)| Opened::open(files, sequence, path));
        let opened: Vec<Opened> = opened.filter_map(Result::ok).collect();
        let last = opened.last().map(|last| Tail::read(files, last)?.seated()).transpose()?;
        last.map(|tail| tail.hard_state)
            .ok_or_else(|| Error::damaged(format!("{} holds no log segment that can be read", directory.display())))
    }

    /// What a log at rest holds, damaged or not, as far as [`Wal::salvage`] would keep it where the seat is given up and all
    /// up to `behind` is sealed: nothing is changed. `salt` is that of its database.
    pub fn survey(files: &dyn Files, directory: &Path, salt: u64, behind: Position) -> Result<Survey> {
        let damage = match check(files, directory) {
            Err(error) if error.kind() == Kind::Damaged => error,
            checked => {
                let log = checked?;
                let (last, hard_state) = (log.last(), log.hard_state.clone().unwrap_or_default());
                let reached = hard_state.quarantined_until.map_or(last.index, |until| until.max(last.index));
                return Ok(Survey { hard_state, last, reached, is_end_lost: false, damage: None, unseated: None });
            }
        };
        let pieces = Piece::read_all(files, Listing::read(files, directory)?.segments);
        let Some(tail) = Tail::of(files, &pieces, salt)? else { return Err(damage) };
        let log = Log::before_damage(files, &pieces, Needs { behind, seat: Seat::GivenUp }, salt, Log::read)?.log;
        // What does not go on where the sealed state ends cannot be applied to it.
        let last = if log.previous().index > behind.index { behind } else { log.last() };
        let reached = tail.hard_state.quarantined_until.max(Some(tail.last)).unwrap_or(tail.last);
        let Tail { hard_state, unseated, .. } = tail;
        let is_end_lost = tail.is_blank && unseated.is_some();
        Ok(Survey { hard_state, last, reached, is_end_lost, damage: Some(damage), unseated })
    }

    /// Opens a damaged log: what lies before the damage is kept, and the hard state says until where the member is
    /// quarantined. Where the damage is only in segments of which nothing is needed, all the rest is kept, and nothing is lacking.
    /// Refused where term, vote or the old last index cannot be known and the seat is to be kept: such a member must come
    /// back as a new one. A log without damage is opened as ever, and so, in vain, is one whose hard state is not
    /// `admitted`: what a node alone has lost, nobody brings back.
    pub fn salvage(
        files: Arc<dyn Files>,
        directory: &Path,
        options: WalOptions,
        needs: Needs,
        admitted: impl FnOnce(&HardState) -> bool,
    ) -> Result<Recovered> {
        let damaged = match Wal::open(files.clone(), directory, options) {
            Err(error) if error.kind() == Kind::Damaged => error,
            opened => return opened,
        };
        let mut listing = Listing::read(&*files, directory)?;
        let segments = std::mem::take(&mut listing.segments);
        let Some(sequence) = segments.last().map(|(sequence, _)| *sequence) else { return Err(damaged) };
        listing.abandoned.extend(segments.iter().map(|(_, path)| path.clone()));
        let pieces = Piece::read_all(&*files, segments);
        let tail = Tail::of(&*files, &pieces, options.salt);
        let words = |tail: &Option<Tail>| tail.as_ref().map(|tail| tail.hard_state.clone());
        if !admitted(&tail.as_ref().ok().and_then(words).unwrap_or_default()) {
            return Err(damaged);
        }
        let Some(tail) = tail? else { return Err(damaged) };
        let tail = match needs.seat {
            Seat::Kept => tail.seated()?,
            Seat::GivenUp => tail,
        };
        let kept = Log::before_damage(&*files, &pieces, needs, options.salt, Log::take)?;
        let mut hard_state = tail.hard_state;
        if tail.unseated.is_some() {
            // Which vote it gave is not known, so it may give none. A term that others may have voted in is known.
            let term = hard_state.term.max(tail.term).max(needs.behind.term);
            hard_state = HardState { term, vote: None, ..hard_state };
            hard_state.quarantined_until = Some(HardState::DISMISSED);
        } else if !kept.is_whole {
            hard_state.quarantined_until = hard_state.quarantined_until.max(Some(tail.last));
        }

        let nothing = Listing { segments: Vec::new(), abandoned: Vec::new(), spares: Vec::new() };
        let source = Wal::new(files.clone(), directory, options, kept.log, nothing)?;
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

/// A segment file, whether or not its header can be read.
struct Piece {
    sequence: u64,
    path: PathBuf,
    opened: Result<Opened>,
}

impl Piece {
    fn read_all(files: &dyn Files, segments: Vec<(u64, PathBuf)>) -> Vec<Piece> {
        let read = |(sequence, path): (u64, PathBuf)| {
            let opened = Opened::open(files, sequence, path.clone());
            Piece { sequence, path, opened }
        };
        segments.into_iter().map(read).collect()
    }

    /// Before its first entry, as its name has it.
    fn previous(&self) -> LogIndex {
        segment::first_of(&self.path).previous()
    }

    /// The segment as its name and what is known from elsewhere have it, for its header is lost: whatever is in the file
    /// may be of it.
    fn beheaded(&self, term: Term, salt: u64) -> Opened {
        let previous = Position { index: self.previous(), term };
        let birth = Birth { sequence: self.sequence, salt, previous, restart: false, former_end: 0, hard_state: None };
        Opened { path: self.path.clone(), birth, start: 0 }
    }
}

/// Where the first batch of a segment begins whose header is lost; its end where that batch is lost, too, for what comes
/// behind it counts no more than behind any other damage.
fn first_batch(files: &dyn Files, beheaded: &Opened) -> Result<u64> {
    let file = files.open(&beheaded.path, Open::Read)?;
    let mut scan = Scan::new(&*file, file.len()?);
    let mut start = 0;
    while scan.bytes(start, HEADER_BYTES)?.is_some() {
        if let Reading::Valid(Header { batch: 1, .. }) = scan.header(start, beheaded.birth.seed())? {
            break;
        }
        start += super::batch::ALIGNMENT as u64;
    }
    Ok(start)
}

/// The segments that hold what is needed, and count.
fn needed(pieces: &[Piece], needs: Needs) -> &[Piece] {
    let restart = pieces.iter().rposition(|piece| piece.opened.as_ref().is_ok_and(|opened| opened.birth.restart));
    let counting = &pieces[restart.unwrap_or(0)..];
    // Whatever came later begins further ahead, but for what takes back entries: then it is the last of those.
    let reaches = |piece: &Piece| match (&piece.opened, needs.seat) {
        (Ok(opened), _) => opened.birth.previous.index <= needs.behind.index,
        (Err(_), Seat::GivenUp) => piece.previous() <= needs.behind.index,
        (Err(_), Seat::Kept) => false,
    };
    &counting[counting.iter().rposition(reaches).unwrap_or(0)..]
}

/// What the newest segment says about the end of the log.
#[derive(Default)]
struct Tail {
    hard_state: HardState,
    last: LogIndex,
    /// The highest term of an entry that can be read.
    term: Term,
    /// The newest segment has no batch that can be read.
    is_blank: bool,
    /// Why a later term, vote or entry than these may have been written.
    unseated: Option<Error>,
}

impl Tail {
    /// Refused where term and vote are not certain.
    fn seated(self) -> Result<Tail> {
        self.unseated.clone().map_or(Ok(self), Err)
    }

    /// What the end of a log says; none where there is none. Where the newest header is lost, what came before counts, and
    /// what else can be read of it: each batch proves by itself that it is of the segment. `salt` is that of the log where
    /// no header says it.
    fn of(files: &dyn Files, pieces: &[Piece], salt: u64) -> Result<Option<Tail>> {
        let known = pieces.iter().enumerate().rev().find_map(|(at, piece)| Some((at, piece.opened.as_ref().ok()?)));
        let (from, salt, mut tail) = match known {
            Some((at, opened)) => (at + 1, opened.birth.salt, Some(Tail::read(files, opened)?)),
            None => (0, salt, None),
        };
        for piece in &pieces[from..] {
            let Err(error) = &piece.opened else { continue };
            if error.kind() != Kind::Damaged {
                return Err(error.clone());
            }
            let former = tail.unwrap_or_default();
            let later = Tail::read(files, &piece.beheaded(former.term, salt))?;
            tail = Some(Tail {
                hard_state: if later.hard_state == HardState::default() { former.hard_state } else { later.hard_state },
                last: later.last,
                term: former.term.max(later.term),
                is_blank: later.is_blank,
                unseated: Some(seat_lost(error)),
            });
        }
        Ok(tail)
    }

    /// Reads every batch of the segment that can be read, damaged ones between them or not.
    fn read(files: &dyn Files, opened: &Opened) -> Result<Tail> {
        let file = files.open(&opened.path, Open::Read)?;
        let mut scan = Scan::new(&*file, file.len()?);
        let seed = opened.birth.seed();
        let mut hard_state = (0, opened.birth.hard_state.clone());
        let (mut newest, mut bodiless, mut proven) = (None::<Header>, Vec::new(), 0);
        let mut term = opened.birth.previous.term;
        let mut at = opened.start;
        while scan.bytes(at, HEADER_BYTES)?.is_some() {
            let Reading::Valid(header) = scan.header(at, seed)? else {
                at += super::batch::ALIGNMENT as u64;
                continue;
            };
            proven = proven.max(u64::from(header.durable_end));
            if let At::Batch(header, body) = scan.batch(at, seed)? {
                if let Some((found, records)) = Body::open(&header, body) {
                    hard_state = found.map_or(hard_state, |found| (header.hard_states, Some(found)));
                    term = records.map(|record| record.term).max().map_or(term, |found| found.max(term));
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
        let unseated = (count != hard_state.0).then(|| {
            let what = "a term and vote were written that can no longer be read";
            seat_lost(&segment::damaged(&opened.path, opened.start, what))
        });
        Ok(Tail { hard_state: hard_state.1.unwrap_or_default(), last, term, is_blank: newest.is_none(), unseated })
    }
}

/// What can be kept of a damaged log.
struct Kept {
    log: Log,
    /// All of the segments that were to be read.
    is_whole: bool,
}

impl Log {
    /// Reads the segments that are needed up to the first damage, each with `take`. Where the seat is given up, one whose
    /// header is lost is read, too, if it goes on where the one before ends, or is the first; `salt` is that of the log.
    fn before_damage(
        files: &dyn Files,
        pieces: &[Piece],
        needs: Needs,
        mut salt: u64,
        take: impl Fn(&mut Log, &dyn Files, &Opened, Option<u64>) -> Result<u64>,
    ) -> Result<Kept> {
        let pieces = needed(pieces, needs);
        let mut log = Log::default();
        let (mut is_whole, mut is_guessed) = (true, false);
        for (at, piece) in pieces.iter().enumerate() {
            let beheaded;
            let opened = if let Ok(opened) = &piece.opened {
                opened
            } else {
                is_whole = false;
                let previous = piece.previous();
                log.end_after(previous);
                if needs.seat == Seat::Kept || !(log.segments.is_empty() || log.last().index == previous) {
                    break;
                }
                let known = [log.last(), needs.behind, Position::default()];
                let known = known.iter().skip(usize::from(log.segments.is_empty())).find(|at| at.index == previous);
                is_guessed |= known.is_none();
                let headless = piece.beheaded(known.map_or(Term(0), |at| at.term), salt);
                beheaded = Opened { start: first_batch(files, &headless)?, ..headless };
                &beheaded
            };
            salt = opened.birth.salt;
            let end = match pieces.get(at + 1).map(|next| &next.opened) {
                Some(Ok(next)) => Some(next.birth.former_end),
                Some(Err(_)) | None => None,
            };
            match take(&mut log, files, opened, end) {
                Ok(_) => {}
                Err(error) if error.kind() == Kind::Damaged => {
                    is_whole = false;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(segment) = log.segments.last() {
            log.terms.truncate(segment.last);
        }
        if is_guessed {
            log.begin_where_known();
        }
        Ok(Kept { log, is_whole })
    }

    /// A segment that begins there says by its name alone what of the former ones counts.
    fn end_after(&mut self, last: LogIndex) {
        if last < self.previous().index {
            // As in `begin`: the former ones are on their way out, and none of their entries counts.
            *self = Log::default();
            return;
        }
        for former in &mut self.segments {
            former.last = former.last.min(last);
        }
        self.terms.truncate(last);
    }

    /// Nobody knows the term of the position before the first entry: the log goes on behind that entry, whose term is
    /// known. It is in what is sealed, or else the log does not reach back to that.
    fn begin_where_known(&mut self) {
        let first = self.previous().index.next();
        match self.terms.term(first) {
            Some(term) => self.terms.trim(Position { index: first, term }),
            None => *self = Log::default(),
        }
    }
}

fn seat_lost(error: &Error) -> Error {
    Error::damaged(error.message().to_string())
        .hint("term and vote are lost with it: remove this member and add it again with an empty directory")
}
