//! Comparing copies: what the content hashes of a group's members, all of one position, say about each of them.
//!
//! A difference is always an alarm. Which copy is wrong a majority says: more than half of all copies, not of those that
//! have answered, for the others may agree with the minority. With two copies, or without a majority, nobody can tell.

use crate::raft::NodeId;

/// What is known of the copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Those whose copy is another one than this node's.
    pub differ: Vec<NodeId>,
    /// More than half of all copies agree, and this node's is none of them.
    pub is_minority: bool,
    /// All have answered.
    pub is_complete: bool,
}

/// Judges a copy by the others that are known, of `copies` in all, this one included.
pub fn judge<'a>(own: u128, others: impl Iterator<Item = (&'a NodeId, u128)> + Clone, copies: usize) -> Finding {
    let differ = others.clone().filter(|(_, hash)| *hash != own).map(|(id, _)| id.clone()).collect();
    let agree = |with: u128| others.clone().filter(|(_, hash)| *hash == with).count();
    let is_minority = others.clone().any(|(_, hash)| hash != own && 2 * agree(hash) > copies);
    Finding { differ, is_minority, is_complete: others.count() + 1 >= copies }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(own: u128, others: &[(&str, u128)], copies: usize) -> (Vec<String>, bool, bool) {
        let others: Vec<(NodeId, u128)> = others.iter().map(|(id, hash)| (NodeId((*id).to_string()), *hash)).collect();
        let found = judge(own, others.iter().map(|(id, hash)| (id, *hash)), copies);
        (found.differ.into_iter().map(|id| id.0).collect(), found.is_minority, found.is_complete)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_string()).collect()
    }

    #[test]
    fn equal_copies_differ_from_nobody() {
        assert_eq!(finding(7, &[("b", 7), ("c", 7)], 3), (vec![], false, true));
        assert_eq!(finding(7, &[("b", 7)], 3), (vec![], false, false));
    }

    #[test]
    fn the_minority_is_what_more_than_half_of_all_copies_contradict() {
        assert_eq!(finding(1, &[("b", 7), ("c", 7)], 3), (names(&["b", "c"]), true, true));
        assert_eq!(finding(7, &[("b", 7), ("c", 1)], 3), (names(&["c"]), false, true));
        // Two of five agree against this one, and the other two may agree with it.
        assert_eq!(finding(1, &[("b", 7), ("c", 7)], 5), (names(&["b", "c"]), false, false));
        assert_eq!(finding(1, &[("b", 7), ("c", 7), ("d", 7)], 5), (names(&["b", "c", "d"]), true, false));
    }

    #[test]
    fn of_two_copies_nobody_knows_which_is_right() {
        assert_eq!(finding(1, &[("b", 7)], 2), (names(&["b"]), false, true));
        assert_eq!(finding(1, &[("b", 7), ("c", 9)], 3), (names(&["b", "c"]), false, true));
    }
}
