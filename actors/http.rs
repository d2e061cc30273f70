//! The HTTP door: health and metrics for machines, a query endpoint for scripts, a page for people.
//!
//! One actix-web worker: this is the administrative side; bulk goes through gRPC.
//!
//! | path | answer |
//! |---|---|
//! | `GET /health` | liveness: always 200, `degraded` with a reason where something is wrong |
//! | `GET /ready` | 200 where statements can be served now, else 503 |
//! | `GET /metrics` | Prometheus text 0.0.4 |
//! | `GET /status` | everything, as JSON |
//! | `POST /sql` | an object runs one statement, an array one atomic batch; JSON, or CSV by `Accept` |
//! | `GET /` | a small page, embedded, that loads nothing from elsewhere |
//!
//! * Errors are JSON, `{"error", "sqlstate", "position"}`, and the status says whose fault it is: 400 the statement,
//!   409 a lost conflict, 429 overload, 503 no service, 504 deadline, 500 in doubt or ours.
//! * In doubt is 500, never 503: clients repeat a 503 by themselves.

use crate::actors::encode;
use crate::actors::grpc::{Limits, check_length};
use crate::actors::messages::{Consistency, Content, Output, Statement, StatusReport, Terms, request_id};
use crate::actors::published::{Published, role_name};
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use actix_web::dev::{ServerHandle, Service};
use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::sql::value::Value;
use serde_json::{Value as Json, json};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// What a JSON body needs beside the statement in it; escaping may double it, which [`body_bytes_max`] allows for.
const ENVELOPE_BYTES_MAX: usize = 64 << 10;

/// Connections at once. Each costs a few KiB; scrapers and people need a handful.
const CONNECTIONS_MAX: usize = 512;

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
}

/// The running door.
pub struct HttpDoor {
    handle: ServerHandle,
}

impl HttpDoor {
    /// Serves on a bound listener. Must be called on the actix system's thread.
    pub fn open(listener: TcpListener, router: Router, published: Arc<Published>, limits: Limits) -> Result<HttpDoor> {
        let door = web::Data::new(Door { router, published, limits });
        let server = HttpServer::new(move || {
            App::new()
                .app_data(door.clone())
                .app_data(web::PayloadConfig::new(body_bytes_max(limits)))
                .wrap_fn(|request, service| {
                    let response = service.call(request);
                    async move {
                        let mut response = response.await?;
                        // Answers are of the moment: nothing between may keep them.
                        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
                        Ok(response)
                    }
                })
                .service(web::resource("/").route(web::get().to(page)))
                .service(web::resource("/health").route(web::get().to(health)))
                .service(web::resource("/ready").route(web::get().to(ready)))
                .service(web::resource("/metrics").route(web::get().to(metrics)))
                .service(web::resource("/status").route(web::get().to(status)))
                .service(web::resource("/sql").route(web::post().to(sql)).default_service(web::to(only_post)))
                .default_service(web::to(not_found))
        })
        .workers(1)
        .max_connections(CONNECTIONS_MAX)
        .client_request_timeout(HEAD_TIMEOUT)
        .shutdown_timeout(STOP_GRACE_SECONDS)
        // SIGTERM and SIGINT are the daemon's: doors close first, files last.
        .disable_signals()
        .listen(listener)
        .map_err(|error| Error::io("listen for HTTP", &error))?
        .run();
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

fn body_bytes_max(limits: Limits) -> usize {
    2 * limits.statement_bytes_max + ENVELOPE_BYTES_MAX
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

async fn only_post() -> HttpResponse {
    HttpResponse::MethodNotAllowed()
        .insert_header((header::ALLOW, Method::POST.as_str()))
        .json(json!({ "error": "/sql takes POST" }))
}

async fn health(door: web::Data<Door>) -> HttpResponse {
    let body = match door.router.health().await {
        Ok(report) => {
            let mut body = json!({ "status": "ok", "role": role_name(report.role), "term": report.term.0 });
            if let Some(reason) = report.degraded {
                body["status"] = "degraded".into();
                body["reason"] = reason.into();
            }
            body
        }
        // The process answers, so it lives; what judges it does not at the moment.
        Err(error) => {
            let raft = door.published.raft();
            let (role, term) = (role_name(raft.status.role), raft.status.term.0);
            json!({ "status": "degraded", "role": role, "term": term, "reason": error.to_string() })
        }
    };
    HttpResponse::Ok().json(body)
}

async fn ready(door: web::Data<Door>) -> HttpResponse {
    let absent = door.router.absent();
    let raft = door.published.raft();
    let reason = if !absent.is_empty() {
        format!("restarting: {}", absent.join(", "))
    } else if raft.serves {
        return HttpResponse::Ok().json(json!({ "ready": true }));
    } else {
        format!("no leader (term {})", raft.status.term)
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
        Ok(report) => {
            // A database too large to be hashed in time is still told about.
            let content = door.router.content_hash().await.ok();
            HttpResponse::Ok().json(status_json(&report, content))
        }
        Err(error) => failed(&error, None),
    }
}

fn status_json(report: &StatusReport, content: Option<Content>) -> Json {
    let raft = &report.raft.status;
    let voters: Vec<&str> = raft.membership.voters.iter().map(|voter| voter.0.as_str()).collect();
    let actors = report
        .actors
        .iter()
        .map(|actor| json!({ "name": actor.name, "waiting": actor.waiting, "restarts": actor.restarts }))
        .collect::<Vec<Json>>();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "status": if report.health.degraded.is_some() { "degraded" } else { "ok" },
        "reason": report.health.degraded,
        "raft": {
            "role": role_name(raft.role), "term": raft.term.0, "committed": raft.committed.0,
            "applied": raft.applied.0, "last": raft.last.0, "proposals_bytes": raft.proposals_bytes,
            "voters": voters, "serves": report.raft.serves,
        },
        "storage": {
            "size_bytes": report.storage.size_bytes, "disk_free_bytes": report.storage.disk_free_bytes,
            "disk_full": report.storage.disk_full,
        },
        "content": content.map(|content| {
            json!({ "index": content.index.0, "hash": format!("{:032x}", content.hash) })
        }),
        "sync": {
            "last_sync_ms": report.sync.last_sync_ms, "last_applied": report.sync.last_applied,
            "pending": report.sync.pending, "last_error": report.sync.last_error,
        },
        "actors": actors,
    })
}

/// What a body asks for.
#[derive(Debug, PartialEq)]
enum Asked {
    One(Vec<Value>, String),
    Batch(Vec<String>),
}

async fn sql(request: HttpRequest, door: web::Data<Door>, body: Result<web::Bytes, actix_web::Error>) -> HttpResponse {
    let body = match body {
        Ok(body) => body,
        Err(error) => {
            let status = error.as_response_error().status_code();
            return HttpResponse::build(status).json(json!({ "error": format!("the body cannot be read: {error}") }));
        }
    };
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let (asked, consistency, name) =
        match read(&body).and_then(|(asked, level)| Ok((asked, level, request_id(header)?))) {
            Ok(read) => read,
            Err(error) => return failed(&error, None),
        };
    let deadline = Deadline::after(door.limits.request_timeout);
    let terms = Terms { deadline, consistency, request: name };
    let as_csv = wants_csv(&request);
    match asked {
        Asked::One(parameters, sql) => {
            if let Err(error) = check_length(&sql, door.limits.statement_bytes_max) {
                return failed(&error, None);
            }
            match door.router.execute(Statement { sql, parameters }, terms).await {
                Ok(output) if as_csv => csv(&output),
                Ok(output) => HttpResponse::Ok().content_type("application/json").body(encode::json(&output)),
                Err(error) => failed(&error, None),
            }
        }
        Asked::Batch(texts) => {
            let statements = texts.into_iter().map(|sql| Statement { sql, parameters: Vec::new() }).collect();
            match door.router.batch(statements, terms).await {
                Ok(outputs) => HttpResponse::Ok().content_type("application/json").body(encode::json_batch(&outputs)),
                Err(failure) => failed(&failure.error, Some(failure.statement)),
            }
        }
    }
}

fn csv(output: &Output) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/csv; charset=utf-8; header=present")
        .insert_header(("x-chronos-affected", output.affected.to_string()))
        .body(encode::csv(output))
}

/// The first type in `Accept` that is known decides.
fn wants_csv(request: &HttpRequest) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let known = accept.split(',').map(|one| one.split(';').next().unwrap_or("").trim());
    known.into_iter().find(|one| matches!(*one, "text/csv" | "application/json" | "*/*")) == Some("text/csv")
}

/// Reads a body. NaN is not JSON, and is refused by the parser, naming line and column.
fn read(body: &[u8]) -> Result<(Asked, Consistency)> {
    let malformed = |what: String| Error::invalid(SqlState::INVALID_PARAMETER, what);
    let json: Json =
        serde_json::from_slice(body).map_err(|error| malformed(format!("the body is not JSON: {error}")))?;
    let mut object = match json {
        Json::Array(statements) => return Ok((Asked::Batch(texts(statements)?), Consistency::default())),
        Json::Object(object) => object,
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {
            return Err(malformed("the body is an object with \"sql\", or an array of statements".to_string()));
        }
    };
    let consistency = match object.remove("consistency") {
        None | Some(Json::Null) => Consistency::default(),
        Some(Json::String(name)) => Consistency::parse(&name)?,
        Some(_) => return Err(malformed("\"consistency\" is a string".to_string())),
    };
    let parameters = match object.remove("params") {
        None | Some(Json::Null) => Vec::new(),
        Some(Json::Array(parameters)) => parameters.into_iter().map(parameter).collect::<Result<Vec<Value>>>()?,
        Some(_) => return Err(malformed("\"params\" is an array".to_string())),
    };
    let asked = match (object.remove("sql"), object.remove("statements")) {
        (Some(Json::String(sql)), None) => Asked::One(parameters, sql),
        (None, Some(Json::Array(_))) if !parameters.is_empty() => {
            return Err(Error::unsupported("\"params\" beside \"statements\" are"));
        }
        (None, Some(Json::Array(statements))) => Asked::Batch(texts(statements)?),
        _ => return Err(malformed("the body has either \"sql\", a string, or \"statements\", an array".to_string())),
    };
    match object.keys().next() {
        Some(unknown) => Err(malformed(format!("unknown field \"{unknown}\""))),
        None => Ok((asked, consistency)),
    }
}

/// The statements of a batch: strings, or objects with nothing but `sql`.
fn texts(statements: Vec<Json>) -> Result<Vec<String>> {
    if statements.is_empty() {
        return Err(Error::invalid(SqlState::INVALID_PARAMETER, "a batch has at least one statement"));
    }
    let text = |statement| match statement {
        Json::String(sql) => Ok(sql),
        Json::Object(mut object) => match (object.remove("sql"), object.is_empty()) {
            (Some(Json::String(sql)), true) => Ok(sql),
            _ => {
                Err(Error::invalid(SqlState::INVALID_PARAMETER, "a statement of a batch has \"sql\" and nothing else"))
            }
        },
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::Array(_) => {
            Err(Error::invalid(SqlState::INVALID_PARAMETER, "a statement of a batch is a string"))
        }
    };
    statements.into_iter().map(text).collect()
}

fn parameter(json: Json) -> Result<Value> {
    match json {
        Json::Null => Ok(Value::Null),
        Json::Bool(value) => Ok(Value::Bool(value)),
        Json::String(value) => Ok(Value::Text(value)),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Value::Int(value)),
            (None, Some(value)) if number.is_f64() => Ok(Value::Float(value)),
            _ => Err(Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("{number} is out of range for INT"))),
        },
        Json::Array(_) | Json::Object(_) => {
            Err(Error::invalid(SqlState::INVALID_PARAMETER, "a parameter is a number, a string, a boolean or null"))
        }
    }
}

fn failed(error: &Error, statement: Option<usize>) -> HttpResponse {
    let status = status_of(error);
    let mut response = HttpResponse::build(status);
    if status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::SERVICE_UNAVAILABLE {
        response.insert_header((header::RETRY_AFTER, "1"));
    }
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
        (Kind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Overloaded, _) => StatusCode::TOO_MANY_REQUESTS,
        (Kind::InDoubt | Kind::Damaged | Kind::Io | Kind::Internal, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_one_statement_and_an_array_a_batch() {
        let (asked, consistency) =
            read(br#"{"sql": "SELECT $1", "params": [1, 0.5, "a", null], "consistency": "stale"}"#).unwrap();
        let parameters = vec![Value::Int(1), Value::Float(0.5), Value::Text("a".into()), Value::Null];
        assert_eq!(asked, Asked::One(parameters, "SELECT $1".into()));
        assert_eq!(consistency, Consistency::Stale);
        let batch = Asked::Batch(vec!["A".into(), "B".into()]);
        assert_eq!(read(br#"["A", {"sql": "B"}]"#).unwrap().0, batch);
        assert_eq!(read(br#"{"statements": ["A", "B"]}"#).unwrap().0, batch);
    }

    #[test]
    fn a_wrong_body_is_told_what_is_wrong() {
        let told = |body: &[u8]| read(body).unwrap_err().to_string();
        assert!(told(b"{\"sql\": NaN}").contains("not JSON"), "{}", told(b"{\"sql\": NaN}"));
        assert!(told(br#"{"sql": "A", "sqll": 1}"#).contains("unknown field \"sqll\""));
        assert!(told(br#"{"sql": "A", "params": [18446744073709551615]}"#).contains("out of range for INT"));
        assert!(told(br#"{"sql": "A", "consistency": "eventual"}"#).contains("linearizable"));
        assert!(told(b"[]").contains("at least one"));
        assert!(told(b"7").contains("object"));
    }

    #[test]
    fn a_status_says_whose_fault_it_is() {
        assert_eq!(status_of(&Error::invalid(SqlState::SYNTAX_ERROR, "")).as_u16(), 400);
        assert_eq!(status_of(&Error::overloaded("")).as_u16(), 429);
        assert_eq!(status_of(&Error::unavailable("")).as_u16(), 503);
        assert_eq!(status_of(&Error::in_doubt("")).as_u16(), 500);
        assert_eq!(status_of(&Error::limit(SqlState::QUERY_CANCELED, "")).as_u16(), 504);
    }
}
