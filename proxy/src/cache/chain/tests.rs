use proptest::prelude::*;

use super::*;

fn bytes(seed: u64, text: &[u8]) -> Chain {
    let mut chain = Chain::bytes(seed);
    chain.push(text);
    chain.finish()
}

fn shared(left: &Chain, right: &Chain) -> usize {
    let pairs = left.hashes().iter().zip(right.hashes());
    pairs.take_while(|(left, right)| left == right).count()
}

#[test]
fn half_a_mebibyte_is_some_five_hundred_blocks() {
    let chain = bytes(1, &vec![b'x'; 512 << 10]);
    assert_eq!(chain.blocks(), 512);
    assert_eq!(chain.covered(512), 512 << 10);
    assert_eq!(chain.length(), 512 << 10);
}

#[test]
fn byte_boundaries_follow_from_the_block_sizes() {
    let mut position = 0;
    for index in 0..3000 {
        assert_eq!(u64::from(Layout::Bytes.covered(index)), position);
        let block = byte_block(position);
        assert!(block.is_power_of_two() && (64..=4096).contains(&block));
        assert!(position < 4096 || u64::from(block) * 64 <= position);
        position += u64::from(block);
    }
}

#[test]
fn only_full_blocks_count() {
    let chain = Chain::of_tokens(1, &[7; 35], 16);
    assert_eq!(
        (chain.blocks(), chain.covered(9), chain.length()),
        (2, 32, 35)
    );
    assert_eq!(bytes(1, &[b'x'; 63]).blocks(), 0);
    assert_eq!(Chain::default().blocks(), 0);
    assert_eq!(Chain::of_tokens(1, &[7; 35], 0).blocks(), 0);
}

#[test]
fn block_size_seed_and_layout_are_in_every_hash() {
    let tokens = [7; 64];
    let one = Chain::of_tokens(1, &tokens, 16);
    assert_eq!(shared(&one, &Chain::of_tokens(1, &tokens, 32)), 0);
    assert_eq!(shared(&one, &Chain::of_tokens(2, &tokens, 16)), 0);
    let text: Vec<u8> = tokens
        .iter()
        .flat_map(|id: &u32| id.to_le_bytes())
        .collect();
    assert_eq!(shared(&one, &bytes(1, &text)), 0);
}

#[test]
fn an_extra_changes_its_block_and_all_after() {
    let tokens = [7; 64];
    let plain = Chain::of_tokens(1, &tokens, 16);
    let salted = |at: usize| {
        let mut extra = vec![0; at + 1];
        extra[at] = extra_digest(&["salt"]);
        Chain::of_tokens_with(1, &tokens, 16, &extra)
    };
    assert_eq!(shared(&plain, &salted(0)), 0);
    assert_eq!(shared(&plain, &salted(2)), 2);
    assert_eq!(shared(&plain, &salted(9)), 4);
}

#[test]
fn seeds_tell_parts_apart() {
    assert_ne!(seed(&["ab", "c"]), seed(&["a", "bc"]));
    assert_ne!(seed(&["a", ""]), seed(&["a"]));
    assert_ne!(seed(&[]), seed(&[""]));
    assert_ne!(token_seed(None), token_seed(Some("")));
}

#[test]
fn a_digest_counts_where_it_stands_and_is_no_text() {
    let chain = |parts: &[(&[u8], u64)]| {
        let mut chain = Chain::bytes(1);
        for (text, digest) in parts {
            chain.push(text);
            chain.push_digest(*digest);
        }
        chain.push(&[b'y'; 256]);
        chain.finish()
    };
    let here = chain(&[(&[b'x'; 100], 5)]);
    assert_eq!(shared(&here, &chain(&[(&[b'x'; 100], 6)])), 1);
    let before = chain(&[(&[b'x'; 99], 5), (b"x", 5)]);
    assert_eq!(shared(&here, &before), 1);
    let mut text = vec![b'x'; 100];
    text.extend(5_u64.to_le_bytes());
    text.extend([b'y'; 256]);
    assert_eq!(shared(&here, &bytes(1, &text)), 1);
}

#[test]
fn an_opaque_part_has_a_length() {
    let mut chain = Chain::bytes(1);
    chain.push_opaque(5, 10_000);
    let mut other = Chain::bytes(1);
    other.push_opaque(6, 10_000);
    let (chain, other) = (chain.finish(), other.finish());
    assert_eq!(chain.length(), 10_000);
    assert_eq!(shared(&chain, &other), 0);
}

proptest! {
    #[test]
    fn cuts_between_pushes_do_not_matter(text in prop::collection::vec(any::<u8>(), 0..30_000), cut in 0..9000_usize) {
        let whole = bytes(3, &text);
        let mut chain = Chain::bytes(3);
        for part in text.chunks(cut + 1) {
            chain.push(part);
        }
        prop_assert_eq!(chain.finish(), whole);
    }

    #[test]
    fn two_texts_share_the_blocks_before_their_first_difference(length in 1..40_000_usize, at in 0..40_000_usize) {
        let left = vec![b'a'; length];
        let mut right = left.clone();
        right[at % length] = b'b';
        let (left, right) = (bytes(1, &left), bytes(1, &right));
        let blocks = shared(&left, &right);
        prop_assert!(left.covered(blocks) as usize <= at % length);
        prop_assert!(blocks == left.blocks() || left.covered(blocks + 1) as usize > at % length);
    }
}
