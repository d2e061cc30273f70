//! `chronos admin recover`: the copy of one stopped node becomes the group, where more disks are lost than it survives.
//!
//! Without `--accept-loss` it tells what that would give up, and changes nothing. What it does, and why like that, is in
//! `storage::engine::claim`.
//!
//! * None of the others may run meanwhile: they might be a majority beside this one. So it knocks at their addresses.

use super::embedded::options;
use super::{Environment, Stdout, Stop};
use chronos::config::{Sources, load};
use chronos::embedded::engine_options;
use chronos::raft::{Membership, Position};
use chronos::storage::directory::{self, Create, Database};
use chronos::storage::engine::{self, Claim};
use serde_json::json;
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// How long a member may take to answer the knock. One that is there does at once.
const KNOCK_WAIT: Duration = Duration::from_secs(2);

/// What `admin recover` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, where node2 and node3 are lost or damaged, and node1 is stopped:
  chronos admin recover --data-dir data --id node1                 # what would be given up
  chronos admin recover --data-dir data --id node1 --accept-loss
  chronos node --id node1 --data-dir data ...                      # as before: it is a group of its own now
  chronos admin add-node node2=10.0.0.2:8000                       # then, there, with an empty directory:
  chronos node --id node2 --join --peers node1=10.0.0.1:8000 ...")]
pub struct Arguments {
    /// Directory of the databases, of a stopped node
    #[arg(long, value_name = "DIR", default_value = "data")]
    data_dir: PathBuf,
    /// Which database of the directory [default: the only one]
    #[arg(long)]
    id: Option<String>,
    /// Do it: what only other members had is lost
    #[arg(long)]
    accept_loss: bool,
    /// Do it although something answers where another member was
    #[arg(long, requires = "accept_loss")]
    force: bool,
}

/// Tells what would be given up, and gives it up where that is accepted.
pub fn run(arguments: &Arguments, as_json: bool, environment: Environment) -> Result<(), Stop> {
    let loaded =
        load(&Sources { environment, ..Sources::default() }).map_err(|problems| Stop::Usage(problems.to_string()))?;
    let options = engine_options(options(&loaded.config).engine);
    let files = &options.files;
    let path = directory::resolve(&**files, &arguments.data_dir, arguments.id.as_deref(), "node1", Create::Refused)?;
    // Under its lock: a node that runs is refused by name.
    let database = Database::open(files.clone(), &path)?;
    let claim = Claim::survey(&database)?;
    let id = &database.identity.node_id;
    print(&if as_json { facts(id, &claim) } else { told(id, &claim) })?;
    if claim.is_alone {
        return Ok(());
    }
    let awake = awake(&claim);
    if !arguments.accept_loss {
        let warning = if awake.is_empty() { String::new() } else { format!("; first stop {}", awake.join(" and ")) };
        return Err(Stop::Message(format!("nothing was changed: --accept-loss does it{warning}")));
    }
    if !awake.is_empty() && !arguments.force {
        let text = format!(
            "nothing was changed: something answers at {}. Stop those members first, or they may be a majority beside \
             this one; where it is another program, --force goes on",
            awake.join(" and ")
        );
        return Err(Stop::Message(text));
    }
    let claimed = engine::claim(&database, &options)?;
    if as_json { Ok(()) } else { print(&afterwards(id, &claim, claimed)) }
}

/// Other members at whose addresses something answers.
fn awake(claim: &Claim) -> Vec<String> {
    let answers = |address: &str| {
        let resolved = address.to_socket_addrs();
        resolved.is_ok_and(|mut found| found.any(|at| TcpStream::connect_timeout(&at, KNOCK_WAIT).is_ok()))
    };
    let others = claim.left_out().filter(|(_, member)| answers(&member.address));
    others.map(|(id, member)| format!("{id} ({})", member.address)).collect()
}

fn names(group: &Membership) -> String {
    group.members.keys().map(|id| id.0.as_str()).collect::<Vec<&str>>().join(", ")
}

fn left_out(claim: &Claim) -> Vec<&str> {
    claim.left_out().map(|(id, _)| id.0.as_str()).collect()
}

/// What the disk says, and what would be given up, for people.
fn told(id: &str, claim: &Claim) -> String {
    if claim.is_alone {
        return format!("{id} is the only member of its group, and whole: there is nothing to recover");
    }
    let log = &claim.log;
    let least = if claim.is_exact { "" } else { "at least " };
    let mut lines = vec![
        format!("{id} is a member of the group {}", names(&claim.group)),
        format!(
            "  its log ends at entry {} of term {}, and it has heard of term {}",
            log.last.index, log.last.term, log.hard_state.term
        ),
        format!("  committed for certain: everything up to entry {}", claim.sealed),
        format!("  this copy reaches {least}entry {}: compare that with the other copies", claim.reach()),
    ];
    if !claim.is_exact {
        lines.push(
            "  it may reach further: its state may stand ahead of its damaged log, and how far shows only once it is \
             opened, as --accept-loss does: so try that on a copy of the directory"
                .to_owned(),
        );
    }
    if let Some(damage) = &log.damage {
        lines.push(format!("  its log is damaged: {damage}"));
    }
    if let Some(unseated) = &log.unseated {
        lines.push(format!(
            "  its newest term and vote cannot be read, and are not needed for this: {}",
            unseated.message()
        ));
    }
    if log.hard_state.is_dismissed() {
        lines.push(
            "  it is out: another member has told it that it was removed, or left out when the group was recovered, or a \
             recovery with a damaged log was not completed"
                .to_owned(),
        );
    } else if log.reached > claim.reach() {
        let from = claim.reach().next();
        let lost = if claim.is_exact { "has lost" } else { "may have lost" };
        lines.push(format!("  it has had entries up to {}, and {lost} {from} to {0}", log.reached));
    } else if log.hard_state.quarantined_until.is_some() {
        lines.push("  it is in quarantine: it has lost entries, or has not shown yet that it has all".to_owned());
    }
    let left_out = left_out(claim).join(", ");
    lines.push("given up:".to_owned());
    let later = if claim.is_exact { "" } else { ", or a later one" };
    let reach = claim.reach();
    let acknowledged = "writes that only others have, acknowledged ones among them";
    lines.push(format!("  {acknowledged}: all behind entry {reach}{later}"));
    if !left_out.is_empty() {
        lines.push(format!("  the members {left_out}: none of them may run again on the disk that it has"));
    }
    lines.join("\n")
}

/// The same for programs.
fn facts(id: &str, claim: &Claim) -> String {
    let log = &claim.log;
    json!({
        "id": id,
        "members": claim.group.members.keys().map(|id| &id.0).collect::<Vec<&String>>(),
        "left_out": left_out(claim),
        "last_index": log.last.index.0,
        "last_term": log.last.term.0,
        "term": log.hard_state.term.0,
        "committed_at_least": claim.sealed.0,
        "reach": claim.reach().0,
        "reach_is_exact": claim.is_exact,
        "reached": log.reached.0,
        "quarantined": log.hard_state.quarantined_until.is_some(),
        "term_is_certain": log.unseated.is_none(),
        "damage": log.damage.as_ref().map(ToString::to_string),
        "nothing_to_do": claim.is_alone,
    })
    .to_string()
}

/// What is to be done now.
fn afterwards(id: &str, claim: &Claim, claimed: Option<Position>) -> String {
    let left_out = left_out(claim);
    let kept = claimed.map_or_else(String::new, |at| format!(" up to entry {}", at.index.previous()));
    let Some(other) = left_out.first() else {
        return format!("{id} goes on with what it has{kept}: start it as before");
    };
    format!(
        "{id} is a group of its own now, with what it had{kept}: start it as before. Then empty the directories of {} and add them again, one by \
         one: chronos admin add-node {other}=HOST:PORT here, and there chronos node --id {other} --join --peers {id}=...",
        left_out.join(", ")
    )
}

fn print(text: &str) -> Result<(), Stop> {
    let mut out = Stdout::lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}
