//! How far each of 64 holders holds a chain, found by looking at few of its blocks.
//!
//! Assumes *prefix closure*: who holds a block holds all before it. Then the set of holders only shrinks along the
//! chain, and as long as it is the same 32 blocks further on nothing changed between; where it shrank, the place is
//! found by bisection. So a chain of n blocks whose holders end at k places costs n/32 + 6k looks.
//!
//! Predictions are closed by construction (a chain's tail leaves before its head). Engines' own caches nearly are:
//! they evict from the tail as well, but a block may be missing in the midst for a while. Such a hole is seen only
//! if a look falls on it; the worst case is that a holder whose block j is missing is credited with what it holds
//! beyond, although it has to compute from j on. It costs speed of one request, never correctness.

/// Blocks between two looks while nothing changes.
const STRIDE: usize = 32;

/// Writes to `depths[bit]` how many blocks, from the start, the holder of that bit has. `mask(i)` tells who holds
/// block `i`; `depths` has 64 places and is zero.
pub(super) fn depths(blocks: usize, mask: impl Fn(usize) -> u64, depths: &mut [u32]) {
    if blocks == 0 {
        return;
    }
    let mut holders = mask(0);
    let mut seen = 0;
    while holders != 0 && seen + 1 < blocks {
        let next = (seen + STRIDE).min(blocks - 1);
        let left = holders & mask(next);
        if left == holders {
            seen = next;
            continue;
        }
        let (at, left) = first_change(seen, next, left, holders, &mask);
        note(holders & !left, at, depths);
        (holders, seen) = (left, at);
    }
    note(holders, blocks, depths);
}

/// The first block after `same` whose holders are not all of `holders`, and who of them is left there. `end` is known
/// to differ, with `left`.
fn first_change(
    mut same: usize,
    mut end: usize,
    mut left: u64,
    holders: u64,
    mask: impl Fn(usize) -> u64,
) -> (usize, u64) {
    while same + 1 < end {
        let middle = usize::midpoint(same, end);
        let there = holders & mask(middle);
        if there == holders {
            same = middle;
        } else {
            (end, left) = (middle, there);
        }
    }
    (end, left)
}

fn note(mut bits: u64, depth: usize, depths: &mut [u32]) {
    while bits != 0 {
        depths[bits.trailing_zeros() as usize] = u32::try_from(depth).unwrap_or(u32::MAX);
        bits &= bits - 1;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_every_depth_of_closed_holders(blocks in 0..400_usize, held in prop::collection::vec(0..500_u32, 64)) {
            let held: Vec<_> = held.into_iter().map(|depth| depth.min(blocks as u32)).collect();
            let mask = |block: usize| {
                let holds = held.iter().enumerate().filter(|(_, depth)| **depth as usize > block);
                holds.fold(0, |mask, (bit, _)| mask | 1 << bit)
            };
            let mut found = vec![0; 64];
            depths(blocks, mask, &mut found);
            prop_assert_eq!(found, held);
        }
    }

    #[test]
    fn looks_at_few_blocks() {
        let looks = Cell::new(0);
        let mut found = [0; 64];
        let mask = |block: usize| {
            looks.set(looks.get() + 1);
            if block < 5000 { u64::MAX } else { 1 }
        };
        depths(8192, mask, &mut found);
        assert_eq!((found[0], found[1]), (8192, 5000));
        assert!(looks.get() < 8192 / 32 + 10, "{} looks", looks.get());
    }
}
