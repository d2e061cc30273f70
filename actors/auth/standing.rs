//! What a link between two nodes stands on, which a reload may take away under it.
//!
//! A link lasts for months. Were what it has shown looked at when it begins alone, a token that somebody has stolen would
//! serve him until the next restart, and a new one that is wrong would look right until then. So each end looks again
//! after every reload, and ends a link that it would not make or take any more. Whoever dials it does so again, with what
//! it has by then.

use super::Guard;
use super::peer_guard::CLUSTER_TOKEN;
use crate::actors::tls::Material;
use chronos::error::{Error, Result, SqlState};
use std::sync::Arc;
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

/// By what a link was opened.
pub struct Standing {
    guard: Arc<Guard>,
    token: Option<String>,
    /// By what the other end's certificate was looked at, where its connection cannot be asked for it again.
    material: Option<Arc<Material>>,
    reloads: watch::Receiver<()>,
}

impl Standing {
    /// Of a link with this metadata, that the other end has dialled: its connection minds the certificate itself.
    pub(super) fn accepted(guard: &Arc<Guard>, shown: &MetadataMap) -> Standing {
        let token = shown.get(CLUSTER_TOKEN).and_then(|token| token.to_str().ok()).map(str::to_owned);
        Standing { guard: guard.clone(), token, material: None, reloads: guard.reloads.subscribe() }
    }

    /// Of a link with this metadata, that this node dials.
    pub(super) fn dialled(guard: &Arc<Guard>, shows: &MetadataMap) -> Standing {
        Standing { material: guard.material(), ..Standing::accepted(guard, shows) }
    }

    /// Whether such a link would be opened now.
    fn check(&self) -> Result<()> {
        let has_shown = self.guard.rules.load().tokens.is_cluster(self.token.as_deref());
        self.guard.admit_peer(has_shown)?;
        if self.guard.trusts(self.material.as_deref()) {
            return Ok(());
        }
        let message = "an authority that may have signed the other node's certificate counts no more";
        Err(Error::invalid(SqlState::INVALID_AUTHORIZATION, message))
    }

    /// Waits until such a link would not be opened any more, and says why not.
    pub async fn lost(&mut self) -> Error {
        loop {
            // Before looking: what is read in between is not missed.
            self.reloads.borrow_and_update();
            if let Err(error) = self.check() {
                return error;
            }
            // Its sender is the guard's, which lives as long as this.
            if self.reloads.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PeerGuard;
    use super::super::tests::{certified, with};
    use super::*;
    use std::time::Duration;
    use tonic::Request;

    #[test]
    fn a_link_stands_for_as_long_as_its_token_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let settings = with(&[("cluster_token_file", file.to_str().unwrap())]);
        std::fs::write(&file, "old\n").unwrap();
        let guard = Guard::open(&settings).unwrap();
        let peer = PeerGuard::new(guard.clone());
        let open = || {
            let mut request = Request::new(());
            peer.sign(&mut request).unwrap();
            [peer.accepted(request.metadata()), peer.dialled(request.metadata())]
        };
        let work = async {
            let mut first = open();
            for (tokens, stand) in [("old\nnew\n", true), ("new\nold\n", true), ("new\n", false)] {
                std::fs::write(&file, tokens).unwrap();
                guard.reload(&settings).unwrap();
                for link in &mut first {
                    let lost = tokio::time::timeout(Duration::from_millis(50), link.lost()).await;
                    assert_eq!(lost.is_err(), stand, "{tokens:?}");
                }
            }
            // One that waits is told, and one that is opened now stands.
            let [mut waits, mut stays] = open();
            assert!(tokio::time::timeout(Duration::from_millis(50), stays.lost()).await.is_err());
            let waiting = tokio::spawn(async move { waits.lost().await });
            tokio::task::yield_now().await;
            std::fs::write(&file, "newer\n").unwrap();
            guard.reload(&settings).unwrap();
            let told = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
            assert_eq!(told.sqlstate(), SqlState::INVALID_AUTHORIZATION);
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
    }

    #[test]
    fn a_link_is_dialled_again_once_an_authority_counts_no_more() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (guard, other) = (certified(first.path()), certified(second.path()));
        let link = PeerGuard::new(guard.clone()).dialled(Request::new(()).metadata());
        link.check().unwrap();
        let taken = other.tls().unwrap().material();
        guard.tls().unwrap().swap(Material::clone(&taken));
        assert!(link.check().unwrap_err().to_string().contains("authority"));
    }
}
