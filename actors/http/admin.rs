//! The group for scripts: its members, and what operators do to them.
//!
//! | path | what |
//! |---|---|
//! | `GET /admin/members` | the members as this node knows them |
//! | `POST /admin/members` | `{"add": {"id", "address", "role"}}` or `{"remove": id}` |
//! | `POST /admin/transfer` | `{}` or `{"to": id}` |

use super::{Door, guarded};
use crate::actors::admin::{Admin, members_json};
use crate::actors::grpc::SQLSTATE;
use crate::actors::proto::wire::change_members_request::Change;
use crate::actors::proto::wire::{AddMember, ChangeMembersRequest, TransferLeaderRequest};
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

pub(super) async fn members(door: web::Data<Door>) -> HttpResponse {
    HttpResponse::Ok().json(members_json(&Admin::new(door.router.clone()).members()))
}

pub(super) async fn change(asked: HttpRequest, door: web::Data<Door>, mut payload: web::Payload) -> HttpResponse {
    let caller = match guarded::caller_of(&asked) {
        Ok(caller) => caller,
        Err(error) => return super::failed(&error, None),
    };
    let body = match super::read_body(&asked, &door, &mut payload, BODY_BYTES_MAX).await {
        Ok((body, _)) => body,
        Err(broken) => return super::broken_off(&broken, &door.limits, payload),
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

pub(super) async fn transfer(asked: HttpRequest, door: web::Data<Door>, mut payload: web::Payload) -> HttpResponse {
    let caller = match guarded::caller_of(&asked) {
        Ok(caller) => caller,
        Err(error) => return super::failed(&error, None),
    };
    let body = match super::read_body(&asked, &door, &mut payload, BODY_BYTES_MAX).await {
        Ok((body, _)) => body,
        Err(broken) => return super::broken_off(&broken, &door.limits, payload),
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

/// What the leader said, or this node: the statuses are those of statements, see http.rs.
fn failed(status: &Status) -> HttpResponse {
    let code = status_of(status.code());
    let mut response = HttpResponse::build(code);
    super::retry_after(&mut response, code);
    response.json(body_of(status))
}

/// In doubt is told from a failure by its SQLSTATE.
fn body_of(status: &Status) -> Json {
    let mut body = json!({ "error": status.message() });
    if let Some(state) = status.metadata().get(SQLSTATE).and_then(|state| state.to_str().ok()) {
        body["sqlstate"] = state.into();
    }
    body
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        // Who asks was admitted here: it is the leader that does not take this node for a peer.
        Code::Unauthenticated => StatusCode::BAD_GATEWAY,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        // The leader runs an older program.
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Aborted => StatusCode::CONFLICT,
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unknown | Code::Internal | Code::DataLoss | Code::Cancelled => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_fault_it_is() {
        for (code, status) in [
            (Code::InvalidArgument, 400),
            (Code::PermissionDenied, 403),
            (Code::ResourceExhausted, 429),
            (Code::Unknown, 500),
            (Code::Unauthenticated, 502),
            (Code::Unavailable, 503),
            (Code::DeadlineExceeded, 504),
        ] {
            assert_eq!(status_of(code).as_u16(), status, "{code:?}");
        }
        let doubt = crate::actors::grpc::status(&chronos::Error::in_doubt("look at the members"));
        assert_eq!(body_of(&doubt)["sqlstate"], json!("08007"));
        assert_eq!(body_of(&Status::internal("a bug")), json!({ "error": "a bug" }));
    }
}
