//! Applying one entry of the log.

use super::command::{Body, Command, Part, Transaction};
use super::request;
use super::staged::{Staged, Writes};
use super::write::{self, Pass, Place, Writer};
use super::{definition, stage};
use crate::error::SqlState;
use crate::hlc::Timestamp;
use crate::ids::{IndexId, LogIndex, OriginUid, TableId, Term};
use crate::raft::{Entry, Membership, Payload};
use crate::sql::catalog::{Catalog, IndexState};
use crate::storage::codec;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::memtable::Memtable;
use crate::storage::rows::Stamp;
use crate::storage::view::{ScanRequest, View};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a client is told of its write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows written.
    pub affected: u64,
}

/// The state besides the rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The tables.
    pub catalog: Arc<Catalog>,
    /// Who belongs to the group.
    pub membership: Membership,
    /// Position and term of the last entry applied.
    pub applied: (LogIndex, Term),
    /// Its stamp.
    pub hlc: Timestamp,
    /// What is counted, by name.
    pub counters: BTreeMap<String, u64>,
}

impl Machine {
    /// Applies the next entry: writes to `out`, which is the newest level of `view`. The inner result is the client's
    /// answer, the same on every replica; the outer error means that this replica cannot go on.
    pub fn apply(&mut self, entry: &Entry, view: &View, out: &dyn Writes) -> Result<Result<Outcome>> {
        assert!(
            entry.index == self.applied.0.next(),
            "entry {} does not follow the applied one, {}",
            entry.index,
            self.applied.0
        );
        assert!(entry.hlc > self.hlc, "the stamp of entry {} is not above the one before", entry.index);
        let outcome = self.perform(entry, view, out).map_err(|error| match error.sqlstate() {
            SqlState::NOT_UNDERSTOOD => error.context(format!("entry {}", entry.index)),
            _ => error,
        })?;
        self.applied = (entry.index, entry.term);
        self.hlc = entry.hlc;
        Ok(outcome)
    }

    fn perform(&mut self, entry: &Entry, view: &View, out: &dyn Writes) -> Result<Result<Outcome>> {
        match Payload::decode(&entry.payload)? {
            Payload::Noop | Payload::Command(_) if self.is_bare() => {}
            Payload::Noop => stage::end_all(view, entry, out)?,
            Payload::Membership(membership) => self.settle_group(membership),
            Payload::Command(bytes) => return self.execute(&Command::decode(bytes)?, entry, view, out),
        }
        Ok(Ok(Outcome::default()))
    }

    fn execute(&mut self, command: &Command, entry: &Entry, view: &View, out: &dyn Writes) -> Result<Result<Outcome>> {
        let read_index = match &command.body {
            Body::Transaction(transaction) => transaction.read_index,
            Body::Stage { .. }
            | Body::Commit { .. }
            | Body::Abandon { .. }
            | Body::Expire { .. }
            | Body::RaiseFloor { .. }
            | Body::Backfill { .. }
            | Body::EvictRequests { .. }
            | Body::HashAt => entry.index.previous(),
        };
        let writer = Writer { index: entry.index, hlc: entry.hlc, origin: command.origin, read_index };
        let outcome = self.answer(command, entry, view, writer, out)?;
        // However its commit is answered, nobody asks for a stage again.
        if let Body::Commit { stage, .. } = &command.body {
            stage::end(*stage, view, writer, out)?;
        }
        if let Body::HashAt = &command.body {
            out.mark();
        }
        Ok(outcome)
    }

    fn answer(
        &mut self,
        command: &Command,
        entry: &Entry,
        view: &View,
        writer: Writer,
        out: &dyn Writes,
    ) -> Result<Result<Outcome>> {
        if let Some(request) = &command.request {
            match settle(request::look_up(request, view, entry.hlc))? {
                Ok(None) => {}
                Ok(Some(recalled)) => return Ok(recalled.affected.map(|affected| Outcome { affected })),
                Err(refused) => return Ok(Err(refused)),
            }
            if let Err(refused) = settle(request::admit(request, view, self.counted()))? {
                return Ok(Err(refused));
            }
        }
        let done = settle(self.run(&command.body, view, writer))?;
        let affected = done.as_ref().map(|_| command.affected).map_err(Clone::clone);
        let mut staged = Vec::new();
        if let Ok(effects) = done {
            if let Some(sliced) = &effects.sliced {
                // Nobody sees what is written from here on before the command is complete.
                out.begin_large(self)?;
                self.write_slices(*sliced, view, writer, out)?;
            }
            if let Some(stage) = effects.ended {
                stage::end(stage, view, writer, out)?;
            }
            if let Some(catalog) = effects.catalog {
                self.catalog = catalog;
            }
            staged = effects.staged;
            self.note(effects.requests);
        }
        if let Some(request) = &command.request {
            let mut record = Staged::default();
            let change = request::remember(request, &affected, view, writer, self.counted(), &mut record)?;
            self.note(change);
            staged.push(record);
        }
        // Each goes as it is written: a row may have megabytes.
        staged.into_iter().try_for_each(|staged| out.write(&staged))?;
        Ok(affected.map(|affected| Outcome { affected }))
    }

    fn counted(&self) -> request::Counted {
        request::Counted {
            sessions: self.counter(request::SESSIONS_COUNTER),
            requests: self.counter(request::REQUESTS_COUNTER),
            floor_ms: self.counter(request::REQUESTS_FLOOR),
        }
    }

    fn note(&mut self, change: request::Change) {
        let moved = |before: u64, begun: u64, ended: u64| (before + begun).saturating_sub(ended);
        self.count(request::SESSIONS_COUNTER, |n| moved(n, change.sessions_begun, change.sessions_ended));
        self.count(request::REQUESTS_COUNTER, |n| moved(n, change.requests_begun, change.requests_ended));
        self.count(request::REQUESTS_FLOOR, |floor_ms| floor_ms.max(change.floor_ms));
    }

    fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    fn count(&mut self, name: &str, change: impl FnOnce(u64) -> u64) {
        let (before, after) = (self.counter(name), change(self.counter(name)));
        if before != after {
            self.counters.insert(name.to_owned(), after);
        }
    }

    fn run(&self, body: &Body, view: &View, writer: Writer) -> Result<Effects> {
        match body {
            Body::Transaction(transaction) => run_transaction(transaction, &self.catalog, view, writer),
            Body::Stage { stage, part, bytes } => Ok(Effects::rows(stage::part(*stage, *part, bytes, writer))),
            Body::Commit { stage, parts } => self.commit(*stage, *parts, view, writer),
            Body::Abandon { stage } => Ok(Effects { ended: Some(*stage), ..Effects::default() }),
            Body::Expire { table, below_ms } => {
                self.raise(*table, |table| table.expired_below_ms = table.expired_below_ms.max(*below_ms))
            }
            Body::RaiseFloor { table, floor } => self.raise(*table, |table| table.floor = table.floor.max(*floor)),
            Body::Backfill { index, from, rows_max } => self.backfill(*index, from, *rows_max, view, writer),
            Body::HashAt => Ok(Effects::default()),
            Body::EvictRequests { before } => {
                let mut staged = Staged::default();
                let requests = request::evict(*before, view, writer, &mut staged)?;
                Ok(Effects { requests, ..Effects::rows(staged) })
            }
        }
    }

    /// Raises a mark of a table. The definition stays what it was: marks are no reason to plan again.
    fn raise(&self, id: TableId, edit: impl FnOnce(&mut crate::sql::catalog::Table)) -> Result<Effects> {
        let mut catalog = (*self.catalog).clone();
        let found = catalog.table_by_id(id).ok_or_else(|| Error::conflict("the table was dropped meanwhile"))?;
        let mut table = (**found).clone();
        edit(&mut table);
        catalog.put(table);
        Ok(Effects { catalog: Some(Arc::new(catalog)), ..Effects::default() })
    }

    /// Checks all of a staged transaction. What comes in one frame is also staged; of more only the checks are made, and
    /// [`Machine::write_slices`] reads them again.
    fn commit(&self, stage: u128, parts: u32, view: &View, writer: Writer) -> Result<Effects> {
        let mut frames = stage::Frames::open(stage, parts, view)?;
        let Some(first) = frames.next()? else { return Err(Error::not_understood("a staged transaction is empty")) };
        let Some(second) = frames.next()? else {
            let writer = Writer { read_index: first.read_index, ..writer };
            let effects = run_transaction(&first, &self.catalog, view, writer)?;
            return Ok(effects);
        };
        let table = stage::sliced_table(&first);
        let mut place = Place::of(Pass::Check);
        let mut slices = [first, second].into_iter();
        while let Some(slice) = slices.next().map_or_else(|| frames.next(), |slice| Ok(Some(slice)))? {
            if table.is_none() || stage::sliced_table(&slice) != table {
                return Err(Error::not_understood("the slices of a staged statement do not belong together"));
            }
            self.slice(&slice, view, writer, &mut place)?;
        }
        Ok(Effects { sliced: Some(Sliced { stage, parts }), ..Effects::default() })
    }

    /// Writes a statement that [`Machine::commit`] has checked, slice by slice.
    fn write_slices(&self, sliced: Sliced, view: &View, writer: Writer, out: &dyn Writes) -> Result<()> {
        let mut frames = stage::Frames::open(sliced.stage, sliced.parts, view)?;
        let mut place = Place::of(Pass::Write);
        while let Some(slice) = frames.next()? {
            for staged in self.slice(&slice, view, writer, &mut place)? {
                out.write(&staged)?;
            }
        }
        Ok(())
    }

    fn slice(&self, slice: &Transaction, view: &View, writer: Writer, place: &mut Place) -> Result<Vec<Staged>> {
        let writer = Writer { read_index: slice.read_index, ..writer };
        let stage = |part: &Part| match part {
            Part::Write(write) => write::stage(write, &self.catalog, view, writer, place),
            Part::CreateTable(_) | Part::DropTable { .. } | Part::CreateIndex(_) | Part::DropIndex { .. } => {
                Err(Error::internal("a definition is no slice of a statement"))
            }
        };
        slice.parts.iter().map(stage).collect()
    }

    fn backfill(&self, id: IndexId, from: &[u8], rows_max: u32, view: &View, writer: Writer) -> Result<Effects> {
        let found = self.catalog.tables().find_map(|table| {
            table.indexes.iter().find(|index| index.id == id).map(|index| (table.clone(), index.clone()))
        });
        let (table, index) = found.ok_or_else(|| Error::conflict("the index was dropped meanwhile"))?;
        // A second builder's command, or one sent twice: the work is done.
        if index.state != (IndexState::Building { done_below: from.to_vec() }) {
            return Ok(Effects::default());
        }
        let layout = table.index_layout(&index);
        let mut scanner = view.scan(ScanRequest {
            keyspace: table.keyspace,
            ranges: vec![KeyRange { from: Key::new(from), to: None }],
            columns: layout.columns.iter().map(|column| column.id).collect(),
            bounds: vec![],
            expired_below_ms: table.expired_below(writer.hlc.wall().0),
            with_keys: true,
            batch_rows: rows_max as usize,
        })?;
        let (mut staged, mut rows, mut last) = (Staged::default(), 0, None);
        'scan: while let Some(batch) = scanner.next_batch()? {
            let (keys, metadata) = batch.keys.expect("keys were asked for");
            for row in 0..batch.batch.rows {
                if rows == rows_max {
                    break 'scan;
                }
                let entry = batch.batch.row(row);
                let stamp = Stamp { modified: writer.index, ..metadata.stamp(row) };
                staged.put(index.keyspace, keys::encode(&entry), stamp, |image| codec::encode(&layout, &entry, image));
                last = Some(Key::new(keys.get(row)));
                rows += 1;
            }
        }
        let state = match last {
            Some(last) if rows == rows_max => IndexState::Building { done_below: last.successor().to_vec() },
            Some(_) | None => IndexState::Ready,
        };
        let mut catalog = (*self.catalog).clone();
        definition::set_index_state(&mut catalog, id, state)?;
        Ok(Effects { catalog: Some(Arc::new(catalog)), ..Effects::rows(staged) })
    }
}

/// What a command does once all its checks have passed.
#[derive(Default)]
struct Effects {
    catalog: Option<Arc<Catalog>>,
    staged: Vec<Staged>,
    /// A staged statement of several slices, checked and to be written.
    sliced: Option<Sliced>,
    /// A stage that ends with this command.
    ended: Option<u128>,
    /// Sessions and requests that are forgotten.
    requests: request::Change,
}

/// A staged statement.
#[derive(Clone, Copy)]
struct Sliced {
    stage: u128,
    parts: u32,
}

impl Effects {
    fn rows(staged: Staged) -> Effects {
        Effects { staged: vec![staged], ..Effects::default() }
    }
}

/// Parts an outcome that every replica shares from a failure of this one.
fn settle<T>(result: Result<T>) -> Result<Result<T>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.is_deterministic() => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

fn run_transaction(transaction: &Transaction, catalog: &Arc<Catalog>, view: &View, writer: Writer) -> Result<Effects> {
    let mut draft = Draft { catalog: catalog.clone(), changed: false, staged: Vec::new() };
    // Later parts see earlier ones: through a memtable of the transaction's own, in front of all others.
    let scratch = (write::writes(&transaction.parts) > 1).then(|| Arc::new(Memtable::new()));
    let view = match &scratch {
        Some(scratch) => view.with_memtable(scratch.clone()),
        None => view.clone(),
    };
    for part in &transaction.parts {
        draft.add(part, &view.with_catalog(draft.catalog.clone()), writer)?;
        if let (Some(scratch), Some(staged), Part::Write(_)) = (&scratch, draft.staged.last(), part) {
            staged.write(scratch);
        }
    }
    let catalog = draft.changed.then_some(draft.catalog);
    Ok(Effects { catalog, staged: draft.staged, ..Effects::default() })
}

/// What a part would do, for the leader to read its own batch by.
pub struct Preview {
    /// The catalog with it.
    pub catalog: Arc<Catalog>,
    /// Its rows.
    pub staged: Staged,
}

/// Checks one part against `view` as apply will, without changing anything. Its rows take the view's position for
/// their version.
pub fn preview(
    part: &Part,
    catalog: &Arc<Catalog>,
    view: &View,
    instant: Timestamp,
    origin: OriginUid,
) -> Result<Preview> {
    let writer = Writer { index: view.version, hlc: instant, origin, read_index: view.version };
    let mut draft = Draft { catalog: catalog.clone(), changed: false, staged: Vec::new() };
    draft.add(part, view, writer)?;
    Ok(Preview { catalog: draft.catalog, staged: draft.staged.pop().unwrap_or_default() })
}

/// A transaction as far as it has been checked.
struct Draft {
    catalog: Arc<Catalog>,
    changed: bool,
    staged: Vec<Staged>,
}

impl Draft {
    fn add(&mut self, part: &Part, view: &View, writer: Writer) -> Result<()> {
        if let Part::Write(write) = part {
            self.staged.push(write::stage(write, &self.catalog, view, writer, &mut Place::of(Pass::Both))?);
            return Ok(());
        }
        self.changed = true;
        let catalog = Arc::make_mut(&mut self.catalog);
        match part {
            Part::CreateTable(new) => definition::create_table(catalog, new),
            Part::DropTable { table } => definition::drop_table(catalog, *table),
            Part::CreateIndex(new) => definition::create_index(catalog, new),
            Part::DropIndex { index } => definition::drop_index(catalog, *index),
            Part::Write(_) => Ok(()),
        }
    }
}
