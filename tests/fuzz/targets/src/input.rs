//! How a target takes its input apart.

/// Reads choices from the front of the input. When it is used up every choice is zero.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// All of the input.
    pub fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        u32::from(self.byte()) % limit.max(1)
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u32) as usize]
    }

    /// Up to so many bytes.
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A piece of a list: its length in one byte, or in three when that byte is 255.
    pub fn piece(&mut self) -> &'a [u8] {
        let mut length = usize::from(self.byte());
        if length == 255 {
            length = usize::from(u16::from_le_bytes([self.byte(), self.byte()]));
        }
        self.take(length)
    }

    /// Where the rest is cut.
    pub fn cuts(&mut self) -> Cuts {
        Cuts::of(self.byte())
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Puts a piece into an input, as [`Input::piece`] reads it.
pub fn push_piece(out: &mut Vec<u8>, piece: &[u8]) {
    match u8::try_from(piece.len()) {
        Ok(length) if length < 255 => out.push(length),
        _ => {
            out.push(255);
            let length = u16::try_from(piece.len()).expect("samples are small");
            out.extend_from_slice(&length.to_le_bytes());
        }
    }
    out.extend_from_slice(piece);
}

/// Sizes of pieces: none, all of one size, or a mixture.
#[derive(Clone, Debug)]
pub struct Cuts {
    most: usize,
    random: u32,
}

impl Cuts {
    /// One piece.
    pub const WHOLE: Self = Self { most: usize::MAX, random: 0 };

    /// Cuts named by a byte.
    pub fn of(seed: u8) -> Self {
        match seed {
            0 => Self::WHOLE,
            1..128 => Self { most: usize::from(seed).pow(2).div_ceil(16), random: 0 },
            _ => Self { most: usize::from(seed - 127), random: u32::from(seed) << 8 | 1 },
        }
    }

    /// The length of the next piece of `length` bytes.
    pub fn next(&mut self, length: usize) -> usize {
        let mut size = self.most;
        if self.random != 0 {
            // xorshift32
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            size = self.random as usize % self.most + 1;
        }
        size.clamp(1, length.max(1)).min(length)
    }

    /// The pieces of `bytes`.
    pub fn pieces<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut cuts = self.clone();
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let (piece, after) = rest.split_at(cuts.next(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// How often a byte occurs.
pub(crate) fn count(bytes: &[u8], byte: u8) -> usize {
    bytes.split(|other| *other == byte).count() - 1
}
