//! A hash that is the same in every process and release, so that all gateways choose alike.
//!
//! Not for hash tables: it has no secret, and keys that collide can be made.

/// 64-bit FNV-1a, then mixed (FNV alone leaves the high bits of short keys alike).
pub(super) fn of(bytes: &[u8]) -> u64 {
    let folded = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(folded)
}

/// The finaliser of SplitMix64: every input bit reaches every output bit.
pub(super) fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// To a number above 0 and below 1, from the upper 52 bits.
pub(super) fn unit(hash: u64) -> f64 {
    const STEPS: f64 = (1_u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) / STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        // Computed apart from this code, from the definitions of FNV-1a and SplitMix64.
        assert_eq!(of(b""), 0xf52a_15e9_a9b5_e89b);
        assert_eq!(of(b"user-1"), 0xc499_b5f8_a721_df58);
    }

    #[test]
    fn the_unit_interval_excludes_both_ends() {
        assert!(unit(0) > 0.0);
        assert!(unit(u64::MAX) < 1.0);
    }
}
