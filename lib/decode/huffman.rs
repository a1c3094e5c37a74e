//! Huffman-coded coefficients of a JPEG (ITU T.81, F.2.2), as libjpeg decodes them. One table lookup of the
//! next bits finds up to two codes with their values; libjpeg finds one code. Blocks outside the window are
//! parsed and not stored. Invalid data is `None`.

/// Bits per lookup. 10 was the fastest of 9 to 12.
const LOOK: u32 = 10;
/// Flag of a table entry: the lookup bits do not have the whole value.
const PART: u32 = 0x80;
/// The zeros of an entry, if all coefficients up to the end of the block are zero.
const END: u32 = 0xff;
/// Bytes that libjpeg may read ahead. It warns about a file that ends within them without a marker.
const AHEAD: usize = 16;

/// Place in the block of each coefficient, in the order of the file.
const NATURAL_ORDER: [u8; 64] = {
    let mut order = [0; 64];
    let (mut i, mut diagonal) = (0, 0);
    while diagonal < 15 {
        let mut step = 0;
        while step <= diagonal {
            let (row, column) = match diagonal % 2 {
                0 => (diagonal - step, step),
                _ => (step, diagonal - step),
            };
            if row < 8 && column < 8 {
                order[i] = (8 * row + column) as u8;
                i += 1;
            }
            step += 1;
        }
        diagonal += 1;
    }
    order
};

/// A Huffman table.
pub struct HuffmanTable {
    /// Number of codes of each length, and the symbols of all codes.
    counts: [u8; 17],
    symbols: [u8; 256],
    /// Per length: the end of its codes, as 16 bits, and the number of the symbol that code 0 would have.
    ends: [u32; 17],
    firsts: [i32; 17],
    /// What the next bits begin with. Low byte: the number of bits to skip. Second byte: the zeros before a
    /// value, or `END`. Upper half: the value. With `PART`: length and symbol of a code whose value needs
    /// more than the lookup bits, or length 0 for a longer code.
    entries: [u32; 1 << LOOK],
}

/// Entries with two coefficients: the second one in the upper half, or 0 if the lookup bits are too few for
/// it. The low byte has the bits of both.
pub type PairEntries = [u64; 1 << LOOK];

impl HuffmanTable {
    pub fn new() -> HuffmanTable {
        HuffmanTable {
            counts: [0; 17],
            symbols: [0; 256],
            ends: [0; 17],
            firsts: [0; 17],
            entries: [PART; 1 << LOOK],
        }
    }

    /// Sets the number of codes of each length, 0 to 16, and the symbols, which libjpeg has checked.
    /// Returns whether the table changed: consecutive images often have the same table.
    pub fn set(&mut self, counts: &[u8; 17], symbols: &[u8; 256]) -> bool {
        if (&self.counts, &self.symbols) == (counts, symbols) {
            return false;
        }
        (self.counts, self.symbols) = (*counts, *symbols);
        self.entries.fill(PART);
        let (mut code, mut number) = (0, 0);
        for length in 1..=16 {
            let count = usize::from(self.counts[length as usize]);
            self.firsts[length as usize] = number as i32 - code as i32;
            for &symbol in &self.symbols[number..number + count] {
                if length <= LOOK {
                    let rest = LOOK - length;
                    let first = (code as usize) << rest;
                    for (bits, entry) in (0..1 << rest).zip(&mut self.entries[first..]) {
                        *entry = HuffmanTable::entry(symbol, length, bits, rest);
                    }
                }
                code += 1;
            }
            number += count;
            self.ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        true
    }

    pub fn pairs(&self) -> PairEntries {
        std::array::from_fn(|bits| {
            let first = self.entries[bits];
            if first & PART != 0 || zeros_of(first) == END {
                return u64::from(first);
            }
            let length = first & 0xff;
            let second = self.entries[bits << length & ((1 << LOOK) - 1)];
            if second & PART != 0 || length + (second & 0xff) > LOOK {
                return u64::from(first);
            }
            u64::from(second) << 32 | u64::from(first + (second & 0xff))
        })
    }

    /// Length and symbol of the code of more than `LOOK` bits that these 16 bits begin with.
    #[cold]
    fn long_code(&self, bits: u32) -> Option<(u32, u8)> {
        let length = (LOOK + 1..=16).find(|&length| bits < self.ends[length as usize])?;
        let number = (bits >> (16 - length)) as i32 + self.firsts[length as usize];
        Some((length, self.symbols[number as usize & 0xff]))
    }

    /// The entry of a code of `length` bits, followed by `rest` more bits.
    fn entry(symbol: u8, length: u32, bits: u32, rest: u32) -> u32 {
        let (zeros, size) = parts(symbol);
        match size {
            0 => zeros << 8 | length,
            1.. if size <= rest => {
                let value = extend(bits >> (rest - size), size);
                (value as u32) << 16 | zeros << 8 | (length + size)
            }
            _ => u32::from(symbol) << 8 | PART | length,
        }
    }
}

fn zeros_of(entry: u32) -> u32 {
    entry >> 8 & 0xff
}

fn value_of(entry: u32) -> i32 {
    entry as i32 >> 16
}

/// The parts of a symbol: zeros before a value, and the number of bits of the value. A value of no bits is
/// 0.
fn parts(symbol: u8) -> (u32, u32) {
    match (u32::from(symbol) / 16, u32::from(symbol) % 16) {
        (0..15, 0) => (END, 0),
        parts => parts,
    }
}

/// A value of `size` bits, 1 to 15 (T.81, F.12).
fn extend(bits: u32, size: u32) -> i32 {
    match bits >> (size - 1) {
        0 => bits as i32 - (1 << size) + 1,
        _ => bits as i32,
    }
}

/// The position of the entropy decoder in the data.
#[derive(Clone, Copy, Default)]
pub struct Bits {
    /// The next byte to load.
    position: usize,
    /// The next bits, highest first. The buffer may hold more than `count` bits.
    buffer: u64,
    count: u32,
    /// How many of the counted bits, at the end, are zeros for missing data.
    padding: u32,
}

impl Bits {
    /// Loads as many bytes as fit: afterwards there are more than 55 bits.
    #[inline(always)]
    fn fill(&mut self, data: &[u8]) {
        let bytes = data.get(self.position..).and_then(<[u8]>::first_chunk);
        if let Some(&bytes) = bytes {
            let bytes = u64::from_be_bytes(bytes);
            // The highest bit of the result is set for each byte of 255, and maybe for the byte above it.
            let marks =
                (!bytes).wrapping_sub(0x0101_0101_0101_0101) & bytes & 0x8080_8080_8080_8080;
            if marks == 0 {
                self.buffer |= bytes >> self.count;
                let loaded = (63 - self.count) / 8;
                self.position += loaded as usize;
                self.count += 8 * loaded;
                return;
            }
        }
        *self = self.filled_bytewise(data);
    }

    #[cold]
    #[inline(never)]
    fn filled_bytewise(mut self, data: &[u8]) -> Bits {
        while self.count < 56 {
            let byte = match data[self.position..] {
                [0xff, 0, ..] => {
                    self.position += 2;
                    0xff
                }
                [0xff, ..] | [] => {
                    self.padding += 8;
                    0
                }
                [byte, ..] => {
                    self.position += 1;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
        self
    }

    /// Skips the number of bits in the low byte, less than 32.
    #[inline(always)]
    fn skip(&mut self, entry: u32) {
        let count = entry & 0xff;
        self.buffer <<= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// The zeros and the value of a `PART` entry.
    #[inline(always)]
    fn read(&mut self, table: &HuffmanTable, entry: u32) -> Option<(u32, i32)> {
        let (length, symbol) = match entry & 0x1f {
            0 => table.long_code((self.buffer >> 48) as u32)?,
            length => (length, (entry >> 8) as u8),
        };
        self.skip(length);
        let (zeros, size) = parts(symbol);
        if size == 0 {
            return Some((zeros, 0));
        }
        let value = extend((self.buffer >> (64 - size)) as u32, size);
        self.skip(size);
        Some((zeros, value))
    }

    fn look(self) -> usize {
        (self.buffer >> (64 - LOOK)) as usize
    }

    /// The difference of a DC coefficient.
    #[inline(always)]
    pub fn dc(&mut self, data: &[u8], table: &HuffmanTable) -> Option<i32> {
        self.fill(data);
        let entry = table.entries[self.look()];
        if entry & PART != 0 {
            let (_, value) = self.read(table, entry)?;
            return Some(value);
        }
        self.skip(entry);
        Some(value_of(entry))
    }

    /// The AC coefficients of a block. `put` gets place and value of each coefficient, and of some zeros.
    #[inline(always)]
    pub fn ac(
        &mut self,
        data: &[u8],
        (table, pairs): (&HuffmanTable, &PairEntries),
        mut put: impl FnMut(usize, i32),
    ) -> Option<()> {
        let mut put = |i: usize, value| put(usize::from(NATURAL_ORDER[i]) & 63, value);
        let mut i = 1;
        while i < 64 {
            self.fill(data);
            // Enough bits for a code of any length with its value, and for two more lookups.
            for any in [true, false, false] {
                let before = *self;
                let pair = pairs[self.look()];
                let (first, second) = (pair as u32, (pair >> 32) as u32);
                let (zeros, value) = if first & PART == 0 {
                    self.skip(first);
                    (zeros_of(first), value_of(first))
                } else if any {
                    self.read(table, first)?
                } else {
                    break;
                };
                i += zeros as usize;
                if i >= 64 {
                    return (zeros == END).then_some(());
                }
                put(i, value);
                i += 1;
                if i == 64 {
                    // The second coefficient belongs to the next block.
                    if second != 0 {
                        *self = before;
                        self.skip(first - (second & 0xff));
                    }
                    break;
                }
                i += zeros_of(second) as usize;
                if i >= 64 {
                    return (zeros_of(second) == END).then_some(());
                }
                put(i, value_of(second));
                i += usize::from(second != 0);
                if i == 64 {
                    break;
                }
            }
        }
        Some(())
    }

    /// Whether all bits so far were in the data, and the data does not end here.
    pub fn all_read(self, data: &[u8]) -> bool {
        let marker = |pair: &[u8]| pair[0] == 0xff && pair[1] != 0;
        self.padding <= self.count
            && (self.position + AHEAD <= data.len() || data[self.position..].windows(2).any(marker))
    }

    /// The position after a marker, which must come next, after the rest of a byte.
    pub fn after_marker(self, data: &[u8], marker: u8) -> Option<Bits> {
        let unread = self.count.checked_sub(self.padding)?;
        let next = data.get(self.position..self.position + 2)?;
        (unread < 8 && next == [0xff, marker])
            .then_some(Bits { position: self.position + 2, ..Bits::default() })
    }
}
