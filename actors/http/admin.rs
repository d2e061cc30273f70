//! The group for scripts: its members, and what operators do to them.
//!
//! | path | what |
//! |---|---|
//! | `GET /admin/members` | the members as this node knows them |
//! | `POST /admin/members` | `{"add": {"id", "address", "role"}}` or `{"remove": id}` |
//! | `POST /admin/transfer` | `{}` or `{"to": id}` |

use super::{Door, guarded};
use crate::actors::admin::Admin;
use crate::actors::proto::wire::change_members_request::Change;
use crate::actors::proto::wire::{
    AddMember, ChangeMembersRequest, MemberStatus, MembersResponse, TransferLeaderRequest,
};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tonic::{Code, Request, Status};

/// Bytes of a body here.
pub(super) const BODY_BYTES_MAX: usize = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Changes {
    add: Option<Added>,
    remove: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: String,
    address: String,
    #[serde(default)]
    role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Transfer {
    #[serde(default)]
    to: String,
}

/// The members as JSON.
pub(super) fn members_json(group: &MembersResponse) -> Json {
    let member = |member: &MemberStatus| {
        json!({
            "id": member.id, "address": member.address, "role": member.role, "leads": member.leads,
            "matched": member.matched, "silent_ms": member.silent_ms, "flow": member.flow,
        })
    };
    let members: Vec<Json> = group.members.iter().map(member).collect();
    json!({ "term": group.term, "leader": group.leader, "members": members })
}

pub(super) async fn members(door: web::Data<Door>) -> HttpResponse {
    HttpResponse::Ok().json(members_json(&Admin::new(door.router.clone()).members()))
}

pub(super) async fn change(asked: HttpRequest, door: web::Data<Door>, body: web::Bytes) -> HttpResponse {
    let caller = match guarded::caller_of(&asked) {
        Ok(caller) => caller,
        Err(error) => return super::failed(&error, None),
    };
    let change = match serde_json::from_slice(&body) {
        Ok(Changes { add: Some(add), remove: None }) => {
            Change::Add(AddMember { id: add.id, address: add.address, role: add.role })
        }
        Ok(Changes { add: None, remove: Some(id) }) => Change::Remove(id),
        Ok(_) => return wrong("give either \"add\" or \"remove\""),
        Err(error) => return wrong(&format!("the body is not what is expected here: {error}")),
    };
    let request = Request::new(ChangeMembersRequest { change: Some(change) });
    match Admin::new(door.router.clone()).change(request, &caller).await {
        Ok(group) => HttpResponse::Ok().json(members_json(&group)),
        Err(status) => failed(&status),
    }
}

pub(super) async fn transfer(asked: HttpRequest, door: web::Data<Door>, body: web::Bytes) -> HttpResponse {
    let caller = match guarded::caller_of(&asked) {
        Ok(caller) => caller,
        Err(error) => return super::failed(&error, None),
    };
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    let to = match serde_json::from_slice(body) {
        Ok(Transfer { to }) => to,
        Err(error) => return wrong(&format!("the body is not what is expected here: {error}")),
    };
    match Admin::new(door.router.clone()).transfer(Request::new(TransferLeaderRequest { to }), &caller).await {
        Ok(done) => HttpResponse::Ok().json(json!({ "leader": done.to })),
        Err(status) => failed(&status),
    }
}

fn wrong(text: &str) -> HttpResponse {
    HttpResponse::BadRequest().json(json!({ "error": text }))
}

fn failed(status: &Status) -> HttpResponse {
    const STATUSES: [(Code, StatusCode); 4] = [
        (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
        (Code::DeadlineExceeded, StatusCode::GATEWAY_TIMEOUT),
        (Code::Unknown, StatusCode::INTERNAL_SERVER_ERROR),
        (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
    ];
    let known = STATUSES.iter().find(|(code, _)| *code == status.code());
    let code = known.map_or(StatusCode::BAD_REQUEST, |(_, status)| *status);
    HttpResponse::build(code).json(json!({ "error": status.message() }))
}
