//! Applying one entry of the log.

use super::command::{Body, Command, Part, Transaction};
use super::request;
use super::write::{self, Staged, Writer};
use super::{STAGE_CHUNK_BYTES, definition};
use crate::error::SqlState;
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, IndexId, LogIndex, OriginUid, TableId, Term};
use crate::raft::{Entry, Membership, Payload};
use crate::sql::catalog::{Catalog, IndexState, STAGES};
use crate::sql::value::Value;
use crate::storage::codec;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::level::RangeDelete;
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
    /// Applies the next entry: writes into `memtable`, which is the newest level of `view`. The inner result is the
    /// client's answer, the same on every replica; the outer error means that this replica cannot go on.
    pub fn apply(&mut self, entry: &Entry, view: &View, memtable: &Memtable) -> Result<Result<Outcome>> {
        assert!(
            entry.index == self.applied.0.next(),
            "entry {} does not follow the applied one, {}",
            entry.index,
            self.applied.0
        );
        assert!(entry.hlc > self.hlc, "the stamp of entry {} is not above the one before", entry.index);
        let outcome = match Payload::decode(&entry.payload)? {
            Payload::Noop => {
                end_all_stages(view, entry, memtable)?;
                Ok(Outcome::default())
            }
            Payload::Membership(membership) => {
                self.membership = membership;
                Ok(Outcome::default())
            }
            Payload::Command(bytes) => self.execute(&Command::decode(bytes)?, entry, view, memtable)?,
        };
        self.applied = (entry.index, entry.term);
        self.hlc = entry.hlc;
        Ok(outcome)
    }

    fn execute(
        &mut self,
        command: &Command,
        entry: &Entry,
        view: &View,
        memtable: &Memtable,
    ) -> Result<Result<Outcome>> {
        let read_index = match &command.body {
            Body::Transaction(transaction) => transaction.read_index,
            Body::Stage { .. }
            | Body::Commit { .. }
            | Body::Abandon { .. }
            | Body::Expire { .. }
            | Body::RaiseFloor { .. }
            | Body::Backfill { .. }
            | Body::EvictRequests { .. } => entry.index.previous(),
        };
        let writer = Writer { index: entry.index, hlc: entry.hlc, origin: command.origin, read_index };
        if let Some(request) = &command.request {
            match settle(request::look_up(request, view, entry.hlc))? {
                Ok(None) => {}
                Ok(Some(recalled)) => {
                    if let Body::Commit { stage, .. } = &command.body {
                        let mut ended = Staged::default();
                        end_stage(*stage, view, writer, &mut ended)?;
                        ended.write(memtable);
                    }
                    return Ok(recalled.affected.map(|affected| Outcome { affected }));
                }
                Err(refused) => return Ok(Err(refused)),
            }
            if let Err(refused) = settle(request::admit(request, view, self.counter(request::SESSIONS_COUNTER)))? {
                return Ok(Err(refused));
            }
        }
        let done = settle(self.run(&command.body, view, writer))?;
        let affected = done.as_ref().map(|_| command.affected).map_err(Clone::clone);
        let mut staged = Vec::new();
        if let Ok(effects) = done {
            if let Some(catalog) = effects.catalog {
                self.catalog = catalog;
            }
            staged = effects.staged;
            self.count(request::SESSIONS_COUNTER, |sessions| sessions.saturating_sub(effects.sessions_ended));
        }
        if let Some(request) = &command.request {
            let mut record = Staged::default();
            if request::remember(request, &affected, view, writer, &mut record)? {
                self.count(request::SESSIONS_COUNTER, |sessions| sessions + 1);
            }
            staged.push(record);
        }
        staged.iter().for_each(|staged| staged.write(memtable));
        Ok(affected.map(|affected| Outcome { affected }))
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
            Body::Stage { stage, part, bytes } => Ok(Effects::rows(stage_part(*stage, *part, bytes, writer))),
            Body::Commit { stage, parts } => self.commit(*stage, *parts, view, writer),
            Body::Abandon { stage } => {
                let mut staged = Staged::default();
                end_stage(*stage, view, writer, &mut staged)?;
                Ok(Effects::rows(staged))
            }
            Body::Expire { table, below_ms } => {
                self.raise(*table, |table| table.expired_below_ms = table.expired_below_ms.max(*below_ms))
            }
            Body::RaiseFloor { table, floor } => self.raise(*table, |table| table.floor = table.floor.max(*floor)),
            Body::Backfill { index, from, rows_max } => self.backfill(*index, from, *rows_max, view, writer),
            Body::EvictRequests { before } => {
                let mut staged = Staged::default();
                let sessions_ended = request::evict(*before, view, writer, &mut staged)?;
                Ok(Effects { sessions_ended, ..Effects::rows(staged) })
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

    fn commit(&self, stage: u128, parts: u32, view: &View, writer: Writer) -> Result<Effects> {
        let bytes = read_stage(stage, parts, view)?;
        let transaction: Transaction = postcard::from_bytes(&bytes)
            .map_err(|error| Error::damaged(format!("a staged transaction does not decode: {error}")))?;
        let writer = Writer { read_index: transaction.read_index, ..writer };
        let mut effects = run_transaction(&transaction, &self.catalog, view, writer)?;
        let mut ended = Staged::default();
        end_stage(stage, view, writer, &mut ended)?;
        effects.staged.push(ended);
        Ok(effects)
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
    /// Sessions that are forgotten.
    sessions_ended: u64,
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
    Ok(Effects { catalog: draft.changed.then_some(draft.catalog), staged: draft.staged, sessions_ended: 0 })
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
            self.staged.push(write::stage(write, &self.catalog, view, writer)?);
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

fn stage_key(stage: u128, part: u32, chunk: u32) -> Vec<u8> {
    [stage.to_be_bytes().as_slice(), &part.to_be_bytes(), &chunk.to_be_bytes()].concat()
}

fn stage_part(stage: u128, part: u32, bytes: &[u8], writer: Writer) -> Staged {
    let mut staged = Staged::default();
    for (chunk, bytes) in bytes.chunks(STAGE_CHUNK_BYTES).enumerate() {
        request::put_system(&mut staged, STAGES, &stage_key(stage, part, chunk as u32), bytes.to_vec(), writer);
    }
    staged
}

/// The keys of all parts of one stage.
fn stage_range(stage: u128) -> KeyRange {
    // The stage's id is the head of the one BLOB component, whose encoding escapes zero bytes: build both ends alike.
    let bound = |id: u128| keys::encode(&[Value::Blob(id.to_be_bytes().to_vec())]);
    KeyRange { from: bound(stage), to: stage.checked_add(1).map(bound) }
}

fn scan_stage(stage: u128, view: &View, columns: Vec<ColumnId>) -> Result<crate::storage::view::Scanner> {
    view.scan(ScanRequest {
        keyspace: STAGES,
        ranges: vec![stage_range(stage)],
        columns,
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: true,
        batch_rows: 1024,
    })
}

fn read_stage(stage: u128, parts: u32, view: &View) -> Result<Vec<u8>> {
    let mut scanner = scan_stage(stage, view, vec![ColumnId(1), ColumnId(2)])?;
    let (mut bytes, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
    while let Some(batch) = scanner.next_batch()? {
        for row in 0..batch.batch.rows {
            if let [Value::Blob(key), Value::Blob(chunk)] = batch.batch.row(row).as_slice() {
                seen.insert(key.get(16..20).map(<[u8]>::to_vec));
                bytes.extend_from_slice(chunk);
            }
        }
    }
    if seen.len() == parts as usize {
        Ok(bytes)
    } else {
        let message = format!("{} of {parts} parts of the statement are there: it was not executed", seen.len());
        Err(Error::invalid(SqlState::SERIALIZATION_FAILURE, message))
    }
}

/// A term begins: whoever staged parts before will not commit them, or did.
fn end_all_stages(view: &View, entry: &Entry, memtable: &Memtable) -> Result<()> {
    let mut scanner = view.scan(ScanRequest {
        keyspace: STAGES,
        ranges: vec![KeyRange::all()],
        columns: vec![],
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: false,
        batch_rows: 1,
    })?;
    if scanner.next_batch()?.is_some() {
        let (index, hlc) = (entry.index, entry.hlc.0);
        memtable.delete_range(RangeDelete { keyspace: STAGES, range: KeyRange::all(), index, hlc });
    }
    Ok(())
}

fn end_stage(stage: u128, view: &View, writer: Writer, staged: &mut Staged) -> Result<()> {
    let mut scanner = scan_stage(stage, view, vec![])?;
    while let Some(batch) = scanner.next_batch()? {
        let (keys, _) = batch.keys.expect("keys were asked for");
        keys.iter().for_each(|key| staged.tombstone(STAGES, Key::new(key), request::stamp(writer)));
    }
    Ok(())
}
