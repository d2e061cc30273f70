//! Each distinct row once, the first of its equals. NULL equals NULL here.

use super::grouping::{Assignment, Groups};
use super::{Context, Operator, pause};
use crate::error::Result;
use crate::sql::batch::Batch;
use crate::sql::memory::Reservation;

pub(super) struct Distinct {
    input: Box<dyn Operator>,
    /// Rows that have come, as groups; made when the first batch tells the types.
    groups: Option<Groups>,
    memory: Reservation,
}

impl Distinct {
    pub(super) fn new(input: Box<dyn Operator>, context: &Context) -> Distinct {
        Distinct { input, groups: None, memory: context.memory.reservation() }
    }

    /// The rows of a batch that begin a group.
    fn first_of(&mut self, batch: Batch) -> Result<Batch> {
        let groups = if let Some(groups) = &mut self.groups {
            groups
        } else {
            let types = batch.columns.iter().map(|column| column.data_type()).collect();
            self.groups.insert(Groups::new(types)?)
        };
        // Rows of no columns are all equal, and the one group of no columns is there from the beginning.
        if batch.columns.is_empty() {
            let rows = usize::from(self.memory.bytes() == 0);
            self.memory.set(1)?;
            return Ok(Batch { columns: Vec::new(), rows });
        }
        let mut next = groups.len() as u32;
        let assignment = groups.assign(&batch.columns, batch.rows)?;
        self.memory.set(groups.byte_len())?;
        let mut first = Vec::new();
        let mut visit = |row: u32, group: u32| {
            if group == next {
                first.push(row);
                next += 1;
            }
        };
        match &assignment {
            Assignment::Runs(runs) => runs.iter().for_each(|run| visit(run.from, run.group)),
            Assignment::Rows(groups) => (0u32..).zip(groups).for_each(|(row, &group)| visit(row, group)),
        }
        Ok(match first.len() {
            0 => pause(),
            all if all == batch.rows => batch,
            _ => batch.gather(&first),
        })
    }
}

impl Operator for Distinct {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        match self.input.next_batch()? {
            Some(batch) if batch.rows > 0 => Ok(Some(self.first_of(batch)?)),
            Some(_) => Ok(Some(pause())),
            None => {
                self.memory.set(0)?;
                Ok(None)
            }
        }
    }
}
