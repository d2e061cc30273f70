//! One keyspace of several levels as one ascending stream, a block at a time: what seal and merge write from.
//!
//! Only the blocks at the heads of the inputs are in memory. A block that overlaps nothing passes as it is, unread
//! where nothing in it is to be judged; overlapping ones are merged row by row up to the least of their ends.
//!
//! ```text
//!   newest   [a   c]          [m n]          alone: [m n] passes as a block
//!   older      [b    d][f  h]                together: a..c of both, then the rest of [b d], which is alone again
//! ```
//!
//! * Keys come in strictly ascending order; of equal keys the newest input's row comes.
//! * What is left out is the judge's word, row by row and block by block.

use crate::error::Result;
use crate::ids::KeyspaceId;
use crate::sql::batch::Strings;
use crate::storage::judge::{KeyspaceJudge, Verdict};
use crate::storage::keys::{Key, KeyRange};
use crate::storage::level::{BlockEntry, Level};
use crate::storage::rows::Rows;
use crate::storage::weave;
use std::sync::Arc;

/// What comes next.
pub enum Piece {
    /// A block that may be copied as it is; `input` says whose.
    Block {
        /// Position among the inputs.
        input: usize,
        /// The block.
        entry: Arc<BlockEntry>,
    },
    /// Rows, judged; never empty.
    Rows(Rows),
}

/// The stream of one keyspace.
pub struct Stream<'a> {
    judge: &'a KeyspaceJudge<'a>,
    inputs: Vec<Input<'a>>,
}

struct Input<'a> {
    level: &'a Level,
    /// All its blocks in the range, in key order.
    all: &'a [Arc<BlockEntry>],
    /// Those not begun yet.
    entries: &'a [Arc<BlockEntry>],
    /// The block that was begun: its rows from `at` on are still to come.
    begun: Option<(Rows, usize)>,
}

impl Input<'_> {
    fn first(&self) -> Option<&[u8]> {
        match &self.begun {
            Some((rows, at)) => Some(rows.keys.get(*at)),
            None => self.entries.first().map(|entry| &*entry.first),
        }
    }

    fn last(&self) -> Option<&[u8]> {
        match &self.begun {
            Some((rows, _)) => Some(rows.keys.get(rows.len() - 1)),
            None => self.entries.first().map(|entry| &*entry.last),
        }
    }
}

impl<'a> Stream<'a> {
    /// A stream of the blocks of `keyspace` that lie in `range`, over levels that stand newest first. No block may
    /// reach over an end of the range.
    pub fn new(
        judge: &'a KeyspaceJudge<'a>,
        levels: impl Iterator<Item = &'a Level>,
        keyspace: KeyspaceId,
        range: &KeyRange,
    ) -> Stream<'a> {
        let input = |level: &'a Level| {
            let all = level.manifest.overlapping(keyspace, range);
            Input { level, all, entries: all, begun: None }
        };
        Stream { judge, inputs: levels.map(input).collect() }
    }

    /// The key at which the stream goes on; none at its end.
    pub fn position(&self) -> Option<Key> {
        self.inputs.iter().filter_map(Input::first).min().map(Key::new)
    }

    /// The rows of block `entry`, judged.
    pub fn decode(&self, input: usize, entry: &BlockEntry) -> Result<Rows> {
        Ok(self.judge.rows(self.load(input, entry)?))
    }

    /// What is left of the blocks that the position lies in: for each input its rows that have not come yet, unjudged.
    pub fn tails(&self) -> Result<Vec<Option<Rows>>> {
        let position = self.position();
        self.inputs.iter().enumerate().map(|(i, input)| self.tail(i, input, position.as_ref())).collect()
    }

    fn tail(&self, number: usize, input: &Input<'_>, position: Option<&Key>) -> Result<Option<Rows>> {
        let layout = &self.judge.layout;
        if let Some((rows, at)) = &input.begun {
            return Ok(Some(weave::slice(layout, rows, *at, rows.len())));
        }
        let Some(position) = position else { return Ok(None) };
        // A block that was skipped unread, since all of it is hidden, while another input stands in the midst of it.
        let at = input.all.partition_point(|entry| entry.last < *position);
        let Some(entry) = input.all.get(at).filter(|entry| entry.first < *position) else { return Ok(None) };
        let rows = self.load(number, entry)?;
        let from = weave::seek(&rows.keys, 0, position);
        Ok(Some(weave::slice(layout, &rows, from, rows.len())))
    }

    /// The next piece; none at the end.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        loop {
            self.skip_hidden();
            let heads = self.inputs.iter().enumerate().filter_map(|(i, input)| Some((input.first()?, i)));
            let Some((_, least)) = heads.min() else { return Ok(None) };
            let others = self.inputs.iter().enumerate().filter(|(i, _)| *i != least);
            let others = others.filter_map(|(_, input)| input.first()).min();
            let is_alone = others.is_none_or(|others| self.inputs[least].last().is_some_and(|last| last < others));
            let piece = if is_alone { self.pass(least)? } else { Some(Piece::Rows(self.merge()?)) };
            match piece {
                Some(Piece::Rows(rows)) if rows.is_empty() => {}
                None => {}
                Some(piece) => return Ok(Some(piece)),
            }
        }
    }

    fn skip_hidden(&mut self) {
        for input in self.inputs.iter_mut().filter(|input| input.begun.is_none()) {
            let hidden = input.entries.iter().take_while(|entry| self.judge.is_hidden(entry)).count();
            input.entries = &input.entries[hidden..];
        }
    }

    /// The head of one input, which overlaps nothing; none where all of it is left out.
    fn pass(&mut self, least: usize) -> Result<Option<Piece>> {
        let layout = &self.judge.layout;
        let input = &mut self.inputs[least];
        if let Some((rows, at)) = input.begun.take() {
            let rest = weave::slice(layout, &rows, at, rows.len());
            return Ok(Some(Piece::Rows(self.judge.rows(rest))));
        }
        let Some((entry, rest)) = input.entries.split_first() else { return Ok(None) };
        input.entries = rest;
        match self.judge.block(entry) {
            Verdict::Drop => {
                self.judge.count_dropped(entry);
                Ok(None)
            }
            Verdict::Keep => Ok(Some(Piece::Block { input: least, entry: entry.clone() })),
            Verdict::Look => Ok(Some(Piece::Rows(self.decode(least, entry)?))),
        }
    }

    /// All heads merged up to the least of their ends.
    fn merge(&mut self) -> Result<Rows> {
        let bound = self.inputs.iter().filter_map(Input::last).min().map(Key::new);
        let bound = bound.expect("blocks overlap only where there are blocks");
        let mut parts = Vec::with_capacity(self.inputs.len());
        for i in 0..self.inputs.len() {
            if self.inputs[i].first().is_none_or(|first| first > &*bound) {
                continue;
            }
            if self.inputs[i].begun.is_none() {
                let (entry, rest) =
                    self.inputs[i].entries.split_first().expect("an input with a first key has a block");
                let rows = self.load(i, entry)?;
                self.inputs[i].entries = rest;
                self.inputs[i].begun = Some((rows, 0));
            }
            let (rows, at) = self.inputs[i].begun.as_mut().expect("the block was begun above");
            let to = past(&rows.keys, *at, &bound);
            parts.push(weave::slice(&self.judge.layout, rows, *at, to));
            *at = to;
            if to == rows.len() {
                self.inputs[i].begun = None;
            }
        }
        let parts: Vec<&Rows> = parts.iter().collect();
        Ok(self.judge.rows(weave::merge_rows(&self.judge.layout, &parts)))
    }

    fn load(&self, input: usize, entry: &BlockEntry) -> Result<Rows> {
        self.inputs[input].level.source.read(entry)?.decode(&self.judge.layout)
    }
}

/// The index of the first key above `key`, from `from` on.
fn past(keys: &Strings, from: usize, key: &[u8]) -> usize {
    let at = weave::seek(keys, from, key);
    if at < keys.len() && keys.get(at) == key { at + 1 } else { at }
}
