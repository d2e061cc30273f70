//! The rules of consensus, one test each: those of the thesis' figure 2, and what raft.md adds to them.
//!
//! A group of nodes stands still until a test lets time pass, a message arrive or a disk work. What chance brings about is
//! the business of `simulation`.
//!
//! They are Rust on a scripted clock, and not golden scripts as the SQL front has them. A rule is broken by what a healthy
//! node never says, so messages are made up, of disks that are not there too; what matters most is what has *not* left a
//! node before its disk had worked, and a script of answers shows what is there; and a message or a role that is given
//! another name, or a new field, is to break the build here rather than a text that nobody reads as carefully.

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
