//! Where messages begin and end in the body of a call: each has five bytes before it, which say how long it is.
//!
//! * The length is a promise; how much of it is here decides what room it gets (entry.rs).
//! * A message is too long, or one too many, from the byte on that says so; nothing behind that byte is looked at.
//! * Frames of HTTP/2 cut messages anywhere, and may end one and begin the next.

use crate::actors::transit::SMALL_BYTES;

/// In front of a message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;

/// What a call may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// One with a statement, of up to so many bytes.
    Statement(usize),
    /// One that asks for something and is small: a name at most.
    Question,
    /// The same, one after the other.
    Questions,
}

impl Messages {
    /// Bytes of one of them.
    pub fn bytes_max(self) -> usize {
        match self {
            Messages::Statement(bytes_max) => bytes_max,
            // They never take room, so nothing has to be given back between them.
            Messages::Question | Messages::Questions => SMALL_BYTES - PREFIX_BYTES,
        }
    }
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// A message has so many bytes.
    TooLong(usize),
    /// Something follows the only message.
    OneTooMany,
}

/// The place in the body.
#[derive(Debug)]
pub struct Framing {
    messages: Messages,
    prefix: [u8; PREFIX_BYTES],
    /// Bytes of the present message that came, with its prefix.
    seen: usize,
    /// Bytes it has with its prefix, once that is known.
    announced: Option<usize>,
}

impl Framing {
    /// At the beginning.
    pub fn new(messages: Messages) -> Framing {
        Framing { messages, prefix: [0; PREFIX_BYTES], seen: 0, announced: None }
    }

    /// Goes on by a frame.
    pub fn look(&mut self, mut data: &[u8]) -> Result<(), Wrong> {
        while !data.is_empty() {
            if self.is_whole() {
                if self.messages != Messages::Questions {
                    return Err(Wrong::OneTooMany);
                }
                (self.seen, self.announced) = (0, None);
            }
            let missing = self.announced.unwrap_or(PREFIX_BYTES) - self.seen;
            let (now, later) = data.split_at(missing.min(data.len()));
            if self.announced.is_none() {
                self.prefix[self.seen..self.seen + now.len()].copy_from_slice(now);
            }
            self.seen += now.len();
            data = later;
            if self.announced.is_none() && self.seen == PREFIX_BYTES {
                let [_, length @ ..] = self.prefix;
                let length = u32::from_be_bytes(length) as usize;
                if length > self.messages.bytes_max() {
                    return Err(Wrong::TooLong(length));
                }
                self.announced = Some(PREFIX_BYTES + length);
            }
        }
        Ok(())
    }

    /// Bytes of the present message with its prefix, once that is known.
    pub fn announced(&self) -> Option<usize> {
        self.announced
    }

    /// Those of them that came.
    pub fn arrived(&self) -> usize {
        self.seen
    }

    /// True after one of many, before the next.
    pub fn is_between(&self) -> bool {
        self.messages == Messages::Questions && self.is_whole()
    }

    /// True where the present message has come.
    pub fn is_whole(&self) -> bool {
        self.announced == Some(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_known_from_its_fifth_byte_however_the_frames_are_cut() {
        let message = [&[0, 0, 1, 0, 0][..], &[7; 100]].concat();
        for cut in 1..10 {
            let mut framing = Framing::new(Messages::Statement(1 << 20));
            for (index, data) in message.chunks(cut).enumerate() {
                framing.look(data).unwrap();
                let arrived = (index * cut + data.len()).min(message.len());
                assert_eq!(framing.arrived(), arrived, "in frames of {cut}");
                let announced = (arrived >= PREFIX_BYTES).then_some(65_536 + PREFIX_BYTES);
                assert_eq!(framing.announced(), announced, "in frames of {cut}");
                assert!(!framing.is_whole());
            }
        }
    }

    #[test]
    fn what_is_too_long_or_follows_the_message_is_refused() {
        let mut framing = Framing::new(Messages::Statement(1000));
        assert_eq!(framing.look(&[0, 0, 0, 4, 0]), Err(Wrong::TooLong(1024)));
        for messages in [Messages::Statement(1000), Messages::Question] {
            let mut framing = Framing::new(messages);
            assert_eq!(framing.look(&[0, 0, 0, 0, 1]), Ok(()));
            assert_eq!(framing.look(&[7]), Ok(()));
            assert_eq!(framing.look(&[7]), Err(Wrong::OneTooMany));
        }
    }

    #[test]
    fn many_questions_are_each_small_however_the_frames_are_cut() {
        let small = [0, 0, 0, 0, 3, 1, 2, 3];
        let body = [&small[..], &[0, 0, 0, 0, 0], &small, &[0, 0, 0, 0x40, 0]].concat();
        for cut in 1..body.len() {
            let mut framing = Framing::new(Messages::Questions);
            let mut looked = body.chunks(cut).map(|data| framing.look(data)).filter(|looked| *looked != Ok(()));
            assert_eq!(looked.next(), Some(Err(Wrong::TooLong(0x4000))), "in frames of {cut}");
        }
        let mut framing = Framing::new(Messages::Questions);
        assert!(!framing.is_between());
        framing.look(&small).unwrap();
        assert!(framing.is_between());
        framing.look(&[0]).unwrap();
        assert!(!framing.is_between());
    }
}
