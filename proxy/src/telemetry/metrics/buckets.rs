//! Bucket bounds, in microseconds or tokens. `gen_ai_*` bounds are those the conventions ask for.

use super::histogram::Buckets;

const MICROS_PER_SECOND: f64 = 1e6;

/// Whole requests and first tokens: 1 ms to 10 minutes.
pub(super) static LATENCY: Buckets = Buckets {
    bounds: &[
        1_000,
        2_500,
        5_000,
        10_000,
        25_000,
        50_000,
        100_000,
        250_000,
        500_000,
        1_000_000,
        2_500_000,
        5_000_000,
        10_000_000,
        20_000_000,
        40_000_000,
        80_000_000,
        150_000_000,
        300_000_000,
        600_000_000,
    ],
    units: MICROS_PER_SECOND,
};

/// From a change in the cluster to its being in force: 1 ms to 1 minute.
pub(super) static PUSH_LAG: Buckets = Buckets {
    bounds: &[
        1_000, 2_500, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
        2_000_000, 5_000_000, 15_000_000, 60_000_000,
    ],
    units: MICROS_PER_SECOND,
};

/// Pauses between chunks: 0.1 ms to 10 s.
pub(super) static INTER_TOKEN: Buckets = Buckets {
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 15_000, 20_000, 30_000, 50_000, 75_000,
        100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000,
    ],
    units: MICROS_PER_SECOND,
};

/// `gen_ai.server.request.duration`.
pub(super) static GEN_AI_DURATION: Buckets = Buckets {
    bounds: &[
        10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000, 5_120_000,
        10_240_000, 20_480_000, 40_960_000, 81_920_000,
    ],
    units: MICROS_PER_SECOND,
};

/// `gen_ai.server.time_to_first_token`.
pub(super) static GEN_AI_FIRST_TOKEN: Buckets = Buckets {
    bounds: &[
        1_000, 5_000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 250_000, 500_000, 750_000,
        1_000_000, 2_500_000, 5_000_000, 7_500_000, 10_000_000,
    ],
    units: MICROS_PER_SECOND,
};

/// `gen_ai.server.time_per_output_token`.
pub(super) static GEN_AI_OUTPUT_TOKEN: Buckets = Buckets {
    bounds: &[
        10_000, 25_000, 50_000, 75_000, 100_000, 150_000, 200_000, 300_000, 400_000, 500_000,
        750_000, 1_000_000, 2_500_000,
    ],
    units: MICROS_PER_SECOND,
};

/// `gen_ai.client.token.usage`.
pub(super) static GEN_AI_TOKENS: Buckets = Buckets {
    bounds: &[
        1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216,
        67_108_864,
    ],
    units: 1.0,
};

/// Kthena's whole requests.
pub(super) static KTHENA_REQUEST: Buckets = Buckets {
    bounds: &[
        5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
        10_000_000, 30_000_000, 60_000_000,
    ],
    units: MICROS_PER_SECOND,
};

/// Kthena's scheduler plug-ins.
pub(super) static KTHENA_PLUGIN: Buckets = Buckets {
    bounds: &[1_000, 5_000, 10_000, 50_000, 100_000, 500_000],
    units: MICROS_PER_SECOND,
};

/// Kthena's tokenising.
pub(super) static KTHENA_TOKENIZE: Buckets = Buckets {
    bounds: &[
        500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000,
    ],
    units: MICROS_PER_SECOND,
};

/// Kthena's shares of prompts, in millionths.
pub(super) static KTHENA_RATIO: Buckets = Buckets {
    bounds: &[
        0, 100_000, 250_000, 500_000, 750_000, 900_000, 950_000, 990_000, 1_000_000,
    ],
    units: 1e6,
};
