//! Bit masks over blocks of 64 bytes: where the quotes, backslashes, control characters and brackets are.
//!
//! Bit *i* of a mask stands for byte *i* of the block. Vector compares come from `wide`, which uses what the
//! build target has (SSE2, AVX2, NEON) and plain integers elsewhere. Knows nothing of JSON's grammar.

use wide::u8x16;

/// Bytes in a block.
pub(super) const BLOCK: usize = 64;

/// The bits at odd places.
const ODD: u64 = 0xAAAA_AAAA_AAAA_AAAA;

/// Masks that finding the end of a string takes.
pub(super) struct Text {
    /// `"`.
    pub(super) quote: u64,
    /// `\`.
    pub(super) backslash: u64,
    /// Bytes below 0x20, not allowed raw in a string.
    pub(super) control: u64,
}

/// Masks of the bytes that open and close a container.
pub(super) struct Brackets {
    /// `{` and `[`.
    pub(super) open: u64,
    /// `}` and `]`.
    pub(super) close: u64,
}

/// The block that starts at `at`; past the end of the body a copy padded by spaces, kept in `padded`.
#[inline(always)]
pub(super) fn block<'a>(
    body: &'a [u8],
    at: usize,
    padded: &'a mut Option<[u8; BLOCK]>,
) -> &'a [u8; BLOCK] {
    let rest = &body[at..];
    if let Some(whole) = rest.first_chunk::<BLOCK>() {
        return whole;
    }
    let padded = padded.insert([b' '; BLOCK]);
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// The first of a quote, a backslash or a control character in the next 16 bytes, if there are 16.
///
/// Most strings of a body are keys and names: this finds their end at a fourth of a block's cost.
#[inline(always)]
pub(super) fn first_of_text(body: &[u8], at: usize) -> Option<usize> {
    let lane = u8x16::from(*body[at..].first_chunk::<16>()?);
    let found = lane.simd_eq(u8x16::splat(b'"'))
        | lane.simd_eq(u8x16::splat(b'\\'))
        | lane.min(u8x16::splat(0x1F)).simd_eq(lane);
    let mask = found.to_bitmask() & 0xFFFF;
    (mask != 0).then(|| at + mask.trailing_zeros() as usize)
}

#[inline(always)]
fn lanes(block: &[u8; BLOCK]) -> [u8x16; 4] {
    let (chunks, _) = block.as_chunks::<16>();
    std::array::from_fn(|lane| u8x16::from(chunks[lane]))
}

#[inline(always)]
fn mask(lanes: &[u8x16; 4], test: impl Fn(u8x16) -> u8x16) -> u64 {
    let mut mask = 0;
    for (at, lane) in lanes.iter().enumerate() {
        mask |= u64::from(test(*lane).to_bitmask() & 0xFFFF) << (at * 16);
    }
    mask
}

/// Quotes, backslashes and control characters of a block.
#[inline(always)]
pub(super) fn text(block: &[u8; BLOCK]) -> Text {
    let lanes = lanes(block);
    Text {
        quote: mask(&lanes, |lane| lane.simd_eq(u8x16::splat(b'"'))),
        backslash: mask(&lanes, |lane| lane.simd_eq(u8x16::splat(b'\\'))),
        control: mask(&lanes, |lane| lane.min(u8x16::splat(0x1F)).simd_eq(lane)),
    }
}

/// Brackets of a block, those inside strings too.
#[inline(always)]
pub(super) fn brackets(block: &[u8; BLOCK]) -> Brackets {
    let lanes = lanes(block);
    // `[` and `{` differ in bit 5 only, as do `]` and `}`.
    let bit = u8x16::splat(0x20);
    Brackets {
        open: mask(&lanes, |lane| (lane | bit).simd_eq(u8x16::splat(b'{'))),
        close: mask(&lanes, |lane| (lane | bit).simd_eq(u8x16::splat(b'}'))),
    }
}

/// Whether the first byte of the next block is escaped by a backslash that ended the last one.
#[derive(Default)]
pub(super) struct Escapes {
    carry: u64,
}

impl Escapes {
    /// The bytes of the next block that a backslash escapes.
    ///
    /// In a run of backslashes every second one is itself escaped. The subtraction carries through each run and
    /// so tells, for all runs at once, whether it started at an odd or an even place (the method of simdjson's
    /// escape scanner).
    #[inline(always)]
    pub(super) fn next(&mut self, backslash: u64) -> u64 {
        if backslash == 0 {
            return std::mem::take(&mut self.carry);
        }
        let escaping = backslash & !self.carry;
        let runs = ((escaping << 1) | ODD).wrapping_sub(escaping) ^ ODD;
        let escaped = runs ^ (backslash | self.carry);
        self.carry = (runs & backslash) >> 63;
        escaped
    }
}

/// For each bit, whether an odd number of bits up to and with it are set: from quotes, the insides of strings
/// (the opening quote in, the closing one out).
#[inline(always)]
pub(super) fn prefix_xor(mut mask: u64) -> u64 {
    for shift in [1, 2, 4, 8, 16, 32] {
        mask ^= mask << shift;
    }
    mask
}
