//! Envelopes as bytes, for the way between nodes.
//!
//! ```text
//! version:u8 | envelope without entries, postcard | count of entries | for each: index term stamp length bytes
//! ```
//!
//! Entries are copied as they are: their payload is most of what travels, and means nothing here.

use crate::hlc::Timestamp;
use crate::ids::{LogIndex, Term};
use crate::raft::{Entry, Envelope, Message};
use crate::{Error, Result};

/// The version of this form. A node refuses another one by name when the connection begins, and not message by message.
pub const WIRE_VERSION: u8 = 4;

impl Envelope {
    /// The bytes that travel.
    pub fn encode(mut self) -> Vec<u8> {
        let mut entries = Vec::new();
        if let Message::Append { entries: carried, .. } = &mut self.message {
            entries = std::mem::take(carried);
        }
        let bytes = entries.iter().map(|entry| entry.payload.len() + ENTRY_BYTES_MAX).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + HEADER_BYTES);
        out.push(WIRE_VERSION);
        let encoded = |part: postcard::Result<Vec<u8>>| part.expect("a message has a plain encoding");
        out = encoded(postcard::to_extend(&self, out));
        out = encoded(postcard::to_extend(&(entries.len() as u64), out));
        for entry in &entries {
            let header = (entry.index.0, entry.term.0, entry.hlc.0, entry.payload.len() as u64);
            out = encoded(postcard::to_extend(&header, out));
            out.extend_from_slice(&entry.payload);
        }
        out
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8]) -> Result<Envelope> {
        let damaged =
            |error: postcard::Error| Error::damaged(format!("a message between nodes does not decode: {error}"));
        let Some((&WIRE_VERSION, body)) = bytes.split_first() else {
            return Err(Error::damaged("a message between nodes is of another version"));
        };
        let (mut envelope, rest): (Envelope, &[u8]) = postcard::take_from_bytes(body).map_err(damaged)?;
        let (count, mut rest): (u64, &[u8]) = postcard::take_from_bytes(rest).map_err(damaged)?;
        let Message::Append { entries, .. } = &mut envelope.message else { return Ok(envelope) };
        for _ in 0..count {
            let ((index, term, hlc, length), body): ((u64, u64, u64, u64), &[u8]) =
                postcard::take_from_bytes(rest).map_err(damaged)?;
            let Some((payload, after)) = usize::try_from(length).ok().and_then(|length| body.split_at_checked(length))
            else {
                return Err(Error::damaged("a message between nodes is cut off"));
            };
            entries.push(Entry {
                index: LogIndex(index),
                term: Term(term),
                hlc: Timestamp(hlc),
                payload: payload.into(),
            });
            rest = after;
        }
        Ok(envelope)
    }

    /// Bytes of entries in it.
    pub fn entry_bytes(&self) -> usize {
        let Message::Append { entries, .. } = &self.message else { return 0 };
        entries.iter().map(|entry| entry.payload.len()).sum()
    }
}

/// What an entry has beside its payload: four numbers of at most ten bytes.
const ENTRY_BYTES_MAX: usize = 40;

/// About what an envelope has.
const HEADER_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Wall;
    use crate::ids::DiskId;
    use crate::raft::{NodeId, Position, Verdict};

    fn envelope(message: Message) -> Envelope {
        Envelope { from: NodeId("a".into()), disk: DiskId(7), to: NodeId("b".into()), term: Term(3), message }
    }

    #[test]
    fn messages_survive_their_encoding() {
        let entry = |index: u64, payload: &[u8]| Entry {
            index: LogIndex(index),
            term: Term(2),
            hlc: Timestamp(index << 20),
            payload: payload.into(),
        };
        let previous = Position { index: LogIndex(4), term: Term(1) };
        for message in [
            Message::Append { previous, entries: vec![entry(5, b""), entry(6, &[9; 300])], commit: LogIndex(2) },
            Message::Append { previous, entries: vec![], commit: LogIndex(2) },
            Message::AppendReply(Verdict::Accepted { matched: LogIndex(6) }),
            Message::AppendReply(Verdict::Full { matched: LogIndex(6) }),
            Message::Heartbeat { commit: LogIndex(4), round: 9, confirmed: Some(7), held: LogIndex(300) },
            Message::Vote { last: previous, transfer: true },
            Message::HeartbeatReply {
                round: 9,
                command_version: 1,
                quarantined_until: None,
                wall: Wall(1_700_000_000_000),
                is_disk_low: true,
            },
        ] {
            let envelope = envelope(message);
            let bytes = envelope.clone().encode();
            assert_eq!(Envelope::decode(&bytes).unwrap(), envelope);
            for cut in 0..bytes.len() {
                assert!(Envelope::decode(&bytes[..cut]).is_err(), "cut at {cut}");
            }
        }
    }
}
