//! What the other nodes have said of themselves, and which of them is there twice.
//!
//! A disk that is copied, as an image of a memory card to a second machine, makes two nodes of one name and one disk id.
//! Both vote, and both acknowledge, and the group takes them for one: what it counts holds no more. So each process draws a
//! number for its life when it starts, and says it at the beginning of every link:
//!
//! ```text
//!   a ── b        it was started again, maybe elsewhere: nobody meets a any more
//!   a ── b ── a   perhaps a greeting of a that was handled late
//!   a ── b ── a ── b   both live
//! ```
//!
//! * Of two that live each takes the other one's link, and loses it again: both are met again within seconds.
//! * It is told, in the log and in `/health`, and not prevented: which of the two is the right one, nobody here knows.

use super::Identity;
use chronos::ids::DiskId;
use chronos::raft::NodeId;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Lives that are remembered of a disk: two that alternate, and what an operator starts in between.
const LIVES_MAX: usize = 8;

/// Returns to an earlier life from which on two are taken to live.
const RETURNS_MIN: u32 = 2;

/// How long after both were met last it is said that there are two: links are dialled again within seconds.
const COPIED_STANDS: Duration = Duration::from_mins(1);

/// The others, by their names.
#[derive(Default)]
pub(super) struct Met(BTreeMap<NodeId, Known>);

/// What is known of one.
struct Known {
    disk: DiskId,
    address: String,
    /// Its lives and where each was met; the newest last.
    lives: VecDeque<(u64, String)>,
    /// How often it went back to a life that another had followed. Once may be a greeting that was handled late.
    returns: u32,
    /// That there are two of it, and when that was seen last.
    copied: Option<(String, Instant)>,
}

impl Met {
    /// Takes note of what a node says on a new link from, or to, a place; says so where it is there twice, which nobody
    /// knew.
    pub(super) fn note(&mut self, node: &Identity, place: &str, now: Instant) -> Option<String> {
        let fresh =
            || Known { disk: node.disk, address: String::new(), lives: VecDeque::new(), returns: 0, copied: None };
        let known = self.0.entry(node.id.clone()).or_insert_with(fresh);
        if known.disk != node.disk {
            *known = fresh();
        }
        known.address.clone_from(&node.address);
        let life = node.life?;
        let place = described(&node.address, place);
        let newest = known.lives.back().cloned();
        let before = known.lives.iter().position(|(met, _)| *met == life);
        if let Some(before) = before {
            known.lives.remove(before);
        } else if known.lives.len() >= LIVES_MAX {
            known.lives.pop_front();
        }
        known.lives.push_back((life, place.clone()));
        let (_, other) = newest.filter(|(last, _)| before.is_some() && *last != life)?;
        known.returns = known.returns.saturating_add(1);
        if known.returns < RETURNS_MIN {
            return None;
        }
        let text = told(&node.id, &other, &place);
        let is_known = known.copied.replace((text.clone(), now)).is_some_and(|(_, since)| stands(since, now));
        (!is_known).then_some(text)
    }

    /// That a node is there twice, where that is so.
    pub(super) fn copied(&self, id: &NodeId, now: Instant) -> Option<&str> {
        let (text, since) = self.0.get(id)?.copied.as_ref()?;
        stands(*since, now).then_some(text)
    }

    /// The same of whichever.
    pub(super) fn first_copied(&self, now: Instant) -> Option<&str> {
        self.0.keys().find_map(|id| self.copied(id, now))
    }

    /// Calls `tell` with what each has said of itself: on which disk it is, and where it is reached.
    pub(super) fn for_each(&self, mut tell: impl FnMut(&NodeId, DiskId, &str)) {
        self.0.iter().for_each(|(id, known)| tell(id, known.disk, &known.address));
    }

    /// Forgets those that are not to be kept.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&NodeId) -> bool) {
        self.0.retain(|id, _| is_kept(id));
    }
}

/// Where a node was met: where it says, and where else it was seen.
fn described(address: &str, place: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
    if place.is_empty() || place == address || place == host {
        return address.to_owned();
    }
    format!("{address} (seen at {place})")
}

fn stands(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < COPIED_STANDS
}

fn told(id: &NodeId, first: &str, second: &str) -> String {
    let (low, high) = if first < second { (first, second) } else { (second, first) };
    let places =
        if low == high { format!("twice from {low}") } else { format!("from two addresses: {low} and {high}") };
    format!(
        "{id} is announced {places}: its disk was copied, and both vote as one: stop one of them, \
         and start it with --clean under an id of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(disk: u128, life: Option<u64>, address: &str) -> Identity {
        Identity { address: address.to_owned(), life, ..Identity::example("node2", disk) }
    }

    #[test]
    fn a_node_that_is_there_twice_is_named_with_both_addresses_once() {
        let (mut met, now) = (Met::default(), Instant::now());
        let (first, second) = (node(1, Some(11), "a:1"), node(1, Some(12), "b:1"));
        assert_eq!(met.note(&first, "a:1", now), None);
        assert_eq!(met.note(&second, "b:1", now), None, "it has moved");
        assert_eq!(met.note(&first, "a:1", now), None, "it may be late");
        let told = met.note(&second, "b:1", now).expect("both live");
        assert!(told.starts_with("node2 is announced from two addresses: a:1 and b:1: "), "{told}");
        assert_eq!(met.note(&first, "a:1", now + COPIED_STANDS / 2), None, "said already");
        let end = now + COPIED_STANDS / 2 + COPIED_STANDS;
        assert_eq!(met.first_copied(end - Duration::from_millis(1)), Some(told.as_str()));
        assert_eq!(met.first_copied(end), None, "one of them was stopped");
        assert_eq!(met.note(&second, "b:1", end), Some(told), "and is back");
    }

    #[test]
    fn one_address_for_both_is_told_with_where_each_was_seen() {
        let (mut met, now) = (Met::default(), Instant::now());
        met.note(&node(1, Some(11), "edge:1"), "edge:1", now);
        met.note(&node(1, Some(12), "edge:1"), "10.0.0.9", now);
        met.note(&node(1, Some(11), "edge:1"), "edge:1", now);
        let told = met.note(&node(1, Some(12), "edge:1"), "10.0.0.9", now).expect("both live");
        assert!(told.contains("from two addresses: edge:1 and edge:1 (seen at 10.0.0.9): "), "{told}");
        let told = met.note(&node(1, Some(11), "edge:1"), "10.0.0.9", now + COPIED_STANDS * 2).expect("both live");
        assert!(told.contains("announced twice from edge:1 (seen at 10.0.0.9): "), "{told}");
        assert_eq!(described("[::1]:8000", "::1"), "[::1]:8000");
    }

    #[test]
    fn starts_other_disks_and_older_programs_are_no_copies() {
        let (mut met, now) = (Met::default(), Instant::now());
        for life in (1..40).flat_map(|life| [life, life]) {
            assert_eq!(met.note(&node(1, Some(life), "a:1"), "a:1", now), None, "started again, linked twice");
        }
        for (disk, life) in [(2, Some(7)), (1, Some(7)), (2, Some(7)), (1, None), (1, Some(7)), (1, None)] {
            assert_eq!(met.note(&node(disk, life, "a:1"), "a:1", now), None, "{disk} {life:?}");
        }
        let mut addresses = Vec::new();
        met.for_each(|_, disk, address| addresses.push((disk, address.to_owned())));
        assert_eq!(addresses, [(DiskId(1), "a:1".to_owned())]);
    }
}
