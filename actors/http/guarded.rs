//! Who asks over HTTP: found out for every path before anything of a body is read.
//!
//! | path | without a token | without a certificate, where TLS is on |
//! |---|---|---|
//! | `/health`, `/ready`, and `/metrics` where `http.metrics_open` says so | answered | answered |
//! | `/` | answered: the page holds nothing, and asks for a token | 403 |
//! | `POST /sql`, `GET` and `HEAD` of all others, unknown ones too | 401 | 403 |
//! | all other methods | 401; with one that may only read, 403 | 403 |
//!
//! A web page of another site is refused whatever it asks for but to look (`Origin`, RFC 6454): the browser of somebody who
//! reaches a node that asks for no token would do what any page says. So is one under a name that is not the node's: whoever
//! owns the name may have it lead here. Programs send no such header.
//!
//! The path is the one that requests are routed by: `/%61dmin/members` is `/admin/members`. And what changes something is
//! the admin's wherever it goes, but for statements, which say themselves what they do: a path that is added later, or
//! spelled in a way that nobody thought of, is not open because it was forgotten here.

use super::arrival::Unread;
use crate::actors::auth::{Caller, Guard, Need};
use crate::actors::encode;
use crate::actors::tls::{Tls, Vouched};
use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::body::BoxBody;
use actix_web::dev::{Extensions, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode, header};
use actix_web::rt::net::TcpStream;
use actix_web::{FromRequest, HttpMessage, HttpResponse, web};
use chronos::error::{Error, Result, SqlState};
use futures_util::FutureExt;
use futures_util::future::Either;
use rustls::pki_types::CertificateDer;
use std::any::Any;
use std::sync::Arc;

/// What a connection's client has shown in its handshake.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    /// A connection may outlive the authority that vouched for it.
    vouched: Vouched,
}

/// Looks at a connection that has been made: what its handshake has shown stays with it.
pub fn look_at(stream: &dyn Any, tls: Option<&Arc<Tls>>, extensions: &mut Extensions) {
    if let Some((stream, tls)) = stream.downcast_ref::<TlsStream<TcpStream>>().zip(tls) {
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        // The files may have been read again since the handshake.
        extensions.insert(Shown { chain, vouched: Vouched::by_nothing(tls.clone()) });
    }
}

/// Finds out who asks; what cannot be answered comes back as its answer.
pub fn admit(guard: &Guard, request: ServiceRequest) -> Either<ServiceRequest, ServiceResponse<BoxBody>> {
    let (is_open, need) = match request.match_info().as_str() {
        "/health" | "/ready" => (true, Need::Nothing),
        "/metrics" if guard.metrics_open() => (true, Need::Nothing),
        "/" => (false, Need::Nothing),
        "/sql" => (false, Need::AnyRole),
        _ if [Method::GET, Method::HEAD].contains(request.method()) => (false, Need::AnyRole),
        _ => (false, Need::Admin),
    };
    if !is_open && let Err(error) = check_certificate(guard, &request) {
        return Either::Right(refuse(request, StatusCode::FORBIDDEN, &error));
    }
    if !is_own_page(guard, &request) {
        let message = "this request comes from a web page that this node has not served";
        let error = Error::invalid(SqlState::INSUFFICIENT_PRIVILEGE, message)
            .hint("open the page of this node under its IP address, or under the name that node.advertise gives it");
        return Either::Right(refuse(request, StatusCode::FORBIDDEN, &error));
    }
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let admitted = guard.admit(header, need);
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Either::Left(request)
        }
        Err(error) => {
            let status = super::status_of(&error);
            Either::Right(refuse(request, status, &error))
        }
    }
}

/// The caller of a request. A path that nobody guards has none.
pub fn caller_of(request: &actix_web::HttpRequest) -> Result<Caller> {
    let nobody = || Error::invalid(SqlState::INVALID_AUTHORIZATION, "nobody has looked who asks");
    request.extensions().get::<Caller>().cloned().ok_or_else(nobody)
}

fn check_certificate(guard: &Guard, request: &ServiceRequest) -> Result<()> {
    let refused = |message: String| Err(Error::invalid(SqlState::INVALID_AUTHORIZATION, message));
    match request.conn_data::<Shown>() {
        _ if guard.tls().is_none() => Ok(()),
        Some(Shown { chain, vouched }) if !chain.is_empty() => vouched.look_again(chain).or_else(|why| {
            refused(format!("the certificate that this connection was opened with counts no more: {why}"))
        }),
        Some(_) | None => {
            refused("a client certificate is required; without one there are /health and /ready".to_owned())
        }
    }
}

/// False where a browser says that another site's page asks for more than to look.
fn is_own_page(guard: &Guard, request: &ServiceRequest) -> bool {
    let Some(origin) = request.headers().get(header::ORIGIN) else { return true };
    if [Method::GET, Method::HEAD].contains(request.method()) {
        return true;
    }
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let site = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    host.zip(site).is_some_and(|(host, site)| host.eq_ignore_ascii_case(site) && guard.is_own_host(host))
}

/// What is refused keeps its body unread, and so its connection ends where there is one.
fn refuse(mut request: ServiceRequest, status: StatusCode, error: &Error) -> ServiceResponse<BoxBody> {
    let has_body = request.headers().contains_key(header::CONTENT_LENGTH)
        || request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = HttpResponse::build(status);
    response.content_type("application/json");
    if status == StatusCode::UNAUTHORIZED {
        response.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"chronos\""));
    }
    let body = encode::json_error(error, None);
    let response = if has_body {
        let (asked, payload) = request.parts_mut();
        match web::Payload::from_request(asked, payload).now_or_never() {
            Some(Ok(rest)) => response.force_close().body(Unread::new(body, rest)),
            Some(Err(_)) | None => response.force_close().body(body),
        }
    } else {
        response.body(body)
    };
    request.into_response(response)
}
