//! The members of a group as people read them: each has a word for its state. A script has what that is made of, each in a
//! field of its own (`members_json`).

use crate::actors::proto::wire::{MemberStatus, MembersResponse};

/// Entries that a member lacks while everything is well: what is on its way under load, several times over.
const BEHIND_MAX: u64 = 10_000;

/// For people: a line each, the columns as wide as what is in them.
pub fn as_text(group: &MembersResponse) -> String {
    let last = group.members.iter().find(|member| member.leads).and_then(|leader| leader.matched);
    let mut rows = vec![["member", "address", "role", "leads", "matched", "silent", "state"].map(str::to_owned)];
    rows.extend(group.members.iter().map(|member| {
        [
            member.id.clone(),
            member.address.clone(),
            member.role.clone(),
            if member.leads { "yes" } else { "" }.to_owned(),
            member.matched.map(|matched| matched.to_string()).unwrap_or_default(),
            member.silent_ms.map(|silent| format!("{silent} ms")).unwrap_or_default(),
            state(member, last),
        ]
    }));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 7]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<String>>().join("\n")
}

/// How a member is, where the leader's log ends at `last`; nothing where only the leader could tell.
fn state(member: &MemberStatus, last: Option<u64>) -> String {
    if member.leads {
        let problem = if member.problem.is_empty() { String::new() } else { format!(": {}", member.problem) };
        return format!("leads{problem}");
    }
    if !member.problem.is_empty() {
        return member.problem.clone();
    }
    let behind = last.zip(member.matched).map_or(0, |(last, matched)| last.saturating_sub(matched));
    let learns = member.role == "learner";
    match member.flow.as_str() {
        "probe" => "probing".to_owned(),
        "replicate" if behind > BEHIND_MAX || (learns && behind > 0) => format!("catching up ({behind} behind)"),
        "replicate" => "follows".to_owned(),
        "full" => "full: takes no more".to_owned(),
        // "snapshot", and what a newer node may say.
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> MembersResponse {
        let member = |id: &str, role: &str, flow: &str, matched, problem: &str| MemberStatus {
            id: id.to_owned(),
            address: format!("{id}:8000"),
            role: role.to_owned(),
            matched: Some(matched),
            silent_ms: Some(20),
            flow: flow.to_owned(),
            command_version: Some(3),
            problem: problem.to_owned(),
            ..MemberStatus::default()
        };
        let old = "too old: knows commands up to 3, group uses 4: start a newer chronos";
        let leader = MemberStatus {
            leads: true,
            silent_ms: None,
            command_version: None,
            ..member("a", "voter", "", 20_000, "")
        };
        let members = vec![
            leader,
            member("b", "voter", "replicate", 19_990, ""),
            member("c", "voter", "replicate", 9_999, ""),
            member("d", "learner", "replicate", 19_990, ""),
            member("e", "voter", "snapshot", 0, ""),
            member("f", "voter", "probe", 7, ""),
            member("g", "voter", "replicate", 7, "silent"),
            member("h", "voter", "probe", 7, old),
            member("w", "witness", "full", 7, ""),
        ];
        MembersResponse { members, term: 3, leader: "a".to_owned() }
    }

    #[test]
    fn each_member_has_a_state_in_words() {
        let expected = "\
member  address  role     leads  matched  silent  state
a       a:8000   voter    yes    20000            leads
b       b:8000   voter           19990    20 ms   follows
c       c:8000   voter           9999     20 ms   catching up (10001 behind)
d       d:8000   learner         19990    20 ms   catching up (10 behind)
e       e:8000   voter           0        20 ms   snapshot
f       f:8000   voter           7        20 ms   probing
g       g:8000   voter           7        20 ms   silent
h       h:8000   voter           7        20 ms   too old: knows commands up to 3, group uses 4: start a newer chronos
w       w:8000   witness         7        20 ms   full: takes no more";
        assert_eq!(as_text(&group()), expected);
        let full = MemberStatus { problem: "a is short of disk".to_owned(), ..group().members.swap_remove(0) };
        assert_eq!(state(&full, Some(20_000)), "leads: a is short of disk");
        // One that does not lead knows who does, and no more.
        let unknown = MemberStatus { id: "b".to_owned(), role: "voter".to_owned(), ..MemberStatus::default() };
        assert_eq!(state(&unknown, None), "");
    }
}
