//! Rows put together column by column: merging by key, joining, cutting. No row becomes a `Value` on the way.
//!
//! A merge first decides, over keys alone, which stretch of which source comes next; then every column follows that
//! one decision. Appends give few long stretches, which are copied as such; interleaved keys give many of length one,
//! and for those the sources are laid end to end once and gathered by position.
//!
//! ```text
//!   newest  a . c . . f          decision   0: a   1: b   0: c   1: d e   0: f
//!   older   . b c d e .          columns    follow it, one after the other
//! ```
//!
//! * Of equal keys the newest source's row stays, whole.
//! * The result is in strictly ascending key order, as its sources are.

use crate::sql::batch::{Column, ColumnBuilder, Strings};
use crate::sql::catalog::Layout;
use crate::storage::rows::{Metadata, Rows};
use std::sync::Arc;

/// Stretches shorter than this on average are gathered by position: below it the call for a stretch costs more than
/// the second copy.
const STRETCH_ROWS: usize = 4;

/// Rows `from..to` of one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    source: u32,
    from: u32,
    to: u32,
}

/// No rows, in the columns of `layout`.
pub fn empty(layout: &Layout) -> Rows {
    let columns =
        layout.columns.iter().map(|column| Arc::new(ColumnBuilder::new(column.data_type, 0).finish())).collect();
    Rows { keys: Strings::default(), columns, metadata: Metadata::default() }
}

/// One set of rows from several whose keys overlap; `sources` stand newest first. Every source has the columns of
/// `layout`.
pub fn merge_rows(layout: &Layout, sources: &[&Rows]) -> Rows {
    merge_counted(layout, sources).0
}

/// [`merge_rows`], and how many stretches the first source was cut into by rows of the others: near the number of its
/// rows for random keys, few for appends.
pub fn merge_counted(layout: &Layout, sources: &[&Rows]) -> (Rows, usize) {
    let stretches = interleave(sources);
    let cuts = stretches.iter().filter(|stretch| stretch.source == 0).count();
    (weave(layout, sources, &stretches), cuts)
}

/// Rows of several sources end to end: each one's keys are all above those of the one before.
pub fn join(layout: &Layout, parts: &[&Rows]) -> Rows {
    if let [whole] = parts {
        return (*whole).clone();
    }
    let whole = |(source, rows): (usize, &&Rows)| Stretch { source: source as u32, from: 0, to: rows.len() as u32 };
    let stretches: Vec<Stretch> = parts.iter().enumerate().map(whole).filter(|part| part.to > 0).collect();
    weave(layout, parts, &stretches)
}

/// The rows `from..to`.
pub fn slice(layout: &Layout, rows: &Rows, from: usize, to: usize) -> Rows {
    if from == 0 && to == rows.len() {
        return rows.clone();
    }
    weave(layout, &[rows], &[Stretch { source: 0, from: from as u32, to: to as u32 }])
}

/// The rows marked, in order.
pub fn filter(layout: &Layout, rows: &Rows, keep: &[bool]) -> Rows {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (row, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
        match stretches.last_mut() {
            Some(last) if last.to == row as u32 => last.to += 1,
            _ => stretches.push(Stretch { source: 0, from: row as u32, to: row as u32 + 1 }),
        }
    }
    weave(layout, &[rows], &stretches)
}

/// The same rows with NULL in every column but the key's where `strip` says so.
pub fn strip(layout: &Layout, rows: Rows, strip: &[bool]) -> Rows {
    let Rows { keys, mut columns, metadata } = rows;
    for (slot, column) in columns.iter_mut().enumerate() {
        if layout.key.contains(&(slot as u16)) {
            continue;
        }
        let mut builder = ColumnBuilder::new(column.data_type(), strip.len());
        for stretch in strip.chunk_by(|a, b| a == b) {
            let from = builder.len();
            if stretch[0] {
                for _ in stretch {
                    builder.push_null();
                }
            } else {
                builder.extend(column, from, from + stretch.len());
            }
        }
        *column = Arc::new(builder.finish());
    }
    Rows { keys, columns, metadata }
}

/// The index of the first key that is not below `key`, from `from` on: doubling steps, then bisection, so a long
/// stretch costs its logarithm.
pub fn seek(keys: &Strings, from: usize, key: &[u8]) -> usize {
    let len = keys.len();
    let (mut low, mut step) = (from, 1);
    while low < len && keys.get((low + step - 1).min(len - 1)) < key {
        low = (low + step).min(len);
        step *= 2;
    }
    let mut high = (low + step).min(len);
    while low < high {
        let middle = low + (high - low) / 2;
        if keys.get(middle) < key {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Decides the order of the rows of all sources.
fn interleave(sources: &[&Rows]) -> Vec<Stretch> {
    let mut heads = vec![0usize; sources.len()];
    let mut stretches = Vec::new();
    loop {
        // The source with the least key (of equal ones the newest), and the least key among the others.
        let mut least: Option<(usize, &[u8])> = None;
        let mut bound: Option<&[u8]> = None;
        for (source, rows) in sources.iter().enumerate() {
            if heads[source] == rows.len() {
                continue;
            }
            let key = rows.keys.get(heads[source]);
            match least {
                Some((_, chosen)) if key == chosen => heads[source] += 1,
                Some((_, chosen)) if key > chosen => {
                    bound = Some(bound.map_or(key, |bound| bound.min(key)));
                }
                Some((_, chosen)) => {
                    bound = Some(chosen);
                    least = Some((source, key));
                }
                None => least = Some((source, key)),
            }
        }
        let Some((source, _)) = least else { return stretches };
        let keys = &sources[source].keys;
        let from = heads[source];
        // The row chosen is below the bound, and a head that was equal to it has moved on to a key above: that key was
        // not looked at, so the stretch ends after one row wherever a head moved. The next round sees it.
        let to = match bound {
            Some(bound) => seek(keys, from + 1, bound),
            None => keys.len(),
        };
        let to = end_of_stretch(sources, &heads, source, from, to);
        heads[source] = to;
        stretches.push(Stretch { source: source as u32, from: from as u32, to: to as u32 });
    }
}

/// Cuts a stretch where the head of another source, moved while it was chosen, lies inside it.
fn end_of_stretch(sources: &[&Rows], heads: &[usize], chosen: usize, from: usize, to: usize) -> usize {
    let mut to = to;
    for (source, rows) in sources.iter().enumerate() {
        if source == chosen || heads[source] == rows.len() || to <= from + 1 {
            continue;
        }
        let key = rows.keys.get(heads[source]);
        if key <= sources[chosen].keys.get(to - 1) {
            to = seek(&sources[chosen].keys, from + 1, key);
        }
    }
    to
}

/// Copies the stretches, column by column.
fn weave(layout: &Layout, sources: &[&Rows], stretches: &[Stretch]) -> Rows {
    if let [only] = stretches {
        let rows = sources[only.source as usize];
        if only.from == 0 && only.to as usize == rows.len() {
            return rows.clone();
        }
    }
    let total: usize = stretches.iter().map(|stretch| (stretch.to - stretch.from) as usize).sum();
    let positions = (total < stretches.len() * STRETCH_ROWS).then(|| positions(sources, stretches));
    let columns = (0..layout.columns.len())
        .map(|slot| {
            let parts: Vec<&Column> = sources.iter().map(|rows| rows.columns[slot].as_ref()).collect();
            Arc::new(weave_column(&parts, stretches, positions.as_deref(), total))
        })
        .collect();
    let mut keys = Strings::default();
    let mut metadata = Metadata::default();
    for stretch in stretches {
        let (from, to) = (stretch.from as usize, stretch.to as usize);
        let rows = sources[stretch.source as usize];
        (from..to).for_each(|row| keys.push(rows.keys.get(row)));
        metadata.created_ms.extend_from_slice(&rows.metadata.created_ms[from..to]);
        metadata.hlc.extend_from_slice(&rows.metadata.hlc[from..to]);
        metadata.origin.extend_from_slice(&rows.metadata.origin[from..to]);
        metadata.modified.extend_from_slice(&rows.metadata.modified[from..to]);
        metadata.tombstone.extend_from_slice(&rows.metadata.tombstone[from..to]);
    }
    Rows { keys, columns, metadata }
}

/// Where the rows of the stretches lie once all sources stand end to end.
fn positions(sources: &[&Rows], stretches: &[Stretch]) -> Vec<u32> {
    let mut bases = Vec::with_capacity(sources.len());
    let mut base = 0u32;
    for rows in sources {
        bases.push(base);
        base += rows.len() as u32;
    }
    stretches
        .iter()
        .flat_map(|stretch| {
            let base = bases[stretch.source as usize];
            base + stretch.from..base + stretch.to
        })
        .collect()
}

fn weave_column(parts: &[&Column], stretches: &[Stretch], positions: Option<&[u32]>, total: usize) -> Column {
    if let Some(constant) = common_constant(parts, total) {
        return constant;
    }
    let data_type = parts[0].data_type();
    if let Some(positions) = positions {
        let mut all = ColumnBuilder::new(data_type, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            all.extend(part, 0, part.len());
        }
        return all.finish().gather(positions);
    }
    let mut builder = ColumnBuilder::new(data_type, total);
    for stretch in stretches {
        builder.extend(parts[stretch.source as usize], stretch.from as usize, stretch.to as usize);
    }
    builder.finish()
}

/// The one value that all parts repeat, if they do.
fn common_constant(parts: &[&Column], total: usize) -> Option<Column> {
    let (first, others) = parts.split_first()?;
    let Column::Constant { value, data_type, .. } = first else { return None };
    let same = |part: &&Column| matches!(part, Column::Constant { value: other, .. } if other == value);
    others.iter().all(same).then(|| Column::constant(value.clone(), *data_type, total))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hlc::Timestamp;
    use crate::ids::{LogIndex, OriginUid};
    use crate::sql::batch::Values;
    use crate::storage::rows::Stamp;

    #[test]
    fn rows_that_stay_whole_are_not_copied() {
        let layout = Layout { columns: Vec::new(), key: Vec::new() };
        let text = Column::new(Values::Text([b"large".as_slice()].into_iter().collect()));
        let mut metadata = Metadata::default();
        let stamp = Stamp { created_ms: 1, hlc: Timestamp(1), origin: OriginUid(1), modified: LogIndex(1) };
        metadata.push(stamp, false);
        let rows = Rows { keys: [b"k".as_slice()].into_iter().collect(), columns: vec![Arc::new(text)], metadata };
        for same in [join(&layout, &[&rows]), slice(&layout, &rows, 0, 1)] {
            assert!(Arc::ptr_eq(&same.columns[0], &rows.columns[0]));
        }
    }
}
