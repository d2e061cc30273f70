//! LIMIT and OFFSET. Once satisfied it drops its input, which ends the scan below and gives back what it held.

use super::{Operator, pause};
use crate::error::Result;
use crate::sql::batch::Batch;
use std::sync::Arc;

pub(super) struct Limit {
    input: Option<Box<dyn Operator>>,
    /// Rows still to hand out.
    left: Option<u64>,
    /// Rows still to pass over.
    skip: u64,
}

impl Limit {
    pub(super) fn new(input: Box<dyn Operator>, limit: Option<u64>, offset: u64) -> Limit {
        Limit { input: (limit != Some(0)).then_some(input), left: limit, skip: offset }
    }
}

impl Operator for Limit {
    fn next_batch(&mut self) -> Result<Option<Batch>> {
        let Some(input) = &mut self.input else { return Ok(None) };
        let Some(batch) = input.next_batch()? else {
            self.input = None;
            return Ok(None);
        };
        let from = self.skip.min(batch.rows as u64);
        self.skip -= from;
        let rows = self.left.unwrap_or(u64::MAX).min(batch.rows as u64 - from);
        if let Some(left) = &mut self.left {
            *left -= rows;
            if *left == 0 {
                self.input = None;
            }
        }
        if rows == batch.rows as u64 {
            return Ok(Some(batch));
        }
        if rows == 0 {
            return Ok(Some(pause()));
        }
        let (from, to) = (from as usize, (from + rows) as usize);
        let columns = batch.columns.iter().map(|column| Arc::new(column.slice(from, to))).collect();
        Ok(Some(Batch { columns, rows: to - from }))
    }
}
