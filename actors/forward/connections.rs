//! Connections to leaders, past and present: one an address, however many statements want it.
//!
//! A new leader has all the statements of a node at once. Each with a connection of its own would be a flood at the door of
//! whoever has just begun to lead; so the first one dials, and the others wait for what becomes of that.
//!
//! * A dial goes on where the statement that began it is at its end: the next one finds it done.
//! * What failed is not kept: whoever comes after that dials anew. The same where certificates were read again, and one of
//!   the authorities counts no more that may have vouched for the other end.
//! * Whoever finds a connection broken lets go of that one, and not of what others have dialled since.
//! * With every new one, those go that no member is behind any more: there are never more than members.

use crate::actors::peers::Peers;
use crate::actors::peers::dial::connect;
use crate::actors::tls::Material;
use chronos::error::Result;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tonic::transport::Channel;

/// A connection that is there, or is being made. Clones are the same one.
#[derive(Clone)]
pub struct Connection {
    dial: Shared<BoxFuture<'static, Result<Channel, String>>>,
    /// By what the other end's certificate is looked at.
    known_by: Option<Arc<Material>>,
}

impl Connection {
    /// Waits until it is there; or says why it cannot be.
    pub async fn channel(&self) -> Result<Channel, String> {
        self.dial.clone().await
    }

    /// False where it has failed, or an authority that may have vouched for the other end counts no more.
    fn stands(&self, peers: &Peers) -> bool {
        !self.dial.peek().is_some_and(Result::is_err) && peers.trusts(self.known_by.as_deref())
    }

    fn is(&self, other: &Connection) -> bool {
        self.dial.ptr_eq(&other.dial)
    }
}

/// All of them.
#[derive(Default)]
pub struct Connections {
    kept: Mutex<BTreeMap<String, Connection>>,
}

impl Connections {
    /// The connection to an address, in a group whose members are behind those that `is_known` tells. Must be called on a
    /// runtime.
    ///
    /// # Errors
    ///
    /// Where the address, or what is shown to peers, is none.
    pub fn to(&self, address: &str, peers: &Peers, is_known: impl Fn(&str) -> bool) -> Result<Connection> {
        let mut kept = self.lock();
        if let Some(known) = kept.get(address).filter(|known| known.stands(peers)) {
            return Ok(known.clone());
        }
        // Before the certificates are taken: what is read in between is not missed.
        let known_by = peers.material();
        let dial = tokio::spawn(connect(peers.endpoint(address)?));
        let dialled = async { dial.await.unwrap_or_else(|error| Err(error.to_string())) };
        let connection = Connection { dial: dialled.boxed().shared(), known_by };
        kept.retain(|kept, _| is_known(kept));
        kept.insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    /// Lets go of one that broke.
    pub fn forget(&self, address: &str, broken: &Connection) {
        let mut kept = self.lock();
        if kept.get(address).is_some_and(|known| known.is(broken)) {
            kept.remove(address);
        }
    }

    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::auth::PeerGuard;
    use crate::actors::auth::tests::{certified, guard};
    use crate::actors::tests::patience::until;

    /// A server that takes connections and says nothing, and how many it was given.
    fn silent() -> (std::net::TcpListener, String) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    fn taken(listener: &std::net::TcpListener) -> Vec<std::net::TcpStream> {
        std::iter::from_fn(|| listener.accept().ok().map(|(stream, _)| stream)).collect()
    }

    fn peers() -> Peers {
        let peers = Peers::default();
        peers.set_guard(PeerGuard::new(guard(&[])));
        peers
    }

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_hundred_statements_dial_a_new_leader_once() {
        let (listener, address) = silent();
        on_a_runtime(async {
            let (connections, peers) = (Connections::default(), peers());
            let wants = (0..100).map(|_| async {
                let connection = connections.to(&address, &peers, |_| true).unwrap();
                connection.channel().await.unwrap();
                connection
            });
            let all = futures_util::future::join_all(wants).await;
            assert!(all.iter().all(|one| one.is(&all[0])));
            assert_eq!(taken(&listener).len(), 1);
            // One of them is late to say that the first one broke.
            connections.forget(&address, &all[0]);
            let second = connections.to(&address, &peers, |_| true).unwrap();
            connections.forget(&address, &all[1]);
            assert!(connections.to(&address, &peers, |_| true).unwrap().is(&second) && !second.is(&all[0]));
            second.channel().await.unwrap();
            assert_eq!(taken(&listener).len(), 1);
        });
    }

    #[test]
    fn a_dial_that_failed_is_everybodys_and_the_next_one_dials_anew() {
        let (listener, address) = silent();
        drop(listener);
        on_a_runtime(async {
            let (connections, peers) = (Connections::default(), peers());
            let (first, second) =
                (connections.to(&address, &peers, |_| true), connections.to(&address, &peers, |_| true));
            let (first, second) = (first.unwrap(), second.unwrap());
            assert!(first.is(&second) && first.channel().await.is_err() && second.channel().await.is_err());
            assert!(!connections.to(&address, &peers, |_| true).unwrap().is(&first));
        });
    }

    #[test]
    fn a_dial_whose_statement_has_ended_goes_on() {
        let (_listener, address) = silent();
        on_a_runtime(async {
            let (connections, peers) = (Connections::default(), peers());
            let first = connections.to(&address, &peers, |_| true).unwrap();
            assert!(first.channel().now_or_never().is_none());
            let second = connections.to(&address, &peers, |_| true).unwrap();
            assert!(second.is(&first));
            second.channel().await.unwrap();
        });
    }

    #[test]
    fn a_connection_ends_with_the_authority_that_vouched_for_it() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (own, other) = (certified(first.path()), certified(second.path()));
        let (_listener, address) = silent();
        on_a_runtime(async {
            let (connections, peers) = (Connections::default(), Peers::default());
            peers.set_guard(PeerGuard::new(own.clone()));
            let dial = || connections.to(&address, &peers, |_| true).unwrap();
            let connection = dial();
            assert!(dial().is(&connection));
            own.tls().unwrap().swap(Material::clone(&other.tls().unwrap().material()));
            let again = dial();
            assert!(!again.is(&connection) && dial().is(&again));
        });
    }

    #[test]
    fn connections_to_who_is_no_member_are_let_go() {
        let (gone, gone_address) = silent();
        let (_stays, address) = silent();
        on_a_runtime(async {
            let (connections, peers) = (Connections::default(), peers());
            let first = connections.to(&gone_address, &peers, |_| true).unwrap();
            first.channel().await.unwrap();
            drop(first);
            let (stream, _) = gone.accept().unwrap();
            connections.to(&address, &peers, |known| known == address).unwrap().channel().await.unwrap();
            assert_eq!(connections.lock().keys().collect::<Vec<_>>(), [&address]);
            // It ends, and not only its place in the map.
            stream.set_nonblocking(true).unwrap();
            until(async || std::io::Read::read(&mut &stream, &mut [0; 1 << 10]).is_ok_and(|bytes| bytes == 0)).await;
        });
    }
}
