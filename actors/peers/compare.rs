//! Asking another member for the hash of its copy at a position.

use super::Peers;
use super::dial::connect;
use super::service::{check_hello, hello_to};
use crate::actors::proto::wire::peer_service_client::PeerServiceClient;
use crate::actors::proto::wire::{ContentRequest, ContentResponse};
use crate::actors::published::Published;
use chronos::error::{Error, Result};
use chronos::ids::LogIndex;
use chronos::raft::NodeId;
use std::time::Duration;
use tonic::Request;

/// How long an answer may take: it is one number that is there or not.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// What `to` says of its copy at `index`; none where it has not hashed that, or not yet.
pub async fn ask(
    peers: &Peers,
    published: &Published,
    to: &NodeId,
    address: &str,
    index: LogIndex,
) -> Result<Option<u128>> {
    let own = peers.identity().ok_or_else(|| Error::unavailable("the node is starting"))?;
    let failed = |what: &dyn std::fmt::Display| Error::unavailable(format!("{address}: {what}"));
    let mut request = Request::new(ContentRequest { hello: Some(hello_to(&own, to, published)), index: index.0 });
    peers.sign(&mut request)?;
    let endpoint = peers.endpoint(address)?;
    let asked = async {
        let channel = connect(endpoint).await.map_err(|why| failed(&why))?;
        let answered = PeerServiceClient::new(channel).content(request).await;
        answered.map_err(|status| failed(&status.message()))
    };
    let answer = tokio::time::timeout(ANSWER_WAIT, asked).await.map_err(|_| failed(&"no answer"))??;
    let ContentResponse { hash } = answer.into_inner();
    if hash.is_empty() {
        return Ok(None);
    }
    let hash = <[u8; 16]>::try_from(hash.as_slice()).map_err(|_| failed(&"a hash has sixteen bytes"))?;
    Ok(Some(u128::from_be_bytes(hash)))
}

/// The answer to the same question.
pub(super) fn answer(peers: &Peers, published: &Published, request: ContentRequest) -> Result<ContentResponse> {
    let own = peers.identity().ok_or_else(|| Error::unavailable("the node is starting"))?;
    check_hello(request.hello, &own, published)?;
    let contents = published.contents();
    let known = contents.iter().find(|content| content.index.0 == request.index);
    Ok(ContentResponse { hash: known.map_or_else(Vec::new, |content| content.hash.to_be_bytes().to_vec()) })
}
