//! Mutations of inputs, by a generator that is the same on every machine and for ever.

/// What protocols and formats are sensitive to.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b".",
    b"\r\n.\r\n",
    b"{3}\r\n",
    b"{3+}\r\n",
    b"{99999999999999999999}\r\n",
    b"(",
    b")",
    b"\"",
    b"\\",
    b"<",
    b">",
    b"@",
    b",",
    b":",
    b";",
    b" ",
    b"\t",
    b"=?utf-8?q?=41?=",
    b"--",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80",
    b"\xc3\xa4",
    b"\xed\xa0\x80",
    b"%s",
    b"*",
    b"&",
    b"&-",
    b"&AGE-",
    b"18446744073709551615",
    b"4294967295",
    b"0",
    b"-1",
];

/// splitmix64 and what is made of it.
pub(crate) struct Mutator(u64);

impl Mutator {
    /// Seeded by a name.
    pub(crate) fn new(name: &str) -> Self {
        Self(name.bytes().fold(14_695_981_039_346_656_037, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(1_099_511_628_211)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// One of the inputs with one to eight changes.
    pub(crate) fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..1 << self.below(4) {
            let at = self.below(input.len() + 1);
            let end = (at + 1 + self.below(16)).min(input.len());
            match self.below(9) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = self.next() as u8,
                2 => input.insert(at, self.next() as u8),
                3 => drop(input.drain(at.min(end)..end)),
                4 => {
                    let piece = input[at.min(end)..end].to_vec();
                    let to = self.below(input.len() + 1);
                    input.splice(to..to, piece);
                }
                5 | 6 => {
                    let word = WORDS[self.below(WORDS.len())];
                    input.splice(at..at, word.iter().copied());
                }
                7 => input.truncate(at),
                _ => {
                    let other = &inputs[self.below(inputs.len())];
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
            // The first bytes say how the rest is used; they have to vary more than chance would have it.
            if self.below(4) == 0 && !input.is_empty() {
                let first = self.below(input.len().min(3));
                input[first] = self.next() as u8;
            }
        }
        input.truncate(8192);
        input
    }
}
