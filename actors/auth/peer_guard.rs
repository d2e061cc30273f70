//! Who is a peer, and how this node shows that it is one.
//!
//! ```text
//!   out: endpoint() ── TLS with this node's certificate, where there is one ── sign() ── x-chronos-cluster-token
//!   in:  handshake (gRPC asks for a certificate) ── Guard::admit, Need::Peer ── the token, where one is set
//! ```
//!
//! | `auth.cluster_token` | tokens of clients | TLS | who is a peer |
//! |---|---|---|---|
//! | set | any | any | who shows it: clients have certificates of the same authority |
//! | not set | set | any | nobody |
//! | not set | not set | on | who has a certificate, as for everything else |
//! | not set | not set | off | everybody, as for everything else; but a group refuses to start so, except on loopback |
//!
//! * A node that names no others and is the whole of its group has no peers, whatever they show (grpc/guarded.rs).
//! * A reload counts for streams that begin after it, and for the links that are there (standing.rs).

use super::{Guard, Standing};
use crate::actors::tls::Material;
use chronos::error::{Error, Result, SqlState};
use std::sync::Arc;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::Endpoint;

/// Metadata: what the nodes of a group show each other.
pub(super) const CLUSTER_TOKEN: &str = "x-chronos-cluster-token";

/// Metadata of a request that another node has handed on.
pub const HANDED_ON: &str = "x-chronos-handed-on";

/// What a caller is told where tokens are set, and none of the group.
pub(super) fn no_token() -> Error {
    let message = "no node is taken for a peer here: tokens are set, and auth.cluster_token is not";
    Error::invalid(SqlState::INVALID_AUTHORIZATION, message).hint("set auth.cluster_token to the same on all nodes")
}

/// What a caller is told that shows no token of the group.
pub(super) fn no_member() -> Error {
    let message = "this is no member of the group: auth.cluster_token is not the same on both nodes";
    Error::invalid(SqlState::INVALID_AUTHORIZATION, message)
}

/// Shows peers who this node is.
#[derive(Clone)]
pub struct PeerGuard {
    guard: Arc<Guard>,
}

impl PeerGuard {
    /// By the node's settings.
    pub fn new(guard: Arc<Guard>) -> PeerGuard {
        PeerGuard { guard }
    }

    /// Shows that this node is a peer.
    pub fn sign<T>(&self, request: &mut Request<T>) -> Result<()> {
        let rules = self.guard.rules.load();
        let Some(token) = rules.tokens.shown_to_peers() else { return Ok(()) };
        let mut value: MetadataValue<Ascii> = token.reveal().parse().map_err(|_| {
            Error::invalid(SqlState::CONFIG_ERROR, "auth.cluster_token has characters that no header may have")
        })?;
        value.set_sensitive(true);
        request.metadata_mut().insert(CLUSTER_TOKEN, value);
        Ok(())
    }

    /// What a link stands on that another node has dialled with this metadata.
    pub fn accepted(&self, shown: &MetadataMap) -> Standing {
        Standing::accepted(&self.guard, shown)
    }

    /// What a link stands on that this node dials with this metadata.
    pub fn dialled(&self, shows: &MetadataMap) -> Standing {
        Standing::dialled(&self.guard, shows)
    }

    /// By what the certificates of the nodes are looked at that this node dials now; none where links are not encrypted.
    pub fn material(&self) -> Option<Arc<Material>> {
        self.guard.material()
    }

    /// True where whoever was taken by that would be taken now.
    pub fn trusts(&self, known_by: Option<&Material>) -> bool {
        self.guard.trusts(known_by)
    }

    /// Refuses to expect another node where none would be taken for a peer.
    ///
    /// # Errors
    ///
    /// F0000 where clients have tokens, and nodes have none.
    pub fn check_expected(&self) -> Result<()> {
        let knows_peers = self.guard.rules.load().tokens.shown_to_peers().is_some();
        if knows_peers || !self.guard.asks_for_tokens() {
            return Ok(());
        }
        let message =
            "no other node would be taken for a member: clients have tokens here, and auth.cluster_token is not set";
        Err(Error::invalid(SqlState::CONFIG_ERROR, message).hint("set auth.cluster_token to the same on all nodes"))
    }

    /// Where and how to connect to a peer, `HOST:PORT`: the certificates are those of this moment.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint> {
        let wrong =
            |error: tonic::transport::Error| Error::invalid(SqlState::CONFIG_ERROR, format!("peer {address}: {error}"));
        match self.guard.tls() {
            None => Endpoint::from_shared(format!("http://{address}")).map_err(wrong),
            Some(tls) => {
                let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(wrong)?;
                endpoint.tls_config(tls.client()).map_err(wrong)
            }
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::tests::guard;
    use super::*;
    use crate::actors::auth::{Need, Role};
    use chronos::sql::execute::Access;

    fn signed_by(settings: &[(&'static str, &str)]) -> MetadataMap {
        let mut request = Request::new(());
        PeerGuard::new(guard(settings)).sign(&mut request).unwrap();
        request.metadata().clone()
    }

    #[test]
    fn a_peer_is_who_has_the_same_token() {
        let ours = guard(&[("cluster_token", "ours")]);
        let admit = |guard: &Guard, shown: &MetadataMap, need| {
            guard.admit(|name| shown.get(name).and_then(|value| value.to_str().ok()), need)
        };
        admit(&ours, &signed_by(&[("cluster_token", "ours")]), Need::Peer).unwrap();
        for other in [signed_by(&[]), signed_by(&[("cluster_token", "theirs")])] {
            let refused = admit(&ours, &other, Need::Peer).unwrap_err();
            assert_eq!(refused.sqlstate(), SqlState::INVALID_AUTHORIZATION);
        }
        // The admin's token is another one.
        let mut bearer = MetadataMap::new();
        bearer.insert("authorization", "Bearer ours".parse().unwrap());
        assert!(admit(&ours, &bearer, Need::Peer).is_err());
        let peer = admit(&guard(&[]), &MetadataMap::new(), Need::Peer).unwrap();
        assert_eq!((peer.role, peer.access()), (Role::Peer, Access::ReadOnly), "a peer is no admin by itself");
        // What a peer hands on is an admin's, where that is expected of peers.
        let both = guard(&[("cluster_token", "ours"), ("token_admin", "secret")]);
        let mut handed_on = signed_by(&[("cluster_token", "ours")]);
        assert!(admit(&both, &handed_on, Need::AdminAnywhere).is_err(), "only what was handed on");
        handed_on.insert(HANDED_ON, "1".parse().unwrap());
        admit(&both, &handed_on, Need::AdminAnywhere).unwrap();
        assert!(admit(&both, &handed_on, Need::Admin).is_err());
        assert!(admit(&both, &handed_on, Need::AnyRole).is_err());
        assert!(admit(&both, &MetadataMap::new(), Need::AdminAnywhere).is_err());
    }

    #[test]
    fn where_roles_count_nobody_is_a_peer_without_the_groups_token() {
        for settings in [vec![("token_admin", "adm")], vec![("token_readonly", "ro")]] {
            let guard = guard(&settings);
            for bearer in [None, Some("Bearer adm"), Some("Bearer ro")] {
                let header = |name: &str| if name == "authorization" { bearer } else { None };
                let refused = guard.admit(header, Need::Peer).unwrap_err();
                assert!(refused.to_string().contains("auth.cluster_token"), "{refused}");
            }
        }
    }

    #[test]
    fn a_peer_is_reached_in_the_clear_where_there_are_no_certificates() {
        let endpoint = PeerGuard::new(guard(&[])).endpoint("127.0.0.1:8001").unwrap();
        assert_eq!(endpoint.uri().scheme_str(), Some("http"));
        assert!(PeerGuard::new(guard(&[])).endpoint("not an address").is_err());
    }

    /// A guard with a certificate of an authority made for this test.
    pub fn certified(directory: &std::path::Path) -> Arc<Guard> {
        use chronos::config::{Flag, Sources, load};
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (authority, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let ca = params.self_signed(&authority).unwrap().pem();
        let issuer = Issuer::new(params, authority);
        let cert = CertificateParams::new(vec!["localhost".to_string()]).unwrap().signed_by(&key, &issuer).unwrap();
        let write = |name: &'static str, pem: String| {
            let path = directory.join(name);
            std::fs::write(&path, pem).unwrap();
            Flag { flag: "-", section: "tls", name, value: path.to_str().unwrap().to_string() }
        };
        let flags = vec![write("cert", cert.pem()), write("key", key.serialize_pem()), write("ca_cert", ca)];
        let config = load(&Sources { flags, ..Sources::default() }).unwrap().config;
        Guard::open(&super::super::Settings::of(&config)).unwrap()
    }

    #[test]
    fn peers_show_each_other_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let guard = certified(directory.path());
        let work = async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let acceptor = guard.tls().unwrap().grpc().unwrap().acceptor;
            let served = async {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                stream.get_ref().1.peer_certificates().map(<[_]>::len)
            };
            let peer = PeerGuard::new(guard.clone());
            let endpoint = peer.endpoint(&address).unwrap();
            let (shown, connected) = tokio::join!(served, endpoint.connect());
            assert!(shown == Some(1) && connected.is_ok(), "{shown:?}, {connected:?}");
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }
}
