//! Mixing: block hashes chained over tokens, and the text an engine "generates".
//!
//! Not a protocol's hash: real engines chain SHA-256 over msgpack. Here only equality matters, and speed.

const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
const SECOND: u64 = 0xd1b5_4a32_d192_ed03;

/// Mixes two words into one.
pub fn mix(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ FIRST) * u128::from(right ^ SECOND);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hash of a run of tokens that follows a run hashed to `parent`.
pub fn chain(parent: u64, tokens: impl IntoIterator<Item = u32>) -> u64 {
    tokens.into_iter().fold(mix(parent, FIRST), |hash, token| {
        mix(hash, u64::from(token) + 1)
    })
}

/// Hash of bytes.
pub fn bytes(seed: u64, data: &[u8]) -> u64 {
    data.chunks(8)
        .fold(mix(seed, data.len() as u64), |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(hash, u64::from_le_bytes(word))
        })
}

/// The text of the output token at `index` of a sequence with that seed: three letters and a space.
pub fn output_text(seed: u64, index: u32) -> [u8; 4] {
    let word = mix(seed, u64::from(index));
    let letter = |shift: u32| b'a' + ((word >> shift) % 26) as u8;
    [letter(0), letter(20), letter(40), b' ']
}

/// The output token at `index` of a sequence with that seed.
pub fn output_token(seed: u64, index: u32) -> u32 {
    u32::from_le_bytes(output_text(seed, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_depends_on_parent_order_and_length() {
        let hash = chain(1, [1, 2, 3]);
        assert_eq!(hash, chain(1, [1, 2, 3]));
        assert_ne!(hash, chain(2, [1, 2, 3]));
        assert_ne!(hash, chain(1, [2, 1, 3]));
        assert_ne!(hash, chain(1, [1, 2, 3, 0]));
    }

    #[test]
    fn output_is_printable_and_follows_the_seed() {
        assert_eq!(output_text(7, 3), output_text(7, 3));
        assert_ne!(output_text(7, 3), output_text(8, 3));
        assert!(output_text(7, 3)[..3].iter().all(u8::is_ascii_lowercase));
        assert_eq!(output_text(7, 3)[3], b' ');
    }
}
