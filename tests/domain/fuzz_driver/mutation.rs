//! Mutations: how an input becomes another that is nearly valid.

/// A small generator (splitmix64): the same inputs everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number below `bound`; 0 where `bound` is 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    fn at(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

/// Numbers that code is wrong about.
const ODD_NUMBERS: [u64; 12] = [
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0xFFFF_FFFF_FFFF_FFFF,
];

/// Most changes to one input: more of them and nothing of what was valid is left.
const CHANGES_MAX: u64 = 6;

/// An input of the pool, changed a few times.
pub(super) fn mutate(random: &mut Random, pool: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut input = pool[random.at(pool.len())].clone();
    for _ in 0..=random.below(CHANGES_MAX) {
        change(random, &mut input, pool, words);
    }
    input
}

fn change(random: &mut Random, input: &mut Vec<u8>, pool: &[Vec<u8>], words: &[&[u8]]) {
    let length = input.len();
    let at = random.at(length);
    let end = at + random.at((length - at).min(64) + 1);
    match random.below(12) {
        _ if length == 0 => input.push(random.next() as u8),
        0 | 1 => input[at] ^= 1 << random.below(8),
        2 => input[at] = random.next() as u8,
        3 => {
            let odd = ODD_NUMBERS[random.at(ODD_NUMBERS.len())].wrapping_sub(random.below(2));
            let width = 1 << random.below(4);
            let bytes = if random.below(2) == 0 { odd.to_le_bytes() } else { odd.to_be_bytes() };
            input.iter_mut().skip(at).zip(bytes).take(width).for_each(|(byte, odd)| *byte = odd);
        }
        4 => input[at] = input[at].wrapping_add(random.below(9) as u8).wrapping_sub(4),
        5 => drop(input.drain(at..end)),
        6 => {
            let copy = input[at..end].to_vec();
            let to = random.at(length + 1);
            input.splice(to..to, copy);
        }
        7 => {
            let other = &pool[random.at(pool.len())];
            let from = random.at(other.len());
            let part = other[from..].iter().take(1 + random.at(64)).copied().collect::<Vec<u8>>();
            input.splice(at..end, part);
        }
        8 => input.truncate(at),
        9 => input.insert(at, random.next() as u8),
        _ if !words.is_empty() => {
            let word = words[random.at(words.len())].to_vec();
            let end = if random.below(2) == 0 { at } else { end };
            input.splice(at..end, word);
        }
        _ => {
            let to = random.at(length);
            input.swap(at, to);
        }
    }
}
