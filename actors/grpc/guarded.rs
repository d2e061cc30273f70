//! A gRPC service behind the guard: who asks is found out before his message is read.

use super::status;
use crate::actors::auth::{Guard, Need};
use crate::actors::published::Published;
use crate::actors::transit::Line;
use futures_util::future::{Either, Ready, ready};
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

/// A service whose callers are known. Its handlers find the `Caller` in the extensions.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Arc<Guard>,
    need: Need,
    /// Its methods that need no more than any role, by their paths.
    reading: &'static [&'static str],
    /// Where the group is known that the service is for.
    group: Option<Arc<Published>>,
    /// Its methods that other nodes hand on, and the group that those belong to.
    handed_on: Option<(&'static [&'static str], Arc<Published>)>,
}

impl<S> Guarded<S> {
    /// In front of a service.
    pub fn new(inner: S, guard: &Arc<Guard>, need: Need) -> Guarded<S> {
        Guarded { inner, guard: guard.clone(), need, reading: &[], group: None, handed_on: None }
    }

    /// In front of a service for other nodes. There is none while this node is the whole of its group and expects nobody.
    pub fn for_peers(inner: S, guard: &Arc<Guard>, published: Arc<Published>) -> Guarded<S> {
        Guarded { group: Some(published), ..Guarded::new(inner, guard, Need::Peer) }
    }

    /// The same, and these methods for whoever has a role. The server goes by the same text, letter by letter.
    pub fn but_for_reading(self, reading: &'static [&'static str]) -> Guarded<S> {
        Guarded { reading, ..self }
    }

    /// The same, and these methods also from nodes of the group, where there may be any.
    pub fn and_handed_on(self, methods: &'static [&'static str], published: Arc<Published>) -> Guarded<S> {
        Guarded { handed_on: Some((methods, published)), ..self }
    }

    /// What one of its methods needs.
    fn need(&self, method: &str) -> Need {
        if self.reading.contains(&method) {
            return Need::AnyRole;
        }
        let is_handed_on =
            |(methods, group): &(&[&str], Arc<Published>)| methods.contains(&method) && self.guard.expects_peers(group);
        if self.handed_on.as_ref().is_some_and(is_handed_on) { Need::AdminAnywhere } else { self.need }
    }

    fn has_callers(&self) -> bool {
        self.group.as_ref().is_none_or(|group| self.guard.expects_peers(group))
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response<Body>, Infallible>>, S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if !self.has_callers() {
            let message = "this node is the whole of its group: add the other one first, chronos admin add-node";
            return Either::Left(ready(Ok(Status::failed_precondition(message).into_http())));
        }
        let headers = request.headers();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let need = self.need(request.uri().path());
        let place = request.extensions().get::<Line>().and_then(Line::place);
        let admitted = self.guard.admit(header, need).and_then(|caller| {
            place.map_or(Ok(()), |place| place.admit(caller.role))?;
            Ok(caller)
        });
        match admitted {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Right(self.inner.call(request))
            }
            Err(error) => Either::Left(ready(Ok(status(&error).into_http()))),
        }
    }
}
