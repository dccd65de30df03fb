//! Finds where a JSON string or container ends, 64 bytes at a step.
//!
//! Checks what makes the found end true: strings close and hold no raw control character, brackets match by
//! kind, nesting stays within [`MAX_DEPTH`]. It does not check numbers, literals, commas or escape letters: the
//! engine does, and no such mistake moves an end.

use super::error::ScanError;
use super::masks::{BLOCK, Escapes, block, brackets, first_of_text, prefix_xor, text};

/// Deepest nesting of arrays and objects that is forwarded.
///
/// Well past what any API asks for and what most JSON parsers take (128 to 1,000), and small enough that no
/// engine behind overflows its stack.
pub const MAX_DEPTH: usize = 512;

/// The end of a string.
pub(super) struct StringEnd {
    /// Offset of the closing quote.
    pub(super) quote: usize,
    /// Whether a backslash stands in it.
    pub(super) escaped: bool,
}

/// The end of the string whose opening quote stands just before `start`.
#[inline]
pub(super) fn string_end(body: &[u8], start: usize) -> Result<StringEnd, ScanError> {
    if let Some(quote) = first_of_text(body, start)
        && body[quote] == b'"'
    {
        return Ok(StringEnd {
            quote,
            escaped: false,
        });
    }
    long_string_end(body, start)
}

/// The same for strings that are long, hold escapes, or end with the body.
fn long_string_end(body: &[u8], start: usize) -> Result<StringEnd, ScanError> {
    let mut escapes = Escapes::default();
    let mut escaped = false;
    let mut padded = None;
    let mut at = start;
    while at < body.len() {
        let masks = text(block(body, at, &mut padded));
        let end = masks.quote & !escapes.next(masks.backslash);
        let stop = end | masks.control;
        if stop != 0 {
            let offset = stop.trailing_zeros();
            let place = at + offset as usize;
            if masks.control >> offset & 1 == 1 {
                return Err(ScanError::ControlCharacter { at: place });
            }
            escaped |= masks.backslash & below(offset) != 0;
            return Ok(StringEnd {
                quote: place,
                escaped,
            });
        }
        escaped |= masks.backslash != 0;
        at += BLOCK;
    }
    Err(ScanError::Truncated { at: body.len() })
}

/// The bits below `offset` (less than 64).
fn below(offset: u32) -> u64 {
    (1 << offset) - 1
}

/// The open brackets, one bit each: set for `{`.
struct Nesting {
    kinds: [u64; MAX_DEPTH / 64],
    depth: usize,
    limit: usize,
}

impl Nesting {
    /// `outer`: containers already open around the one to skip.
    fn new(outer: usize) -> Self {
        Self {
            kinds: [0; MAX_DEPTH / 64],
            depth: 0,
            limit: MAX_DEPTH.saturating_sub(outer),
        }
    }

    fn open(&mut self, bracket: u8, at: usize) -> Result<(), ScanError> {
        if self.depth >= self.limit {
            return Err(ScanError::TooDeep {
                at,
                limit: MAX_DEPTH,
            });
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        let kind = u64::from(bracket == b'{');
        self.kinds[word] = self.kinds[word] & !(1 << bit) | kind << bit;
        self.depth += 1;
        Ok(())
    }

    fn close(&mut self, bracket: u8, at: usize) -> Result<(), ScanError> {
        // The walk starts on an open bracket and stops at depth 0, so one is open here.
        self.depth -= 1;
        let object = self.kinds[self.depth / 64] >> (self.depth % 64) & 1 == 1;
        if object != (bracket == b'}') {
            return Err(ScanError::Syntax {
                at,
                expected: if object { "`}`" } else { "`]`" },
            });
        }
        Ok(())
    }
}

/// The offset just after the container whose open bracket stands at `start`, inside `outer` others.
pub(in crate::openai) fn container_end(
    body: &[u8],
    start: usize,
    outer: usize,
) -> Result<usize, ScanError> {
    let mut nesting = Nesting::new(outer);
    let mut escapes = Escapes::default();
    let mut in_string = 0_u64;
    let mut padded = None;
    let mut at = start;
    while at < body.len() {
        let bytes = block(body, at, &mut padded);
        let masks = text(bytes);
        let quotes = masks.quote & !escapes.next(masks.backslash);
        let strings = prefix_xor(quotes) ^ in_string;
        in_string = ((strings as i64) >> 63) as u64;
        let wrong = masks.control & strings | masks.backslash & !strings;
        let found = brackets(bytes);
        let mut left = (found.open | found.close) & !strings;
        while left != 0 {
            let offset = left.trailing_zeros();
            left &= left - 1;
            let place = at + offset as usize;
            if found.open >> offset & 1 == 1 {
                nesting.open(bytes[offset as usize], place)?;
                continue;
            }
            nesting.close(bytes[offset as usize], place)?;
            if nesting.depth == 0 {
                return check(wrong & below(offset), strings, at).map(|()| place + 1);
            }
        }
        check(wrong, strings, at)?;
        at += BLOCK;
    }
    Err(ScanError::Truncated { at: body.len() })
}

/// Refuses the first wrong byte of a block: a control character in a string or a backslash outside one.
fn check(wrong: u64, strings: u64, block: usize) -> Result<(), ScanError> {
    if wrong == 0 {
        return Ok(());
    }
    let offset = wrong.trailing_zeros();
    let at = block + offset as usize;
    if strings >> offset & 1 == 1 {
        return Err(ScanError::ControlCharacter { at });
    }
    Err(ScanError::Syntax {
        at,
        expected: "a value",
    })
}
