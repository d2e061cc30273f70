//! Messages as frames of a stream, and back.

use super::{Outbox, PART_BYTES, Peers, lock};
use crate::actors::proto::wire::{PeerFrame, PeerPart, peer_frame::Frame};
use chronos::error::{Error, Result};
use chronos::raft::Envelope;
use futures_util::stream::{self, BoxStream, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Bytes from which on entries are compressed. Less than that travels in a frame or two anyhow.
const COMPRESS_BYTES_MIN: usize = 16 << 10;

/// Bytes of a message, as they arrive in pieces: the largest command, and what a message of entries has beside it.
const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// Long messages that arrive at once. A sender begins one after the other.
const LONG_MAX: usize = 4;

/// What a link sends: its hello, and once it is `opened` all the rest. Ends when another link has taken its place.
pub(super) fn outgoing(
    hello: PeerFrame,
    outbox: Arc<Outbox>,
    opened: oneshot::Receiver<u64>,
) -> BoxStream<'static, PeerFrame> {
    let begun = Sending { hello: Some(hello), opened: Some(opened), link: 0, outbox, rest: Remainder::default() };
    stream::unfold(begun, |mut sending| async move { Some((sending.next().await?, sending)) }).boxed()
}

struct Sending {
    hello: Option<PeerFrame>,
    opened: Option<oneshot::Receiver<u64>>,
    link: u64,
    outbox: Arc<Outbox>,
    rest: Remainder,
}

impl Sending {
    async fn next(&mut self) -> Option<PeerFrame> {
        if let Some(hello) = self.hello.take() {
            return Some(hello);
        }
        if let Some(opened) = self.opened.take() {
            self.link = opened.await.ok()?;
        }
        next(&self.outbox, self.link, &mut self.rest).await
    }
}

/// The part of a long message that has not left.
#[derive(Default)]
struct Remainder {
    messages: u32,
    data: Vec<u8>,
    from: usize,
    size: u32,
}

enum Next {
    Message(Envelope),
    Piece,
    Wait,
    End,
}

async fn next(outbox: &Outbox, link: u64, rest: &mut Remainder) -> Option<PeerFrame> {
    loop {
        let mut filled = std::pin::pin!(outbox.filled.notified());
        // Before looking: what is filled in between is not missed.
        filled.as_mut().enable();
        match take(outbox, link, rest.from < rest.data.len()) {
            Next::Message(envelope) => return Some(begin(envelope, rest)),
            Next::Piece => return Some(rest.piece()),
            Next::Wait => filled.await,
            Next::End => return None,
        }
    }
}

fn take(outbox: &Outbox, link: u64, is_cut: bool) -> Next {
    let mut queue = lock(&outbox.queue);
    if queue.link != link {
        return Next::End;
    }
    if let Some(urgent) = queue.urgent.pop_front() {
        return Next::Message(urgent);
    }
    if is_cut {
        return Next::Piece;
    }
    match queue.entries.pop_front() {
        Some(entries) => {
            queue.entries_bytes -= entries.entry_bytes();
            Next::Message(entries)
        }
        None => Next::Wait,
    }
}

/// A message as one frame, or the first piece of it.
fn begin(envelope: Envelope, rest: &mut Remainder) -> PeerFrame {
    let mut data = envelope.encode();
    let mut size = 0;
    if data.len() >= COMPRESS_BYTES_MIN {
        let compressed = lz4_flex::compress(&data);
        if compressed.len() < data.len() - data.len() / 8 {
            size = data.len() as u32;
            data = compressed;
        }
    }
    if data.len() <= PART_BYTES {
        return frame(PeerPart { message: 0, last: true, size, data });
    }
    rest.messages = rest.messages.wrapping_add(1).max(1);
    (rest.data, rest.from, rest.size) = (data, 0, size);
    rest.piece()
}

impl Remainder {
    fn piece(&mut self) -> PeerFrame {
        let to = (self.from + PART_BYTES).min(self.data.len());
        let data = self.data[self.from..to].to_vec();
        self.from = to;
        let last = to == self.data.len();
        if last {
            (self.data, self.from) = (Vec::new(), 0);
        }
        frame(PeerPart { message: self.messages, last, size: self.size, data })
    }
}

fn frame(part: PeerPart) -> PeerFrame {
    PeerFrame { frame: Some(Frame::Part(part)) }
}

/// Puts arriving pieces together.
#[derive(Default)]
pub(super) struct Arriving {
    long: BTreeMap<u32, Vec<u8>>,
}

impl Arriving {
    /// The message that a piece completes.
    fn take(&mut self, part: PeerPart) -> Result<Option<Envelope>> {
        let data = if part.message == 0 {
            part.data
        } else {
            let long = self.long.entry(part.message).or_default();
            if long.len() + part.data.len() > MESSAGE_BYTES_MAX {
                return Err(Error::damaged("a message between nodes is larger than any that is sent"));
            }
            long.extend_from_slice(&part.data);
            if !part.last {
                return if self.long.len() > LONG_MAX {
                    Err(Error::damaged("more long messages between nodes are begun than ended"))
                } else {
                    Ok(None)
                };
            }
            self.long.remove(&part.message).unwrap_or_default()
        };
        if part.size == 0 {
            return Envelope::decode(&data).map(Some);
        }
        if part.size as usize > MESSAGE_BYTES_MAX {
            return Err(Error::damaged("a message between nodes is larger than any that is sent"));
        }
        let plain = lz4_flex::decompress(&data, part.size as usize)
            .map_err(|error| Error::damaged(format!("a message between nodes does not decompress: {error}")))?;
        if plain.len() != part.size as usize {
            return Err(Error::damaged("a message between nodes is shorter than it says"));
        }
        Envelope::decode(&plain).map(Some)
    }

    /// Hands a frame's message to raft, where it completes one.
    pub(super) async fn deliver(&mut self, frame: PeerFrame, from: &super::Identity, peers: &Peers) -> Result<()> {
        let Some(Frame::Part(part)) = frame.frame else {
            return Err(Error::damaged("a link begins with a hello, and has no second one"));
        };
        let Some(envelope) = self.take(part)? else { return Ok(()) };
        // Nobody speaks for another.
        if envelope.from != from.id || envelope.disk != from.disk {
            return Err(Error::damaged(format!("{} sends what {} says", from.id, envelope.from)));
        }
        peers.deliver(envelope).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::hlc::Timestamp;
    use chronos::ids::{DiskId, LogIndex, Term};
    use chronos::raft::{Entry, Message, NodeId, Position};

    fn envelope(message: Message) -> Envelope {
        let (from, to) = (NodeId("a".into()), NodeId("b".into()));
        Envelope { from, disk: DiskId(1), to, term: Term(1), message }
    }

    fn entries(bytes: usize) -> Envelope {
        // What does not compress.
        let mut state = 1_u64;
        let mut byte = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let payload: Vec<u8> = (0..bytes).map(|_| byte()).collect();
        let entry = Entry { index: LogIndex(1), term: Term(1), hlc: Timestamp(1), payload: payload.into() };
        envelope(Message::Append { previous: Position::default(), entries: vec![entry], commit: LogIndex(0) })
    }

    #[test]
    fn a_heartbeat_goes_between_the_pieces_of_entries() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let peers = Peers::default();
            let outbox = peers.outbox(&NodeId("b".into()));
            assert!(!peers.send(entries(10)), "without a link it is dropped");
            let (open, opened) = oneshot::channel();
            open.send(outbox.connect()).unwrap();
            let mut frames = outgoing(PeerFrame::default(), outbox.clone(), opened);
            assert_eq!(frames.next().await, Some(PeerFrame::default()), "the hello");
            assert!(peers.send(entries(300_000)));
            let mut arriving = Arriving::default();
            let mut part = async || match frames.next().await.unwrap().frame.unwrap() {
                Frame::Part(part) => arriving.take(part).unwrap(),
                Frame::Hello(_) => panic!("a hello"),
            };
            assert_eq!(part().await, None);
            let heartbeat = Message::Heartbeat { commit: LogIndex(0), round: 1, confirmed: None, held: LogIndex(0) };
            assert!(peers.send(envelope(heartbeat.clone())));
            assert_eq!(part().await.unwrap().message, heartbeat);
            let mut whole = None;
            while whole.is_none() {
                whole = part().await;
            }
            assert_eq!(whole.unwrap(), entries(300_000));
            outbox.connect();
            assert!(frames.next().await.is_none(), "another link has taken its place");
        });
    }

    /// The parts that a message travels in.
    fn parts(message: Envelope) -> Vec<PeerPart> {
        let mut rest = Remainder::default();
        let mut frames = vec![begin(message, &mut rest)];
        while rest.from < rest.data.len() {
            frames.push(rest.piece());
        }
        let part = |frame: PeerFrame| match frame.frame.unwrap() {
            Frame::Part(part) => part,
            Frame::Hello(_) => panic!("a hello"),
        };
        frames.into_iter().map(part).collect()
    }

    /// Entries that compress to less than a frame.
    fn repeated(bytes: usize) -> Envelope {
        let entry = Entry { index: LogIndex(1), term: Term(1), hlc: Timestamp(1), payload: vec![7; bytes].into() };
        envelope(Message::Append { previous: Position::default(), entries: vec![entry], commit: LogIndex(0) })
    }

    #[test]
    fn entries_are_compressed_where_that_pays() {
        let message = repeated(1 << 20);
        let parts = parts(message.clone());
        assert_eq!(parts.len(), 1);
        assert!(parts[0].data.len() < 16 << 10 && parts[0].size > 1 << 20, "{} bytes", parts[0].data.len());
        assert_eq!(Arriving::default().take(parts[0].clone()).unwrap(), Some(message));
        // Neither what would stay as long, nor what is short anyway.
        for message in [entries(300_000), repeated(1000)] {
            assert!(self::parts(message).iter().all(|part| part.size == 0));
        }
    }

    #[test]
    fn a_message_that_lies_about_its_size_ends_its_link() {
        let part = parts(repeated(1 << 20)).remove(0);
        let wrong = |part: PeerPart| Arriving::default().take(part).unwrap_err().to_string();
        for size in [part.size - 1, 100] {
            let told = wrong(PeerPart { size, ..part.clone() });
            assert!(told.contains("does not decompress"), "{size}: {told}");
        }
        let told = wrong(PeerPart { size: u32::MAX, ..part.clone() });
        assert!(told.contains("larger than any that is sent"), "{told}");
        let told = wrong(PeerPart { size: part.size + 1, ..part.clone() });
        assert!(told.contains("shorter than it says"), "{told}");
        let torn = part.data[..part.data.len() / 2].to_vec();
        wrong(PeerPart { data: torn, ..part });
        // In pieces that never end, too.
        let mut arriving = Arriving::default();
        let piece = PeerPart { message: 1, last: false, size: 0, data: vec![0; PART_BYTES] };
        let told = (0..=MESSAGE_BYTES_MAX / PART_BYTES).find_map(|_| arriving.take(piece.clone()).err()).unwrap();
        assert!(told.to_string().contains("larger than any that is sent"), "{told}");
    }
}
