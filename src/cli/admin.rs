//! `chronos admin`: what operators do to a running group, and to one that cannot run any more (`recover`).

mod table;

use super::client::Leader;
use super::remote::{self, Target};
use super::{Environment, Stdout, Stop, recover};
use crate::actors::admin::members_json;
use crate::actors::proto::wire::admin_service_client::AdminServiceClient;
use crate::actors::proto::wire::change_members_request::Change;
use crate::actors::proto::wire::{
    AddMember, ChangeMembersRequest, MemberStatus, MembersRequest, MembersResponse, ReportRequest,
    TransferLeaderRequest,
};
use crate::actors::route::LOOK_AT_MEMBERS;
use chronos::Error;
use chronos::config::Address;
use clap::Subcommand;
use serde_json::{Value as Json, json};
use std::io::Write;
use std::time::Duration;
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

/// How long a leader is waited for that somebody else has named.
const LEADER_WAIT: Duration = Duration::from_secs(3);

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
        /// voter (or learner, which is the same), observer for one that never votes, or witness for one that votes and keeps
        /// the log without any rows
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
        /// Its name [default: the fittest of those that have all that is committed]
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

/// How answers are written.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    Json,
}

/// Does it.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    match &arguments.what {
        What::Recover(what) => recover::run(what, arguments.json, environment),
        What::Asked(asked) => {
            let target = arguments.leader.target(&environment)?;
            let form = if arguments.json { Form::Json } else { Form::Text };
            remote::runtime()?.block_on(ask(&target, asked, form))
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
        if remote::did_nothing(status) {
            return Refusal::Elsewhere(Stop::Failed(remote::from_status(status)));
        }
        if remote::broke(status) {
            let why = remote::reason(status);
            let error = Error::in_doubt(format!("the connection broke before the node had answered: {why}"));
            let error = error.hint(format!("it may be done: {LOOK_AT_MEMBERS}"));
            return Refusal::Final(Stop::Failed(error));
        }
        Refusal::Final(Stop::Failed(remote::from_status(status)))
    }

    /// Of one that only looks.
    fn of_look(status: &tonic::Status) -> Refusal {
        if remote::broke(status) {
            return Refusal::Elsewhere(Stop::Failed(remote::from_status(status)));
        }
        Refusal::of_change(status)
    }
}

/// Calls one node after the other, each once, until one can answer.
async fn first<T>(target: &Target, mut call: impl AsyncFnMut(Channel) -> Result<T, Refusal>) -> Result<T, Stop> {
    let (mut refused, mut away) = (None, Vec::new());
    for address in &target.addresses {
        match target.dial(address).await {
            Ok(channel) => match call(channel).await {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Final(stop)) => return Err(stop),
                Err(Refusal::Elsewhere(stop)) => refused = Some(stop),
            },
            Err(why) => away.push(why),
        }
    }
    Err(refused.unwrap_or_else(|| Stop::Failed(remote::nobody(&away))))
}

async fn ask(target: &Target, asked: &Asked, form: Form) -> Result<(), Stop> {
    if let Asked::Members = asked {
        return print_members(&members(target).await?, form);
    }
    first(target, async |channel| ask_one(target, channel, asked, form).await).await
}

/// The group as its leader has it, which alone knows how far each member is; else as somebody has it.
async fn members(target: &Target) -> Result<MembersResponse, Stop> {
    let mut leaderless = None;
    let found = first(target, async |channel| {
        let group = members_of(target, channel).await?;
        if group.leader.is_empty() {
            // Another one may know who leads.
            let error = Error::unavailable(format!("no leader (term {})", group.term));
            leaderless = Some(group);
            return Err(Refusal::Elsewhere(Stop::Failed(error)));
        }
        Ok(group)
    });
    let group = match (found.await, leaderless) {
        (Ok(group), _) | (Err(_), Some(group)) => group,
        (Err(stop), None) => return Err(stop),
    };
    let leader = group.members.iter().find(|member| member.leads);
    let Some(leader) = leader.filter(|_| group.members.iter().all(|member| member.matched.is_none())) else {
        return Ok(group);
    };
    let asked = async {
        let there = Target { addresses: vec![Address::parse(&leader.address).ok()?], ..target.clone() };
        first(&there, async |channel| members_of(&there, channel).await).await.ok()
    };
    if let Ok(Some(known)) = tokio::time::timeout(LEADER_WAIT, asked).await {
        return Ok(known);
    }
    let MemberStatus { id, address, .. } = leader;
    eprintln!("how far each member is only the leader knows, {id}, which cannot be asked at {address}");
    Ok(group)
}

async fn members_of(target: &Target, channel: Channel) -> Result<MembersResponse, Refusal> {
    let answer = AdminServiceClient::new(channel).members(target.request(MembersRequest {})?).await;
    Ok(answer.map_err(|status| Refusal::of_look(&status))?.into_inner())
}

async fn ask_one(target: &Target, channel: Channel, asked: &Asked, form: Form) -> Result<(), Refusal> {
    let health = HealthClient::new(channel.clone());
    let mut client = AdminServiceClient::new(channel.clone());
    match asked {
        Asked::Members => Ok(print_members(&members_of(target, channel).await?, form)?),
        Asked::AddNode { member, role } => {
            let Some((id, address)) = member.split_once('=') else {
                let message = format!("{member:?} is not ID=HOST:PORT, for example node4=10.0.0.4:8000");
                return Err(Refusal::Final(Stop::Usage(message)));
            };
            let add = AddMember { id: id.to_owned(), address: address.to_owned(), role: role.clone() };
            change(&mut client, target, Change::Add(add), form).await
        }
        Asked::RemoveNode { id } => change(&mut client, target, Change::Remove(id.clone()), form).await,
        Asked::Transfer { to } => {
            let request = TransferLeaderRequest { to: to.clone().unwrap_or_default() };
            let answer = client.transfer_leader(target.request(request)?).await;
            let leader = answer.map_err(|status| Refusal::of_change(&status))?.into_inner().to;
            Ok(print(&match form {
                Form::Json => json!({ "leader": leader }).to_string(),
                Form::Text => format!("{leader} leads"),
            })?)
        }
        Asked::Ready => Ok(ready(health, form).await?),
        Asked::Status => {
            let text = report(&mut client, target, ReportRequest { metrics: false }).await?;
            let status: Json = serde_json::from_str(&text)
                .map_err(|error| Stop::Message(format!("the status is no JSON: {error}")))?;
            Ok(print(&match form {
                Form::Json => text,
                Form::Text => format!("{status:#}"),
            })?)
        }
        Asked::Metrics => {
            let text = report(&mut client, target, ReportRequest { metrics: true }).await?;
            Ok(print(text.trim_end())?)
        }
    }
}

/// Asks the standard health service, which is open to everybody.
async fn ready(mut health: HealthClient<Channel>, form: Form) -> Result<(), Stop> {
    let answer = health.check(HealthCheckRequest { service: String::new() }).await;
    let answer = answer.map_err(|status| Stop::Failed(remote::from_status(&status)))?.into_inner();
    let is_ready = answer.status() == ServingStatus::Serving;
    match (form, is_ready) {
        (Form::Json, _) => print(&json!({ "ready": is_ready }).to_string())?,
        (Form::Text, true) => print("ready")?,
        (Form::Text, false) => {}
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
    form: Form,
) -> Result<(), Refusal> {
    let request = ChangeMembersRequest { change: Some(change) };
    let answer = client.change_members(target.request(request)?).await;
    let answer = answer.map_err(|status| Refusal::of_change(&status))?;
    Ok(print_members(&answer.into_inner(), form)?)
}

async fn report(
    client: &mut AdminServiceClient<Channel>,
    target: &Target,
    asked: ReportRequest,
) -> Result<String, Refusal> {
    let answer = client.report(target.request(asked)?).await;
    Ok(answer.map_err(|status| Refusal::of_look(&status))?.into_inner().text)
}

fn print_members(group: &MembersResponse, form: Form) -> Result<(), Stop> {
    print(&match form {
        Form::Json => members_json(group).to_string(),
        Form::Text => table::as_text(group),
    })
}

fn print(text: &str) -> Result<(), Stop> {
    let mut out = Stdout::lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| Stop::output(&error))
}
