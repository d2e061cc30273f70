//! What operators do to a group: look at its members, change them, hand leadership on.
//!
//! Any node takes such a request. One that does not lead asks the leader, once: a node that is asked by another one and
//! does not lead either says so, and the operator asks again.
//!
//! * A change is answered once it is committed. Whoever is left without a word of the node that has it to do is told that it
//!   is in doubt (08007), never that nothing happened: the client would ask the next node, and be told that there is no such
//!   member, or have the leadership handed on twice.

use crate::actors::audit::audit_admin;
use crate::actors::auth::{Caller, HANDED_ON, USER};
use crate::actors::grpc;
use crate::actors::messages::{ChangeGroup, TransferLead};
use crate::actors::peers::Identity;
use crate::actors::peers::dial::connect;
use crate::actors::proto::wire::admin_service_client::AdminServiceClient;
use crate::actors::proto::wire::change_members_request::Change as Wanted;
use crate::actors::proto::wire::{
    ChangeMembersRequest, MemberStatus, MembersResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::{Deadline, LOOK_AT_MEMBERS};
use crate::actors::router::{LEADER_WAIT_TIMEOUTS, Router};
use chronos::config::{Address, NodeId as Name, Role};
use chronos::error::{Error, Result, SqlState};
use chronos::raft::{Change, Flow, MemberRole, NodeId, Peer};
use serde_json::{Value as Json, json};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// How long an operator waits for a group to agree.
const ADMIN_WAIT: Duration = Duration::from_secs(10);

/// How much longer a leader is waited for than it waits itself.
const RETURN_MARGIN: Duration = Duration::from_millis(500);

/// Does what operators ask for.
#[derive(Clone)]
pub struct Admin {
    router: Router,
    published: Arc<Published>,
}

impl Admin {
    /// On the node's own parts.
    pub fn new(router: Router) -> Admin {
        let published = router.routes().published.clone();
        Admin { router, published }
    }

    /// The members, as this node knows them.
    pub fn members(&self) -> MembersResponse {
        let raft = self.published.raft();
        let status = &raft.status;
        let leader = status.leader.as_ref();
        let members = status.membership.members.iter().map(|(id, member)| {
            let peer = status.peers.iter().find(|peer| peer.id == *id);
            let copied = self.router.routes().peers.copied(id);
            let silent_max = self.router.routes().leader_wait / LEADER_WAIT_TIMEOUTS;
            let is_this = leader == Some(id) && !status.peers.iter().any(|peer| peer.id == *id) && raft.serves;
            MemberStatus {
                id: id.0.clone(),
                address: member.address.clone(),
                role: member.role.name().to_owned(),
                leads: leader == Some(id),
                matched: peer.map(|peer| peer.matched.0).or(is_this.then_some(status.last.0)),
                silent_ms: peer.map(|peer| peer.silent.as_millis() as u64),
                flow: peer.map(|peer| flow_name(peer).to_owned()).unwrap_or_default(),
                command_version: peer.and_then(|peer| peer.command_version).map(u32::from),
                problem: copied
                    .or_else(|| problem_of(peer?, &raft, silent_max))
                    .or_else(|| (is_this && status.is_disk_low).then(|| short_of_disk(id)))
                    .unwrap_or_default(),
            }
        });
        MembersResponse {
            members: members.collect(),
            term: status.term.0,
            leader: leader.map(|leader| leader.0.clone()).unwrap_or_default(),
        }
    }

    /// Changes the group, for a caller who may.
    pub async fn change(
        &self,
        request: Request<ChangeMembersRequest>,
        caller: &Caller,
    ) -> Result<MembersResponse, Status> {
        audit_admin(caller, &described(request.get_ref()));
        if let Some(address) = self.elsewhere(&request)? {
            let mut leader = self.connect(&address).await?;
            let request = self.handed_on(request.into_inner(), caller)?;
            return in_time(leader.change_members(request)).await;
        }
        let change = change_of(request.into_inner()).map_err(|error| grpc::status(&error))?;
        match &change {
            Change::Add { .. } => {
                let peers = &self.router.routes().peers;
                let expected = peers.check_expected().and_then(|()| check_reached(peers.identity().as_ref()));
                expected.map_err(|error| grpc::status(&error))?;
            }
            Change::Remove { .. } => {}
        }
        let asked = self.router.routes().raft.ask(ChangeGroup(change), Deadline::after(ADMIN_WAIT)).await;
        asked.map_err(|error| grpc::status(&error))?;
        Ok(self.members())
    }

    /// Hands leadership on, for a caller who may.
    pub async fn transfer(
        &self,
        request: Request<TransferLeaderRequest>,
        caller: &Caller,
    ) -> Result<TransferLeaderResponse, Status> {
        audit_admin(caller, &format!("transfer to={:?}", request.get_ref().to));
        if let Some(address) = self.elsewhere(&request)? {
            let mut leader = self.connect(&address).await?;
            let request = self.handed_on(request.into_inner(), caller)?;
            return in_time(leader.transfer_leader(request)).await;
        }
        let to = request.into_inner().to;
        let to = (!to.is_empty()).then_some(NodeId(to));
        let done = self.hand_over(to, Deadline::after(ADMIN_WAIT)).await.map_err(|error| grpc::status(&error))?;
        Ok(TransferLeaderResponse { to: done.0 })
    }

    /// Hands leadership of this node on, and waits until it is no longer its.
    pub async fn hand_over(&self, to: Option<NodeId>, until: Deadline) -> Result<NodeId> {
        let to = self.router.routes().raft.ask(TransferLead { to }, until).await?;
        let mut reports = self.published.watch_raft();
        let elsewhere = reports.wait_for(|report| report.status.leader.as_ref().is_some_and(|leader| *leader == to));
        match tokio::time::timeout_at(until.instant(), elsewhere).await {
            Ok(_) => Ok(to),
            // It was told to stand, and may do so still.
            Err(_) => Err(Error::in_doubt(format!("{to} has not taken over in time: {LOOK_AT_MEMBERS}"))),
        }
    }

    fn handed_on<T>(&self, message: T, caller: &Caller) -> Result<Request<T>, Status> {
        let mut request = Request::new(message);
        // One word of visible characters, so it can always be a header.
        if let Ok(user) = caller.user().parse() {
            request.metadata_mut().insert(USER, user);
        }
        request.metadata_mut().insert(HANDED_ON, tonic::metadata::MetadataValue::from_static("1"));
        self.router.routes().peers.sign(&mut request).map_err(|error| grpc::status(&error))?;
        Ok(request)
    }

    async fn connect(&self, address: &str) -> Result<AdminServiceClient<Channel>, Status> {
        let endpoint = self.router.routes().peers.endpoint(address).map_err(|error| grpc::status(&error))?;
        let unreachable = |why| Status::unavailable(format!("the leader at {address} cannot be reached: {why}"));
        Ok(AdminServiceClient::new(connect(endpoint).await.map_err(unreachable)?))
    }

    /// Where the leader is, where that is not here.
    fn elsewhere<T>(&self, request: &Request<T>) -> Result<Option<String>, Status> {
        let raft = self.published.raft();
        if raft.serves {
            return Ok(None);
        }
        let no_leader = || grpc::status(&Error::unavailable(format!("no leader (term {})", raft.status.term)));
        if request.metadata().contains_key(HANDED_ON) {
            return Err(no_leader());
        }
        raft.leads_elsewhere().map(|(_, address)| Some(address.to_owned())).ok_or_else(no_leader)
    }
}

/// The members for scripts, as the command line prints them and HTTP answers them.
pub fn members_json(group: &MembersResponse) -> Json {
    let member = |member: &MemberStatus| {
        json!({
            "id": member.id, "address": member.address, "role": member.role, "leads": member.leads,
            "matched": member.matched, "silent_ms": member.silent_ms, "flow": member.flow,
            "command_version": member.command_version, "problem": member.problem,
        })
    };
    let members: Vec<Json> = group.members.iter().map(member).collect();
    json!({ "term": group.term, "leader": group.leader, "members": members })
}

/// The leader's answer. One that has none by then, or whose connection broke, may have done it all the same.
async fn in_time<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(ADMIN_WAIT + RETURN_MARGIN, answer).await {
        Ok(Ok(answered)) => Ok(answered.into_inner()),
        Ok(Err(status)) if broke(&status) => {
            let told = format!("the leader has not answered ({}): {LOOK_AT_MEMBERS}", status.message());
            Err(grpc::status(&Error::in_doubt(told)))
        }
        Ok(Err(said)) => Err(said),
        Err(_) => {
            let told = format!("the leader has not answered: {LOOK_AT_MEMBERS}");
            Err(grpc::status(&Error::in_doubt(told)))
        }
    }
}

/// True where a connection that was there failed under a call: nobody has said what became of it.
fn broke(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    let mut causes = std::iter::successors(first, |cause| cause.source());
    first.is_some() && !causes.any(<dyn std::error::Error>::is::<tonic::ConnectError>)
}

/// A change as the audit line has it.
fn described(request: &ChangeMembersRequest) -> String {
    match &request.change {
        Some(Wanted::Add(member)) => {
            format!("add-node id={:?} address={:?} role={:?}", member.id, member.address, member.role)
        }
        Some(Wanted::Remove(id)) => format!("remove-node id={id:?}"),
        None => "change-nothing".to_owned(),
    }
}

/// Why a member does not take part as it should, whatever it is sent.
fn problem_of(peer: &Peer, raft: &RaftReport, silent_max: Duration) -> Option<String> {
    if let Some((_, version)) = raft.too_old().find(|(id, _)| **id == peer.id) {
        let group = raft.status.membership.command_version;
        let text = format!("too old: knows commands up to {version}, group uses {group}: start a newer chronos");
        return Some(text);
    }
    if raft.status.replaced.contains(&peer.id) {
        return Some(format!("{} has a new disk: remove and re-add it", peer.id));
    }
    if peer.silent > silent_max {
        return Some("silent".to_owned());
    }
    peer.is_disk_low.then(|| short_of_disk(&peer.id))
}

/// What is wrong with a member whose disk has less room than is to be kept back.
fn short_of_disk(id: &NodeId) -> String {
    format!("{id} is short of disk (storage.disk_reserve): free space there")
}

fn flow_name(peer: &Peer) -> &'static str {
    match peer.flow {
        Flow::Probe => "probe",
        Flow::Replicate => "replicate",
        Flow::Snapshot => "snapshot",
        Flow::Full => "full",
    }
}

/// Refuses another member where that could not reach this one: it would follow, and have nowhere to hand a write on to.
fn check_reached(own: Option<&Identity>) -> Result<()> {
    if own.is_none_or(|own| !own.address.is_empty()) {
        return Ok(());
    }
    let message = "this node listens everywhere, and does not say where other members reach it";
    Err(Error::invalid(SqlState::CONFIG_ERROR, message)
        .hint("start it with node.advertise first, then add the other one"))
}

/// What is asked for, checked.
fn change_of(request: ChangeMembersRequest) -> Result<Change> {
    let wrong = |text: String| Error::invalid(SqlState::INVALID_PARAMETER, text);
    match request.change {
        Some(Wanted::Add(member)) => {
            let id = Name::parse(&member.id).map_err(wrong)?;
            let address = Address::parse(&member.address).and_then(Address::reachable).map_err(wrong)?;
            let role = role_of(&member.role).map_err(wrong)?;
            Ok(Change::Add { id: NodeId(id.to_string()), address: address.to_string(), role })
        }
        Some(Wanted::Remove(id)) => Ok(Change::Remove { id: NodeId(id) }),
        None => Err(wrong("say which member to add or to remove".to_owned())),
    }
}

/// What a member is to become. Whoever joins learns first, so a learner is a voter by the name that files have for it too.
fn role_of(name: &str) -> Result<MemberRole, String> {
    let role = if name == "learner" { Some(MemberRole::Voter) } else { MemberRole::parse(name) };
    role.ok_or_else(|| format!("{name:?} is not one of {}", Role::NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::route::{Question, late};
    use chronos::ids::LogIndex;
    use chronos::raft::Status as RaftStatus;

    #[test]
    fn what_is_wrong_with_a_member_is_told_apart_from_what_it_is_sent() {
        let peer = |id: &str, command_version, silent_ms| Peer {
            id: NodeId(id.to_owned()),
            matched: LogIndex(7),
            flow: Flow::Probe,
            silent: Duration::from_millis(silent_ms),
            command_version,
            is_disk_low: id == "low" || id == "gone",
        };
        let peers = vec![peer("old", Some(3), 0), peer("new", Some(4), 500), peer("gone", None, 501)];
        let peers = [peers, vec![peer("wiped", Some(4), 501), peer("low", Some(4), 0)]].concat();
        let replaced = vec![NodeId("wiped".to_owned())];
        let mut status = RaftStatus { peers, replaced, ..RaftStatus::default() };
        status.membership.command_version = 4;
        let report = RaftReport { status, serves: true };
        let problems = report.status.peers.iter().map(|peer| {
            assert_eq!(flow_name(peer), "probe");
            problem_of(peer, &report, Duration::from_millis(500))
        });
        let old = "too old: knows commands up to 3, group uses 4: start a newer chronos".to_owned();
        let wiped = "wiped has a new disk: remove and re-add it".to_owned();
        let low = "low is short of disk (storage.disk_reserve): free space there".to_owned();
        let silent = "silent".to_owned();
        assert_eq!(problems.collect::<Vec<_>>(), [Some(old), None, Some(silent), Some(wiped), Some(low)]);
    }

    #[test]
    fn what_is_in_doubt_of_the_group_leads_to_its_members() {
        let node = NodeId("node8".to_owned());
        let asked = [ChangeGroup(Change::Remove { id: node }).effect(), TransferLead { to: None }.effect()];
        for (effect, what) in asked.into_iter().zip(["change", "transfer"]) {
            let told = late(effect);
            assert_eq!(told.sqlstate(), SqlState::IN_DOUBT);
            assert!(told.message().starts_with(&format!("the outcome of the {what} is unknown")), "{told}");
            assert!(told.message().contains("chronos admin members") && !told.message().contains("writ"), "{told}");
        }
    }

    #[test]
    fn a_script_finds_each_thing_of_a_member_in_a_field_of_its_own() {
        let leader = MemberStatus { leads: true, ..MemberStatus::default() };
        let old = MemberStatus {
            flow: "probe".to_owned(),
            command_version: Some(3),
            problem: "too old".to_owned(),
            ..leader.clone()
        };
        let members =
            &members_json(&MembersResponse { members: vec![leader, old], ..MembersResponse::default() })["members"];
        assert_eq!((&members[1]["flow"], &members[1]["command_version"]), (&json!("probe"), &json!(3)));
        assert_eq!((&members[1]["problem"], &members[0]["problem"]), (&json!("too old"), &json!("")));
        assert_eq!(members[0]["command_version"], Json::Null);
    }

    #[test]
    fn an_address_of_nowhere_is_refused() {
        for address in ["0.0.0.0:5", "[::]:5", "127.0.0.1:0"] {
            let member = crate::actors::proto::wire::AddMember {
                id: "node8".to_owned(),
                address: address.to_owned(),
                role: "voter".to_owned(),
            };
            let told = change_of(ChangeMembersRequest { change: Some(Wanted::Add(member)) }).unwrap_err();
            assert!(told.message().contains(address), "{told}");
        }
    }

    #[test]
    fn operators_name_the_roles_that_files_name() {
        let roles = ["", "voter", "learner", "witness", "observer"].map(|name| role_of(name).unwrap());
        let [voter, witness, observer] = [MemberRole::Voter, MemberRole::Witness, MemberRole::Observer];
        assert_eq!(roles, [voter, voter, voter, witness, observer]);
        assert!(Role::NAMES.iter().all(|name| role_of(name).is_ok()));
        assert_eq!(role_of("boss").unwrap_err(), "\"boss\" is not one of voter, learner, witness, observer");
    }

    #[test]
    fn a_call_whose_connection_broke_is_in_doubt_and_what_the_leader_says_is_not() {
        let said = |answer: Result<Response<()>, Status>| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(in_time(async { answer })).unwrap_err()
        };
        let broken = Status::from_error(Box::new(std::io::Error::other("reset")));
        let told = said(Err(broken));
        assert_eq!(told.code(), tonic::Code::Unknown, "clients do not repeat it");
        assert_eq!(told.metadata().get("x-chronos-sqlstate").unwrap(), "08007");
        assert_eq!(said(Err(Status::unavailable("no leader (term 7)"))).code(), tonic::Code::Unavailable);
    }
}
