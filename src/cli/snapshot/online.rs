//! Takes a snapshot of a running node.
//!
//! * The stream is written as it comes: memory is one message.
//! * What has been written is read again and checked, every checksum of it, before it gets its name.

use super::super::Stop;
use super::super::remote::{self, Target};
use super::archive::{Checksums, Content, unpack};
use super::{CREATE_HINT, io, unusable};
use crate::actors::proto::wire::SnapshotRequest;
use crate::actors::proto::wire::admin_service_client::AdminServiceClient;
use chronos::error::SqlState;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// Bytes that lie in the page cache alone at most. The file is often on the node's own disk, where a log's fdatasync waits
/// behind all that the kernel writes at once.
const UNSYNCED_MAX: usize = 4 << 20;

/// Streams the snapshot of the first node that answers into a file, syncs it and checks it.
pub fn download(target: &Target, checksums: Checksums, partial: &Path) -> Result<Content, Stop> {
    remote::runtime()?.block_on(receive(target, checksums, partial))?;
    // Its own checksums are of this moment, and hold in any case.
    unpack(partial, None, Checksums::Verified).map_err(|error| unusable(partial, &error))
}

async fn receive(target: &Target, checksums: Checksums, partial: &Path) -> Result<(), Stop> {
    let writing = || io(format!("write {}", partial.display()));
    let mut file = File::create(partial).map_err(writing())?;
    let (_, channel) = target.channel(0).await?;
    let mut client = AdminServiceClient::new(channel);
    let failed = |status: tonic::Status| {
        let error = remote::from_status(&status);
        let is_damaged = error.sqlstate() == SqlState::DATA_CORRUPTED;
        Stop::Failed(if is_damaged { error.hint(CREATE_HINT) } else { error })
    };
    let request = SnapshotRequest { no_verify_checksums: checksums == Checksums::Ignored };
    let mut chunks = client.create_snapshot(target.request(request)?).await.map_err(failed)?.into_inner();
    let mut unsynced = 0;
    while let Some(chunk) = chunks.message().await.map_err(failed)? {
        file.write_all(&chunk.data).map_err(writing())?;
        unsynced += chunk.data.len();
        if unsynced >= UNSYNCED_MAX {
            file.sync_data().map_err(writing())?;
            unsynced = 0;
        }
    }
    file.sync_all().map_err(writing())
}
