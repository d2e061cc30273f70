//! `chronos admin`: what operators do to a running group, and to one that cannot run any more (`recover`).

use super::client::Leader;
use super::remote::{self, Target};
use super::{Environment, Stdout, Stop, recover};
use crate::actors::proto::wire::admin_service_client::AdminServiceClient;
use crate::actors::proto::wire::change_members_request::Change;
use crate::actors::proto::wire::{
    AddMember, ChangeMembersRequest, MemberStatus, MembersRequest, MembersResponse, ReportRequest,
    TransferLeaderRequest,
};
use chronos::Error;
use clap::Subcommand;
use serde_json::{Value as Json, json};
use std::io::Write;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const EXAMPLES: &str = "\
Examples:
  chronos admin members                                    # who belongs to the group, who leads, how far each is
  chronos admin add-node node4=10.0.0.4:8000               # then, there: chronos node --id node4 --join --peers ...
  chronos admin add-node node3=10.0.0.9:8000 --role witness  # the small third beside two that have the data
  chronos admin remove-node node2
  chronos admin transfer --to node3                        # before node1 is restarted
  chronos admin status --json | jq .raft
  chronos admin recover --data-dir data --id node1         # on a stopped node, where most of the group is lost";

/// What `admin` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    leader: Leader,
    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    #[command(flatten)]
    Asked(Asked),
    /// Go on with the copy of one stopped node alone, where more disks are lost than the group survives
    Recover(recover::Arguments),
}

/// What a running node is asked.
#[derive(Debug, Subcommand)]
enum Asked {
    /// The members of the group
    Members,
    /// Add a node: it learns first, and votes once it has caught up
    AddNode {
        /// Its name and where the others reach it: ID=HOST:PORT
        member: String,
        /// voter, observer for one that never votes, or witness for one that votes and keeps the log without any rows
        #[arg(long, default_value = "voter")]
        role: String,
    },
    /// Remove a node; one with a new disk is removed and added again
    RemoveNode {
        /// Its name
        id: String,
    },
    /// Hand leadership to another voter
    Transfer {
        /// Its name [default: the one that has most of the log]
        #[arg(long)]
        to: Option<String>,
    },
    /// Whether a node can answer statements now, by its exit code; needs no token
    Ready,
    /// Everything that a node knows of itself
    Status,
    /// The text of its metrics
    Metrics,
}

/// Does it.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    match &arguments.what {
        What::Recover(what) => recover::run(what, arguments.json, environment),
        What::Asked(asked) => {
            let target = arguments.leader.target(&environment)?;
            remote::runtime()?.block_on(ask(&target, asked, arguments.json))
        }
    }
}

/// Why a node has not done what it was asked.
enum Refusal {
    /// It cannot now, and nothing has happened: another one may.
    Elsewhere(Stop),
    /// That is the answer.
    Final(Stop),
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Refusal {
        Refusal::Final(stop)
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        Refusal::Final(Stop::Failed(error))
    }
}

impl Refusal {
    /// Of a call that changes something: where it may have been heard, nobody else is asked.
    fn of_change(status: &tonic::Status) -> Refusal {
        let stop = Stop::Failed(remote::from_status(status));
        if remote::did_nothing(status) { Refusal::Elsewhere(stop) } else { Refusal::Final(stop) }
    }

    /// Of one that only looks.
    fn of_look(status: &tonic::Status) -> Refusal {
        if remote::broke(status) {
            return Refusal::Elsewhere(Stop::Failed(remote::from_status(status)));
        }
        Refusal::of_change(status)
    }
}

/// Asks one node after the other, each once at most, until one can answer.
async fn ask(target: &Target, asked: &Asked, as_json: bool) -> Result<(), Stop> {
    let nodes = target.addresses.len();
    let (mut first, mut left) = (0, nodes);
    loop {
        let (at, channel) = target.channel(first).await?;
        (first, left) = ((at + 1) % nodes, left - 1);
        match ask_one(target, channel, asked, as_json, left == 0).await {
            Err(Refusal::Elsewhere(_)) if left > 0 => {}
            Err(Refusal::Elsewhere(stop) | Refusal::Final(stop)) => return Err(stop),
            Ok(()) => return Ok(()),
        }
    }
}

async fn ask_one(
    target: &Target,
    channel: Channel,
    asked: &Asked,
    as_json: bool,
    is_last: bool,
) -> Result<(), Refusal> {
    let health = HealthClient::new(channel.clone());
    let mut client = AdminServiceClient::new(channel);
    match asked {
        Asked::Members => {
            let answer = client.members(target.request(MembersRequest {})?).await;
            let group = answer.map_err(|status| Refusal::of_look(&status))?.into_inner();
            if group.leader.is_empty() && !is_last {
                // Another one may know who leads, and so how far each of them is.
                let error = Error::unavailable(format!("no leader (term {})", group.term));
                return Err(Refusal::Elsewhere(Stop::Failed(error)));
            }
            Ok(print_members(&group, as_json)?)
        }
        Asked::AddNode { member, role } => {
            let Some((id, address)) = member.split_once('=') else {
                let message = format!("{member:?} is not ID=HOST:PORT, for example node4=10.0.0.4:8000");
                return Err(Refusal::Final(Stop::Usage(message)));
            };
            let add = AddMember { id: id.to_owned(), address: address.to_owned(), role: role.clone() };
            change(&mut client, target, Change::Add(add), as_json).await
        }
        Asked::RemoveNode { id } => change(&mut client, target, Change::Remove(id.clone()), as_json).await,
        Asked::Transfer { to } => {
            let request = TransferLeaderRequest { to: to.clone().unwrap_or_default() };
            let answer = client.transfer_leader(target.request(request)?).await;
            let answer = answer.map_err(|status| Refusal::of_change(&status))?.into_inner();
            let line =
                if as_json { json!({ "leader": answer.to }).to_string() } else { format!("{} leads", answer.to) };
            Ok(print(&line)?)
        }
        Asked::Ready => Ok(ready(health, as_json).await?),
        Asked::Status => {
            let text = report(&mut client, target, false).await?;
            let status: Json = serde_json::from_str(&text)
                .map_err(|error| Stop::Message(format!("the status is no JSON: {error}")))?;
            Ok(print(&if as_json { text } else { format!("{status:#}") })?)
        }
        Asked::Metrics => Ok(print(report(&mut client, target, true).await?.trim_end())?),
    }
}

/// Asks the standard health service, which is open to everybody.
async fn ready(mut health: HealthClient<Channel>, as_json: bool) -> Result<(), Stop> {
    let answer = health.check(HealthCheckRequest { service: String::new() }).await;
    let answer = answer.map_err(|status| Stop::Failed(remote::from_status(&status)))?.into_inner();
    let is_ready = answer.status() == ServingStatus::Serving;
    match (as_json, is_ready) {
        (true, _) => print(&json!({ "ready": is_ready }).to_string())?,
        (false, true) => print("ready")?,
        (false, false) => {}
    }
    if is_ready {
        Ok(())
    } else {
        Err(Stop::Message("the node cannot answer statements now: see its /ready".to_owned()))
    }
}

async fn change(
    client: &mut AdminServiceClient<Channel>,
    target: &Target,
    change: Change,
    as_json: bool,
) -> Result<(), Refusal> {
    let request = ChangeMembersRequest { change: Some(change) };
    let answer = client.change_members(target.request(request)?).await;
    let answer = answer.map_err(|status| Refusal::of_change(&status))?;
    Ok(print_members(&answer.into_inner(), as_json)?)
}

async fn report(client: &mut AdminServiceClient<Channel>, target: &Target, metrics: bool) -> Result<String, Refusal> {
    let answer = client.report(target.request(ReportRequest { metrics })?).await;
    Ok(answer.map_err(|status| Refusal::of_look(&status))?.into_inner().text)
}

fn print_members(group: &MembersResponse, as_json: bool) -> Result<(), Stop> {
    if as_json {
        let member = |member: &MemberStatus| {
            json!({
                "id": member.id, "address": member.address, "role": member.role, "leads": member.leads,
                "matched": member.matched, "silent_ms": member.silent_ms, "flow": member.flow,
            })
        };
        let members: Vec<Json> = group.members.iter().map(member).collect();
        return print(&json!({ "term": group.term, "leader": group.leader, "members": members }).to_string());
    }
    let mut rows = vec![["member", "address", "role", "leads", "matched", "silent"].map(str::to_owned)];
    rows.extend(group.members.iter().map(|member| {
        [
            member.id.clone(),
            member.address.clone(),
            member.role.clone(),
            if member.leads { "yes" } else { "" }.to_owned(),
            member.matched.map(|matched| matched.to_string()).unwrap_or_default(),
            member.silent_ms.map(|silent| format!("{silent} ms")).unwrap_or_default(),
        ]
    }));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 6]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    print(&rows.iter().map(line).collect::<Vec<String>>().join("\n"))
}

fn print(text: &str) -> Result<(), Stop> {
    let mut out = Stdout::lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}
