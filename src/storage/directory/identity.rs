//! Whose directory it is: the content of `CLUSTER`.
//!
//! ```text
//!   magic 8 bytes | format version u32 | identity | crc32c of all before, u32
//! ```

use crate::clock;
use crate::error::{Error, Result, SqlState};
use crate::ids::{ClusterId, DiskId, OriginUid};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Begins every CLUSTER file, in every format.
const MAGIC: [u8; 8] = *b"CHRONOSC";

/// The format of the database directory as a whole.
const FORMAT_VERSION: u32 = 1;

/// Magic, format version and crc.
const FRAME_BYTES: usize = 16;

/// Longest id: what fits a label in a host name, a metric and a file name alike.
const ID_BYTES_MAX: usize = 64;

/// Where the client keeps its files; so no node may be called that.
const CLIENT: &str = "client";

/// Whose directory this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which group.
    pub cluster_id: ClusterId,
    /// Which member of it.
    pub node_id: String,
    /// Which disk: a copied directory keeps it, a wiped one gets another.
    pub disk_id: DiskId,
    /// What rows written here carry.
    pub origin: OriginUid,
}

impl Identity {
    /// A new directory's identity, with random disk id and origin.
    pub fn draw(cluster_id: ClusterId, node_id: &str) -> Result<Identity> {
        check_id(node_id)?;
        let (disk_id, origin) = (DiskId(clock::random_u128()?), OriginUid(clock::random_u64()?));
        Ok(Identity { cluster_id, node_id: node_id.to_string(), disk_id, origin })
    }

    /// The content of CLUSTER.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let body = postcard::to_allocvec(self)
            .map_err(|error| Error::internal(format!("an identity does not encode: {error}")))?;
        let mut content = Vec::with_capacity(body.len() + FRAME_BYTES);
        content.extend_from_slice(&MAGIC);
        content.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        content.extend_from_slice(&body);
        content.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
        Ok(content)
    }

    /// Reads it. Every format has magic and version in front and a crc32c of everything at the end.
    pub(in crate::storage) fn decode(content: &[u8], path: &Path) -> Result<Identity> {
        let damaged = || {
            Error::damaged(format!("{} is damaged at offset 0: its checksum does not match", path.display()))
                .hint("restore the file from a backup, or rebuild the member")
        };
        let (checked, crc) = content.split_last_chunk::<4>().ok_or_else(damaged)?;
        let (magic, rest) = checked.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (version, body) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        if *magic != MAGIC || crc32c::crc32c(checked) != u32::from_le_bytes(*crc) {
            return Err(damaged());
        }
        match u32::from_le_bytes(*version) {
            FORMAT_VERSION => postcard::from_bytes(body).map_err(|_| damaged()),
            newer => Err(Error::invalid(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!("{} has format {newer}, which this version does not know", path.display()),
            )
            .hint(format!("it knows formats up to {FORMAT_VERSION}: start the newer version that wrote it"))),
        }
    }
}

/// Refuses what cannot be a node's id: it names a directory, a metric's label and a host.
pub fn check_id(id: &str) -> Result<()> {
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    if first && rest && id.len() <= ID_BYTES_MAX && id != CLIENT {
        return Ok(());
    }
    let message = match id {
        CLIENT => "\"client\" cannot be a node id: the client keeps its files there".to_string(),
        _ => format!("{id:?} cannot be a node id"),
    };
    Err(Error::invalid(SqlState::INVALID_NAME, message)
        .hint("an id is 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for good in ["node1", "A", "0.a_b-c", &"x".repeat(64)] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-a", "_a", "a/b", "client", "é", "a b", &"x".repeat(65)] {
            assert!(check_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_damaged_or_newer_cluster_file_is_refused_by_name() {
        let path = Path::new("/data/node1/CLUSTER");
        let content = identity().encode().unwrap();
        assert_eq!(Identity::decode(&content, path).unwrap(), identity());
        for bit in 0..content.len() * 8 {
            let mut flipped = content.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&flipped, path).unwrap_err().message().contains("is damaged"), "bit {bit}");
        }
        let mut newer = content[..content.len() - 4].to_vec();
        newer[8] = 2;
        newer.extend_from_slice(&crc32c::crc32c(&newer).to_le_bytes());
        let error = Identity::decode(&newer, path).unwrap_err();
        assert_eq!(error.message(), "/data/node1/CLUSTER has format 2, which this version does not know");
    }

    fn identity() -> Identity {
        let (cluster_id, disk_id, origin) = (ClusterId(7), DiskId(1 << 100), OriginUid(9));
        Identity { cluster_id, node_id: "node1".to_string(), disk_id, origin }
    }
}
