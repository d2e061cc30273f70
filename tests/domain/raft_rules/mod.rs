//! The rules of consensus, one test each: those of the thesis' figure 2, and what raft.md adds to them.
//!
//! A group of nodes stands still until a test lets time pass, a message arrive or a disk work. What chance brings about is
//! the business of `simulation`.

mod alone;
mod damage;
mod dismissal;
mod elections;
mod full_disks;
mod group;
mod identity;
mod leases;
mod members;
mod reads;
mod replication;
mod rolled_back;
mod transfer;
mod versions;
mod witness;

use group::Group;
