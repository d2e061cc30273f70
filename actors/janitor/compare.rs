//! Comparing this node's copy with those of the others: the members of a group must show the same at the same position.
//!
//! ```text
//!   leader ── HashAt, committed ──> each member keeps a view of that position ─> hashes it, on a thread that yields
//!      every member asks every other one for its hash ─> judges by itself: equal, different, in the minority
//! ```
//!
//! * A difference is an alarm on every node that sees it, in `/health`, `/metrics` and the log, until a later comparison
//!   finds all alike. The leader then compares again soon.
//! * A copy that more than half of all contradict is given up and brought anew. With two copies nobody can tell which is
//!   right, so nobody does.
//! * A copy that comes out wrong again and again is no accident of a disk: after [`REBUILDS_MAX`] times it stays, with the
//!   alarm.

use super::Janitor;
use super::fingerprint::{Hashing, hash, told};
use crate::actors::messages::{Content, Propose};
use crate::actors::peers::{Peers, compare};
use crate::actors::route::Deadline;
use actix::fut::ActorFutureExt;
use actix::{AsyncContext, Context, WrapFuture};
use chronos::clock::Monotonic;
use chronos::error::{Error, Result};
use chronos::ids::LogIndex;
use chronos::machine::{Body, Command};
use chronos::raft::{Member, MemberRole, Membership, NodeId, Role};
use chronos::storage::comparison::{Finding, judge};
use chronos::storage::view::View;
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::{debug, error, info};

/// How often it is looked what is to be done: the work itself takes seconds at the least.
pub const LOOK: Duration = Duration::from_secs(1);

/// The wait before the first comparison of a leader, where the interval is longer: it may be restarted every day.
const FIRST_AFTER: Duration = Duration::from_mins(10);

/// The wait after copies were found to differ.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// How long a proposal may take; the next one comes anyway.
const PROPOSAL_WAIT: Duration = Duration::from_secs(10);

/// The pause between two rounds of asking those that have not hashed yet: grows to half a minute.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Hashes that are kept for those who ask later.
const CONTENTS_MAX: usize = 4;

/// How often a process gives up its copy because it differs.
const REBUILDS_MAX: u64 = 3;

/// What comparisons have found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Position of the last one that has found anything.
    pub index: LogIndex,
    /// Comparisons in which all have answered.
    pub completed: u64,
    /// Those in which copies differed.
    pub mismatches: u64,
    /// Members whose copy is another one than this node's.
    pub differ: Vec<String>,
    /// This node's copy is the one that is wrong.
    pub is_minority: bool,
    /// Times that this process gave up its copy for that.
    pub rebuilds: u64,
}

impl Comparison {
    /// What operators must know.
    pub fn alarm(&self) -> Option<String> {
        if self.differ.is_empty() {
            return None;
        }
        let (differ, index) = (self.differ.join(", "), self.index);
        Some(if self.is_minority {
            format!("this node's copy differs from the group's at entry {index}")
        } else {
            format!("the copies here and on {differ} differ at entry {index}")
        })
    }
}

/// What is compared at the moment.
pub struct Comparing {
    interval: Duration,
    /// When this node, where it leads, has copies compared again.
    due: Monotonic,
    hashing: Option<Hashing>,
    round: Option<Round>,
}

/// One comparison.
struct Round {
    own: Content,
    heard: BTreeMap<NodeId, u128>,
    is_asking: bool,
    next: Monotonic,
    pause: Duration,
    /// The difference was told.
    is_told: bool,
}

impl Comparing {
    /// Nothing so far.
    pub fn new(interval: Duration, now: Monotonic) -> Comparing {
        Comparing { interval, due: now + interval.min(FIRST_AFTER), hashing: None, round: None }
    }
}

/// The members whose copies count, and this node.
fn copies(membership: &Membership, own: &NodeId) -> Vec<(NodeId, Member)> {
    let counts = |(id, member): &(&NodeId, &Member)| member.role == MemberRole::Voter || *id == own;
    membership.members.iter().filter(counts).map(|(id, member)| (id.clone(), member.clone())).collect()
}

impl Janitor {
    /// True while what is compared is hashed.
    pub(super) fn is_comparing(&self) -> bool {
        self.comparing.hashing.is_some()
    }

    /// Does what is due; called every [`LOOK`].
    pub(super) fn compare(&mut self, context: &mut Context<Janitor>) {
        self.propose_comparison(context);
        if self.comparing.hashing.is_none()
            && let Some(view) = self.lent.handle.take_marked()
        {
            self.hash(view, context);
        }
        self.ask_others(context);
    }

    fn propose_comparison(&mut self, context: &mut Context<Janitor>) {
        let report = self.seed.published.raft();
        let (status, now) = (&report.status, self.seed.clock.monotonic());
        let command = Command { request: None, origin: self.lent.origin, affected: 0, body: Body::HashAt };
        let is_due = status.role == Role::Leader
            && now >= self.comparing.due
            && copies(&status.membership, &self.seed.id).len() > 1
            && status.membership.command_version >= command.version();
        if !is_due {
            return;
        }
        self.comparing.due = now + self.comparing.interval;
        let (raft, command) = (self.seed.raft.clone(), command.encode());
        let proposed = async move {
            if let Err(error) = raft.ask(Propose { command }, Deadline::after(PROPOSAL_WAIT)).await {
                debug!(%error, "copies are not compared this time");
            }
        };
        context.spawn(proposed.into_actor(self));
    }

    fn hash(&mut self, view: View, context: &mut Context<Janitor>) {
        let Some((hashing, hashed)) = hash(view, self.seed.clock.clone()) else { return };
        self.comparing.hashing = Some(hashing);
        let hashed = hashed.into_actor(self).map(|hashed, janitor, _| {
            janitor.comparing.hashing = None;
            if let Some(own) = told(hashed) {
                janitor.begin_round(own);
            }
        });
        context.spawn(hashed);
    }

    fn begin_round(&mut self, own: Content) {
        let published = &self.seed.published;
        published.set_content(own);
        let mut contents = published.contents().to_vec();
        contents.push(own);
        contents.drain(..contents.len().saturating_sub(CONTENTS_MAX));
        published.set_contents(contents);
        self.comparing.round = Some(Round {
            own,
            heard: BTreeMap::new(),
            is_asking: false,
            next: Monotonic::ZERO,
            pause: PAUSE_MIN,
            is_told: false,
        });
    }

    /// Asks those for their hash that have not said it yet.
    fn ask_others(&mut self, context: &mut Context<Janitor>) {
        let now = self.seed.clock.monotonic();
        let membership = self.seed.published.raft().status.membership.clone();
        let Some(round) = self.comparing.round.as_mut().filter(|round| !round.is_asking && now >= round.next) else {
            return;
        };
        let is_open = |(id, _): &(NodeId, Member)| *id != self.seed.id && !round.heard.contains_key(id);
        let open: Vec<(NodeId, Member)> = copies(&membership, &self.seed.id).into_iter().filter(is_open).collect();
        if open.is_empty() {
            return;
        }
        (round.is_asking, round.next) = (true, now + round.pause);
        round.pause = (round.pause * 2).min(PAUSE_MAX);
        let (index, peers, published) = (round.own.index, self.seed.peers.clone(), self.seed.published.clone());
        let asked = async move {
            let mut heard = Vec::new();
            for (id, member) in open {
                let answer: Result<Option<u128>> =
                    compare::ask(&peers as &Peers, &published, &id, &member.address, index).await;
                match answer {
                    Ok(hash) => heard.extend(hash.map(|hash| (id, hash))),
                    Err(error) => debug!(peer = %id, %error, "a copy cannot be compared now"),
                }
            }
            heard
        };
        context.spawn(asked.into_actor(self).map(move |heard, janitor, _| janitor.heard(index, heard)));
    }

    fn heard(&mut self, index: LogIndex, heard: Vec<(NodeId, u128)>) {
        let membership = self.seed.published.raft().status.membership.clone();
        let Some(round) = self.comparing.round.as_mut().filter(|round| round.own.index == index) else { return };
        round.is_asking = false;
        round.heard.extend(heard);
        let copies = copies(&membership, &self.seed.id);
        round.heard.retain(|id, _| copies.iter().any(|(copy, _)| copy == id));
        let found = judge(round.own.hash, round.heard.iter().map(|(id, hash)| (id, *hash)), copies.len());
        let is_news = !found.differ.is_empty() && !std::mem::replace(&mut round.is_told, !found.differ.is_empty());
        if found.is_complete {
            self.comparing.round = None;
        }
        self.conclude(index, &found, is_news);
    }

    fn conclude(&mut self, index: LogIndex, found: &Finding, is_news: bool) {
        let before = self.seed.published.comparison();
        let mut report = (*before).clone();
        report.completed += u64::from(found.is_complete);
        if !found.differ.is_empty() {
            (report.index, report.is_minority) = (index, found.is_minority);
            report.differ = found.differ.iter().map(|id| id.0.clone()).collect();
            report.mismatches += u64::from(is_news);
            let again = self.seed.clock.monotonic() + self.comparing.interval.min(AGAIN_AFTER);
            self.comparing.due = self.comparing.due.min(again);
        } else if found.is_complete {
            (report.index, report.is_minority, report.differ) = (index, false, Vec::new());
        }
        if let Some(alarm) = report.alarm().filter(|_| is_news || found.is_minority) {
            error!("{alarm}");
            if found.is_minority && report.rebuilds < REBUILDS_MAX {
                report.rebuilds += 1;
                // No need to hear the rest: more than half of all have spoken.
                self.comparing.round = None;
                self.lent.condemn(Error::damaged(alarm));
            }
        } else if found.is_complete && found.differ.is_empty() {
            info!(index = index.0, "all copies are alike");
        }
        if report != *before {
            self.seed.published.set_comparison(report);
        }
    }
}
