//! The HTTP door: health and metrics for machines, a query endpoint for scripts, a page for people.
//!
//! One actix-web worker: this is the administrative side; bulk goes through gRPC.
//!
//! | path | answer |
//! |---|---|
//! | `GET /health` | liveness: always 200, `degraded` with a reason where something is wrong |
//! | `GET /ready` | 200 where statements can be served now, else 503 and why not |
//! | `GET /metrics` | Prometheus text 0.0.4 |
//! | `GET /status` | everything, as JSON |
//! | `POST /sql` | an object runs one statement, an array one atomic batch; JSON, or CSV by `Accept` with its weights |
//! | `/admin/members`, `/admin/transfer` | the group: see http/admin.rs |
//! | `GET /` | a small page, embedded, that loads nothing from elsewhere |
//!
//! * How fresh reads must be stands in the body, or in the head as on gRPC; where both say it, they agree.
//! * Who asks is found out first (guarded.rs); over TLS a certificate is asked for.
//! * HEAD is answered where GET is, without a body.
//! * Errors are JSON, `{"error", "sqlstate", "position"}`, and the status says whose fault it is: 400 the statement,
//!   409 a lost conflict, 429 overload, 503 no service, 504 deadline, 500 in doubt or ours.
//! * In doubt is 500, never 503: clients repeat a 503 by themselves.
//! * What is on its way has its room (transit.rs): bodies as they arrive, answers in pieces, chunked where they have more
//!   than one.
//! * Bodies come as they are: a compressed one is refused, so none can be a bomb.

mod accept;
mod admin;
mod arrival;
mod body;
mod guarded;
mod status;

pub use status::json_of;

use crate::actors::audit::audit;
use crate::actors::auth::{Caller, Guard};
use crate::actors::encode;
use crate::actors::format::Format;
use crate::actors::freshness::{CONSISTENCY, Freshness, MAX_STALENESS};
use crate::actors::grpc::{Limits, check_length, check_lengths};
use crate::actors::messages::{CLIENT_ID, REQUEST_ID, SEQUENCE, Statement, Terms, request_id};
use crate::actors::metrics::Door as Named;
use crate::actors::pieces::Pieces;
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::tls::Tls;
use crate::actors::transit::{Hold, Transit};
use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, ServerHandle, Service};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{
    App, FromRequest, Handler, HttpRequest, HttpResponse, HttpResponseBuilder, HttpServer, Resource, Responder, web,
};
use arrival::{Broken, Unread};
use body::{Asked, Said};
use chronos::config::ENVELOPE_BYTES_MAX;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::machine::RequestId;
use futures_util::future::{Either, ready};
use serde_json::json;
use std::any::Any;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long requests may go on once the server stops.
const STOP_GRACE_SECONDS: u64 = 2;

const PAGE: &str = include_str!("page.html");

/// What handlers share.
struct Door {
    router: Router,
    published: Arc<Published>,
    limits: Limits,
    guard: Arc<Guard>,
}

/// The running door.
pub struct HttpDoor {
    handle: ServerHandle,
}

impl HttpDoor {
    /// Serves on a bound listener. Must be called on the actix system's thread.
    pub fn open(
        listener: TcpListener,
        router: Router,
        published: Arc<Published>,
        limits: Limits,
        guard: Arc<Guard>,
    ) -> Result<HttpDoor> {
        let counters = router.routes().counters.clone();
        let tls = guard.tls().map(Tls::http).transpose()?;
        let (door, asked) = (web::Data::new(Door { router, published, limits, guard: guard.clone() }), guard.clone());
        let server = HttpServer::new(move || {
            let guard = guard.clone();
            App::new()
                .app_data(door.clone())
                .wrap_fn(move |request, service| {
                    let response = match guarded::admit(&guard, request) {
                        Either::Left(request) => Either::Left(service.call(request)),
                        Either::Right(refused) => Either::Right(ready(Ok(refused))),
                    };
                    async move {
                        let mut response = response.await?;
                        // Answers are of the moment: nothing between may keep them.
                        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                        Ok(response)
                    }
                })
                .service(read("/", &page))
                .service(read("/health", &health))
                .service(read("/ready", &readiness))
                .service(read("/metrics", &metrics))
                .service(read("/status", &status))
                .service(taking("/sql", "POST").route(web::post().to(sql)))
                .service(
                    taking("/admin/members", "GET, POST")
                        .route(web::get().to(admin::members))
                        .route(web::post().to(admin::change)),
                )
                .service(taking("/admin/transfer", "POST").route(web::post().to(admin::transfer)))
                .default_service(web::to(not_found))
        })
        .workers(1)
        .max_connections(limits.connections)
        // Lives as long as the connection.
        .on_connect(move |stream: &dyn Any, extensions: &mut Extensions| {
            guarded::look_at(stream, asked.tls(), extensions);
            extensions.insert(counters.connected(Named::Http));
        })
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(STOP_GRACE_SECONDS)
        // SIGTERM and SIGINT are the daemon's: doors close first, files last.
        .disable_signals();
        let listening = match tls {
            None => server.listen(listener),
            Some(tls) => server.listen_rustls_0_23(listener, tls),
        };
        let server = listening.map_err(|error| Error::io("listen for HTTP", &error))?.run();
        let handle = server.handle();
        actix::spawn(async move {
            if let Err(error) = server.await {
                tracing::warn!(%error, "the HTTP door failed");
            }
        });
        Ok(HttpDoor { handle })
    }

    /// Accepts nothing more, and lets requests finish for a moment.
    pub async fn close(self) {
        self.handle.stop(true).await;
    }
}

/// A path, and the methods that it takes; another one is told which those are (RFC 9110, section 15.5.6).
fn taking(path: &'static str, methods: &'static str) -> Resource {
    let refuse = move || async move {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, methods))
            .json(json!({ "error": format!("{path} takes {methods}") }))
    };
    web::resource(path).default_service(web::to(refuse))
}

/// A path that is read. HEAD is answered as GET is, and the server leaves the body out (RFC 9110, section 9.3.2).
fn read<F, Arguments>(path: &'static str, answer: &F) -> Resource
where
    F: Handler<Arguments, Output: Responder<Body = BoxBody> + 'static>,
    Arguments: FromRequest + 'static,
{
    let route = |method| web::method(method).to(answer.clone());
    taking(path, "GET, HEAD").route(route(Method::GET)).route(route(Method::HEAD))
}

/// Escaping may double a statement in JSON; what requests may hold together is the limit of each, too.
fn body_bytes_max(limits: &Limits, transit: &Transit) -> usize {
    (2 * limits.statement_bytes_max + ENVELOPE_BYTES_MAX as usize).min(transit.request_bytes_max())
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((
            "content-security-policy",
            "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'",
        ))
        .body(PAGE)
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let paths = "/, /health, /ready, /metrics, /status and POST /sql";
    let message = format!("there is no {}; there are {paths}", request.path());
    HttpResponse::NotFound().json(json!({ "error": message }))
}

async fn health(door: web::Data<Door>) -> HttpResponse {
    let body = match door.router.health().await {
        Ok(report) => {
            let mut body = json!({ "status": "ok", "role": report.role, "term": report.term.0 });
            if let Some(reason) = report.degraded {
                body["status"] = "degraded".into();
                body["reason"] = reason.into();
            }
            body
        }
        // The process answers, so it lives; what judges it does not at the moment.
        Err(error) => {
            let raft = door.published.raft();
            let identity = door.router.routes().peers.identity();
            let role = raft.role_of(identity.as_ref().map_or("", |own| &own.id.0));
            let term = raft.status.term.0;
            json!({ "status": "degraded", "role": role, "term": term, "reason": error.to_string() })
        }
    };
    HttpResponse::Ok().json(body)
}

async fn readiness(door: web::Data<Door>) -> HttpResponse {
    let absent = door.router.absent();
    let raft = door.published.raft();
    let reason = if !absent.is_empty() {
        format!("restarting: {}", absent.join(", "))
    } else if let Some(obstacle) = raft.obstacle(|leader| door.router.routes().peers.is_linked(leader)) {
        obstacle
    } else {
        return HttpResponse::Ok().json(json!({ "ready": true }));
    };
    HttpResponse::ServiceUnavailable().json(json!({ "ready": false, "reason": reason }))
}

async fn metrics(door: web::Data<Door>) -> HttpResponse {
    match door.router.render().await {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(text),
        Err(error) => failed(&error, None),
    }
}

async fn status(door: web::Data<Door>) -> HttpResponse {
    match door.router.status().await {
        Ok(report) => HttpResponse::Ok().json(status::json_of(&report)),
        Err(error) => failed(&error, None),
    }
}

async fn sql(request: HttpRequest, door: web::Data<Door>, mut payload: web::Payload) -> HttpResponse {
    if let Some(coding) = request.headers().get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let message = format!("content-encoding {coding:?} is not supported: send the body as it is");
        return HttpResponse::UnsupportedMediaType()
            .content_type("application/json")
            .body(encode::json_error(&Error::invalid(SqlState::FEATURE_NOT_SUPPORTED, message), None));
    }
    let bytes_max = body_bytes_max(&door.limits, &door.router.routes().transit);
    let (body, mut hold) = match read_body(&request, &door, &mut payload, bytes_max).await {
        Ok(arrived) => arrived,
        Err(broken) => return broken_off(&broken, &door.limits, payload),
    };
    let (asked, freshness, name) = match read_request(&request, &body) {
        Ok(read) => read,
        Err(error) => return failed(&error, None),
    };
    // The statement was copied out of it; from here on only that is held.
    drop(body);
    hold.shrink_to(asked.bytes());
    let caller = match guarded::caller_of(&request) {
        Ok(caller) => caller,
        Err(error) => return failed(&error, None),
    };
    let deadline = Deadline::after(door.limits.request_timeout);
    let terms = Terms { deadline, whole: None, freshness, request: name, access: caller.access() };
    note(&door, &caller, &asked);
    run(&door, asked, hold, terms, wants_csv(&request)).await
}

async fn read_body(
    request: &HttpRequest,
    door: &Door,
    payload: &mut web::Payload,
    bytes_max: usize,
) -> Result<(Vec<u8>, Hold), Broken> {
    let announced = request.headers().get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()).and_then(|value| value.parse().ok());
    arrival::read(payload, announced, bytes_max, &door.limits, &door.router.routes().transit).await
}

/// What is asked for, how fresh its reads must be, and its name.
fn read_request(request: &HttpRequest, body: &[u8]) -> Result<(Asked, Freshness, Option<RequestId>)> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    for name in [CONSISTENCY, MAX_STALENESS, CLIENT_ID, SEQUENCE, REQUEST_ID] {
        if request.headers().contains_key(name) && header(name).is_none() {
            return Err(Error::invalid(SqlState::INVALID_PARAMETER, format!("{name} is not text")));
        }
    }
    let head = Said { consistency: header(CONSISTENCY), max_staleness: header(MAX_STALENESS) };
    let (asked, freshness) = body::read(body, head)?;
    Ok((asked, freshness, request_id(header)?))
}

/// What stands in the log about statements that are about to run.
fn note(door: &Door, caller: &Caller, asked: &Asked) {
    match asked {
        Asked::One(_, sql) => audit(&door.guard, caller, sql),
        Asked::Batch(texts) => texts.iter().for_each(|sql| audit(&door.guard, caller, sql)),
    }
}

async fn run(door: &Door, asked: Asked, hold: Hold, terms: Terms, as_csv: bool) -> HttpResponse {
    let stall_max = door.limits.stall_max;
    let json = "application/json";
    match asked {
        Asked::One(parameters, sql) => {
            if let Err(error) = check_length(&sql, door.limits.statement_bytes_max) {
                return failed(&error, None);
            }
            match door.router.execute(Statement { sql, parameters, hold }, terms).await {
                Ok(output) if as_csv => {
                    let mut response = HttpResponse::Ok();
                    response.insert_header(("x-chronos-affected", output.affected.to_string()));
                    let pieces = Pieces::new(Format::Csv, vec![output]);
                    answered(response, "text/csv; charset=utf-8; header=present", pieces, stall_max)
                }
                Ok(output) => answered(HttpResponse::Ok(), json, Pieces::new(Format::Json, vec![output]), stall_max),
                Err(error) => failed(&error, None),
            }
        }
        Asked::Batch(texts) => {
            if let Err(error) = check_lengths(&texts, door.limits.statement_bytes_max) {
                return failed(&error, None);
            }
            match door.router.batch(Statement::batch(texts, hold), terms).await {
                Ok(outputs) => answered(HttpResponse::Ok(), json, Pieces::new(Format::JsonBatch, outputs), stall_max),
                Err(failure) => failed(&failure.error, Some(failure.statement)),
            }
        }
    }
}

/// An answer, with its length where it fits one piece.
fn answered(
    mut response: HttpResponseBuilder,
    content_type: &'static str,
    mut pieces: Pieces,
    stall_max: Duration,
) -> HttpResponse {
    response.content_type(content_type);
    let first = pieces.piece();
    if pieces.is_done() {
        // It is small by now, whatever its rows were; and nobody would watch over its room.
        pieces.give_back();
        return response.body(first);
    }
    response.body(pieces.send(Some(first), stall_max))
}

/// Why a body was not read. What is left of it stays unread, so the connection ends.
fn broken_off(broken: &Broken, limits: &Limits, rest: web::Payload) -> HttpResponse {
    let (status, body) = match broken {
        Broken::TooLong(longest) => {
            let limit = limits.statement_bytes_max;
            let message = if *longest > admin::BODY_BYTES_MAX {
                format!("the body is longer than {longest} bytes, limits.statement_bytes_max is {limit}")
            } else {
                format!("the body is longer than {longest} bytes")
            };
            let error = Error::limit(SqlState::LIMIT_EXCEEDED, message);
            (StatusCode::PAYLOAD_TOO_LARGE, encode::json_error(&error, None))
        }
        Broken::TooSlow(error) => (StatusCode::REQUEST_TIMEOUT, encode::json_error(error, None)),
        Broken::NoRoom(error) => (status_of(error), encode::json_error(error, None)),
        Broken::Malformed(error) => {
            let message = format!("the body cannot be read: {error}");
            let error = Error::invalid(SqlState::PROTOCOL_VIOLATION, message);
            (StatusCode::BAD_REQUEST, encode::json_error(&error, None))
        }
    };
    let mut response = HttpResponse::build(status);
    retry_after(&mut response, status);
    response.force_close().content_type("application/json").body(Unread::new(body, rest))
}

fn retry_after(response: &mut HttpResponseBuilder, status: StatusCode) {
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
}

fn wants_csv(request: &HttpRequest) -> bool {
    let values = request.headers().get_all(header::ACCEPT);
    accept::wants_csv(values.filter_map(|value| value.to_str().ok()))
}

fn failed(error: &Error, statement: Option<usize>) -> HttpResponse {
    let status = status_of(error);
    let mut response = HttpResponse::build(status);
    retry_after(&mut response, status);
    response.content_type("application/json").body(encode::json_error(error, statement))
}

fn status_of(error: &Error) -> StatusCode {
    match (error.kind(), error.sqlstate()) {
        (_, SqlState::INVALID_AUTHORIZATION) => StatusCode::UNAUTHORIZED,
        (_, SqlState::INSUFFICIENT_PRIVILEGE) => StatusCode::FORBIDDEN,
        (_, SqlState::DISK_FULL) => StatusCode::INSUFFICIENT_STORAGE,
        (Kind::Limit, SqlState::QUERY_CANCELED) => StatusCode::GATEWAY_TIMEOUT,
        (Kind::Invalid | Kind::Limit, _) => StatusCode::BAD_REQUEST,
        (Kind::Conflict, _) => StatusCode::CONFLICT,
        (Kind::Unavailable, _) | (Kind::Overloaded, SqlState::OUT_OF_MEMORY) => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Overloaded, _) => StatusCode::TOO_MANY_REQUESTS,
        (Kind::InDoubt | Kind::Damaged | Kind::Io | Kind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whose_fault_it_is() {
        assert_eq!(status_of(&Error::invalid(SqlState::SYNTAX_ERROR, "")).as_u16(), 400);
        assert_eq!(status_of(&Error::overloaded("")).as_u16(), 429);
        assert_eq!(status_of(&Error::new(Kind::Overloaded, SqlState::OUT_OF_MEMORY, "")).as_u16(), 503);
        assert_eq!(status_of(&Error::unavailable("")).as_u16(), 503);
        assert_eq!(status_of(&Error::in_doubt("")).as_u16(), 500);
        assert_eq!(status_of(&Error::limit(SqlState::QUERY_CANCELED, "")).as_u16(), 504);
    }
}
