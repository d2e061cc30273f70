//! What clients keep in the group: registers, a bank, and sessions that tell a retry from a second wish.
//!
//! Every object is one number, so a history is judged by the same few lines that run on the nodes. Whatever changes an object
//! says what it was before, and so is a read as well.

use std::collections::BTreeMap;

const REGISTERS: usize = 4;

/// The object that is no register.
pub(super) const BANK: usize = REGISTERS;

pub(super) const OBJECTS: usize = REGISTERS + 1;

const ACCOUNTS: u32 = 4;

/// Bits of the bank's number that one account has.
const ACCOUNT_BITS: u32 = 15;

/// What each account begins with: little enough that transfers are refused for want of it.
const DEPOSIT: u64 = 100;

/// What a client wants of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Read,
    Put {
        value: u64,
    },
    /// Put where it is what is expected.
    Swap {
        expected: u64,
        value: u64,
    },
    /// Nothing where the account has less.
    Transfer {
        from: u8,
        to: u8,
        amount: u64,
    },
}

/// What an object is to begin with.
pub(super) fn blank(object: usize) -> u64 {
    if object == BANK { (0..ACCOUNTS).map(|account| DEPOSIT << (account * ACCOUNT_BITS)).sum() } else { 0 }
}

/// What becomes of an object, and the answer.
pub(super) fn grant(object: u64, wish: Wish) -> (u64, u64) {
    let next = match wish {
        Wish::Put { value } => value,
        Wish::Swap { expected, value } if expected == object => value,
        Wish::Transfer { from, to, amount } => {
            let shift = |account: u8| u32::from(account) * ACCOUNT_BITS;
            let has = (object >> shift(from)) & ((1 << ACCOUNT_BITS) - 1);
            if has >= amount { object - (amount << shift(from)) + (amount << shift(to)) } else { object }
        }
        Wish::Read | Wish::Swap { .. } => object,
    };
    (next, object)
}

/// A write as the log has it: which of a session's wishes, and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) session: u32,
    pub(super) sequence: u32,
    pub(super) object: u8,
    pub(super) wish: Wish,
}

/// Bytes of an encoded command.
const COMMAND_BYTES: usize = 26;

impl Command {
    /// The bytes, with so many more behind them.
    pub(super) fn encode(&self, padding: usize) -> Vec<u8> {
        let (kind, a, b) = match self.wish {
            Wish::Put { value } => (0, value, 0),
            Wish::Swap { expected, value } => (1, expected, value),
            Wish::Transfer { from, to, amount } => (2, u64::from(from) | (u64::from(to) << 8), amount),
            Wish::Read => panic!("a read is not written"),
        };
        let mut bytes = Vec::with_capacity(COMMAND_BYTES + padding);
        bytes.extend(self.session.to_le_bytes());
        bytes.extend(self.sequence.to_le_bytes());
        bytes.extend([self.object, kind]);
        bytes.extend(a.to_le_bytes());
        bytes.extend(b.to_le_bytes());
        bytes.resize(COMMAND_BYTES + padding, 0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Command {
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let whole = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let (a, b) = (whole(10), whole(18));
        let wish = match bytes[9] {
            0 => Wish::Put { value: a },
            1 => Wish::Swap { expected: a, value: b },
            2 => Wish::Transfer { from: a as u8, to: (a >> 8) as u8, amount: b },
            kind => panic!("a command of kind {kind}"),
        };
        Command { session: half(0), sequence: half(4), object: bytes[8], wish }
    }
}

/// All objects, and what each session was told last.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ledger {
    pub(super) objects: [u64; OBJECTS],
    sessions: BTreeMap<u32, (u32, u64)>,
}

impl Default for Ledger {
    fn default() -> Ledger {
        Ledger { objects: std::array::from_fn(blank), sessions: BTreeMap::new() }
    }
}

impl Ledger {
    /// Does what is wanted, once; the answer, or none where the session has gone on meanwhile.
    pub(super) fn take(&mut self, command: &Command) -> Option<u64> {
        let Command { session, sequence, object, wish } = *command;
        match self.sessions.get(&session) {
            Some((last, answer)) if *last == sequence => return Some(*answer),
            Some((last, _)) if *last > sequence => return None,
            Some(_) | None => {}
        }
        let object = &mut self.objects[object as usize];
        let (next, answer) = grant(*object, wish);
        *object = next;
        self.sessions.insert(session, (sequence, answer));
        Some(answer)
    }
}
