//! A place among the cells of a batch, from which writing goes on.

use crate::actors::encode::Cell;
use crate::actors::format::Format;
use chronos::sql::batch::Batch;

/// The next thing to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    row: usize,
    column: usize,
    /// Bytes of the cell's text that are written.
    part: usize,
}

impl Place {
    /// Before a row.
    pub fn before(row: usize) -> Place {
        Place { row, ..Place::default() }
    }

    /// The row that is being written, or comes next.
    pub fn row(self) -> usize {
        self.row
    }

    /// True where nothing of the row is written.
    pub fn begins_row(self) -> bool {
        self.column == 0 && self.part == 0
    }

    /// Writes a cell, or a part of it, with what stands around it.
    pub fn step(&mut self, format: Format, batch: &Batch, is_first: bool, out: &mut Vec<u8>) {
        if self.begins_row() {
            format.begin_row(out, batch, self.row, is_first);
        }
        if let Some(column) = batch.columns.get(self.column) {
            if self.column > 0 && self.part == 0 {
                format.separate(out);
            }
            self.part = format.cell(out, &Cell::of(column, self.row), self.part);
            if self.part > 0 {
                return;
            }
            self.column += 1;
        }
        if self.column == batch.columns.len() {
            format.end_row(out);
            *self = Place::before(self.row + 1);
        }
    }
}
