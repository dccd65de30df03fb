//! How many tokens the beginnings of prompts have, as engines counted them: what turns bytes held into tokens held.
//!
//! Bytes of text for one token differ from prompt to prompt by half (code, prose, other scripts), and a session's next
//! turn begins with a prompt that its engine has counted. So every answer's count is kept under hashes of its prompt's
//! blocks, laid out evenly between what was known before and its end.
//!
//! A table of fixed size without locks: what falls on the same cell replaces what was there, and then the next shorter
//! beginning answers. Knows nothing of who holds what (`index`), and is only an estimate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::budget::IndexBudget;
use super::chain::Chain;

/// Cells of eight bytes; a turn of a session fills two or three, a new prompt of 100 KB a hundred.
const CELLS: usize = 1 << 14;
/// Of a prompt's blocks every so many get a cell, and the last one.
const STRIDE: usize = 4;
/// A cell holds the tokens in its low bits, the high bits of the block's hash above them.
const TOKEN_BITS: u32 = 24;
const TOKEN_MASK: u64 = (1 << TOKEN_BITS) - 1;
/// A shorter beginning's bytes for a token are its template's more than its text's.
const TELLING_BYTES: u32 = 256;

/// So many tokens in the first so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    bytes: u32,
    tokens: u32,
}

/// Bytes of a table, booked with the budget as long as it is there.
const BYTES: usize = CELLS * size_of::<AtomicU64>();

/// One pool's counts. Memory is taken with the first one.
#[derive(Debug)]
pub(super) struct Counts {
    cells: OnceLock<Box<[AtomicU64]>>,
    budget: Arc<IndexBudget>,
}

/// One prompt's tokens as a function of its bytes: straight lines between what is known.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Ascending; the last is the prompt's end.
    marks: Vec<Mark>,
}

impl Counts {
    /// None yet.
    pub(super) fn new(budget: &Arc<IndexBudget>) -> Self {
        Self {
            cells: OnceLock::new(),
            budget: Arc::clone(budget),
        }
    }

    /// What is known of a prompt. Its end is `counted`, or by the ratio of its known beginning, or else by `ratio`,
    /// bytes for a token.
    pub(super) fn measure(&self, chain: &Chain, counted: Option<u32>, ratio: f64) -> Measure {
        // With room for most, so that a prompt costs one allocation.
        let mut marks: Vec<Mark> = Vec::with_capacity(chain.blocks() / STRIDE + 2);
        // At every block: an earlier turn ended at any of them.
        for blocks in 1..=chain.blocks() {
            let last = marks.last().map_or(0, |mark| mark.tokens);
            if let Some(tokens) = self.find(chain, blocks)
                && tokens >= last
                && counted.is_none_or(|all| tokens <= all)
            {
                let bytes = chain.covered(blocks);
                marks.push(Mark { bytes, tokens });
            }
        }
        let bytes = chain.length();
        let known = marks.last().copied();
        let tokens = counted.unwrap_or_else(|| estimate(known, bytes, ratio));
        marks.push(Mark { bytes, tokens });
        Measure { marks }
    }

    /// An engine counted `tokens` in a prompt.
    pub(super) fn note(&self, chain: &Chain, tokens: u32) {
        let measure = self.measure(chain, Some(tokens), 1.0);
        for blocks in places(chain) {
            if self.find(chain, blocks).is_none() {
                self.set(chain, blocks, measure.tokens(chain.covered(blocks)));
            }
        }
    }

    fn find(&self, chain: &Chain, blocks: usize) -> Option<u32> {
        let hash = hash(chain, blocks);
        let cell = self.cells.get()?[place(hash)].load(Ordering::Relaxed);
        let is_its = cell != 0 && (cell ^ (hash << 1)) & !TOKEN_MASK == 0;
        is_its.then_some((cell & TOKEN_MASK) as u32)
    }

    fn set(&self, chain: &Chain, blocks: usize, tokens: u32) {
        let hash = hash(chain, blocks);
        let cells = self.cells.get_or_init(|| {
            self.budget.book(0, BYTES);
            (0..CELLS).map(|_| AtomicU64::new(0)).collect()
        });
        let cell = ((hash << 1) & !TOKEN_MASK) | u64::from(tokens).min(TOKEN_MASK);
        cells[place(hash)].store(cell, Ordering::Relaxed);
    }
}

impl Drop for Counts {
    fn drop(&mut self) {
        if self.cells.get().is_some() {
            self.budget.book(BYTES, 0);
        }
    }
}

impl Measure {
    /// Tokens of the whole prompt.
    pub(super) fn all(&self) -> u32 {
        self.marks.last().map_or(0, |mark| mark.tokens)
    }

    /// Tokens in its first so many bytes.
    pub(super) fn tokens(&self, bytes: u32) -> u32 {
        let after = self.marks.partition_point(|mark| mark.bytes < bytes);
        let Some(to) = self.marks.get(after) else {
            return self.all();
        };
        let from = match after.checked_sub(1) {
            Some(before) => self.marks[before],
            None => Mark {
                bytes: 0,
                tokens: 0,
            },
        };
        let share = f64::from(bytes - from.bytes) / f64::from(to.bytes - from.bytes).max(1.0);
        from.tokens + (share * f64::from(to.tokens - from.tokens)) as u32
    }
}

/// Tokens of a prompt of so many bytes whose beginning is known, or not.
fn estimate(known: Option<Mark>, bytes: u32, ratio: f64) -> u32 {
    let known = known.unwrap_or(Mark {
        bytes: 0,
        tokens: 0,
    });
    let ratio = if known.bytes >= TELLING_BYTES && known.tokens > 0 {
        f64::from(known.bytes) / f64::from(known.tokens)
    } else {
        ratio
    };
    let rest = (f64::from(bytes - known.bytes) / ratio).ceil() as u32;
    known.tokens.saturating_add(rest)
}

/// Blocks of a chain that get a cell, by how many blocks end there.
fn places(chain: &Chain) -> impl Iterator<Item = usize> {
    let blocks = chain.blocks();
    let last = (!blocks.is_multiple_of(STRIDE)).then_some(blocks);
    (STRIDE..=blocks).step_by(STRIDE).chain(last)
}

/// Of the last of so many blocks; `places` gives none of a chain without any.
fn hash(chain: &Chain, blocks: usize) -> u64 {
    chain.hashes()[blocks - 1]
}

fn place(hash: u64) -> usize {
    hash as usize % CELLS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> Counts {
        Counts::new(&IndexBudget::new(1 << 20))
    }

    #[test]
    fn the_table_is_booked_while_it_is_there() {
        let budget = IndexBudget::new(1 << 20);
        let counts = Counts::new(&budget);
        assert_eq!(budget.used(), 0);
        counts.note(&chain(&"x".repeat(1000)), 500);
        assert_eq!(budget.used(), 128 << 10);
        drop(counts);
        assert_eq!(budget.used(), 0);
    }

    fn chain(text: &str) -> Chain {
        let mut chain = Chain::bytes(0);
        chain.push(text.as_bytes());
        chain.finish()
    }

    #[test]
    fn without_counts_the_ratio_tells() {
        let counts = counts();
        let measure = counts.measure(&chain(&"x".repeat(1000)), None, 4.0);
        assert_eq!([measure.all(), measure.tokens(500)], [250, 125]);
        assert_eq!(counts.measure(&chain(""), None, 4.0).tokens(100), 0);
    }

    #[test]
    fn the_next_turn_begins_with_what_was_counted() {
        let counts = counts();
        let (first, more) = ("x".repeat(1000), "y".repeat(200));
        counts.note(&chain(&first), 500);
        let second = chain(&(first + &more));
        let measure = counts.measure(&second, None, 4.0);
        // 960 bytes are full blocks; the rest is taken to be of the same kind.
        assert_eq!([measure.tokens(960), measure.all()], [480, 600]);
        // A turn of another kind: the first one's count stays, though its last block is no longer the last.
        let measure = counts.measure(&second, Some(1500), 4.0);
        assert_eq!([measure.tokens(960), measure.all()], [480, 1500]);
    }

    #[test]
    fn prompts_of_another_kind_keep_their_own_counts() {
        let counts = counts();
        let (code, prose) = ("c".repeat(1280), "p".repeat(1280));
        counts.note(&chain(&code), 640);
        counts.note(&chain(&prose), 256);
        let all = |text: &str| counts.measure(&chain(text), None, 4.0).all();
        assert_eq!([all(&code), all(&prose)], [640, 256]);
        assert_eq!(all(&"z".repeat(1280)), 320);
    }

    #[test]
    fn a_counted_prompt_ends_at_its_count() {
        let counts = counts();
        let prompt = chain(&"x".repeat(1280));
        counts.note(&prompt, 640);
        let measure = counts.measure(&prompt, Some(100), 4.0);
        assert_eq!([measure.all(), measure.tokens(9999)], [100, 100]);
        assert!(measure.tokens(640) <= 100);
    }
}
