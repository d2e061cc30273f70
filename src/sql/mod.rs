//! SQL: what a statement may say, and how it runs.
//!
//! ```text
//! text -> translate -> statement -> bind -> plan -> optimize -> operators over column batches
//!                                            └────────> writes: effects, proposed to the log
//! ```
//!
//! `value`, `batch` and `catalog` are the leaves: storage speaks in them too.

pub mod batch;
pub mod bind;
pub mod catalog;
pub mod evaluate;
pub mod execute;
pub mod explain;
pub mod expression;
pub mod insert;
pub mod latch;
pub mod memory;
pub mod operator;
pub mod optimize;
pub mod outline;
pub mod plan;
pub mod point;
mod scanner;
pub mod statement;
pub mod suggest;
pub mod text;
pub mod translate;
pub mod value;
