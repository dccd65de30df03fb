//! Which metric families tell what, per engine: old and new names.
//!
//! Sources: the engines' own metric registries (vLLM `v1/metrics/loggers.py`, SGLang `metrics/collector.py`, TGI
//! `router`, Triton's TensorRT-LLM backend, `trtllm-serve`, llama.cpp's server, MindIE's service monitor).

use sluice_crds::networking::InferenceEngine;

use Signal::*;

/// What a family tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Requests running.
    Running,
    /// Requests waiting.
    Waiting,
    /// Share of the KV cache in use, 0 to 1.
    KvUsage,
    /// Tokens that the KV cache holds.
    KvTokens,
    /// KV cache blocks.
    Blocks,
    /// Tokens of a block.
    BlockSize,
    /// Prompt tokens found in the cache, ever.
    PrefixHits,
    /// Prompt tokens looked up, ever.
    PrefixQueries,
    /// Share of prompt tokens found, 0 to 1.
    PrefixHitRate,
    /// Adapters loaded.
    LoraUsed,
    /// Adapters that there is room for.
    LoraMax,
    /// Names of adapters in labels; the value is a time stamp.
    LoraInfo,
    /// Sizes in labels; the value says nothing.
    CacheConfig,
}

/// How the values of several ranks become one. Repeats within a rank (tensor parallel) are one value, the largest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// Each rank has its own.
    Sum,
    /// The fullest rank counts, or all are equal.
    Max,
}

/// One family of one engine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Family {
    /// As exported.
    pub(super) name: &'static str,
    /// What it tells. Of several families for one signal, the first one present counts.
    pub(super) signal: Signal,
    /// Only series with this label.
    pub(super) only: Option<(&'static str, &'static str)>,
}

impl Signal {
    /// How ranks are put together.
    pub(super) fn over(self) -> Over {
        match self {
            Running | Waiting | KvTokens | Blocks | PrefixHits | PrefixQueries => Over::Sum,
            KvUsage | BlockSize | PrefixHitRate | LoraUsed | LoraMax | LoraInfo | CacheConfig => {
                Over::Max
            }
        }
    }

    /// The values that make sense lie between 0 and 1.
    pub(super) fn is_share(self) -> bool {
        matches!(self, KvUsage | PrefixHitRate)
    }
}

const fn family(name: &'static str, signal: Signal) -> Family {
    Family {
        name,
        signal,
        only: None,
    }
}

const fn only(
    name: &'static str,
    label: &'static str,
    value: &'static str,
    signal: Signal,
) -> Family {
    Family {
        name,
        signal,
        only: Some((label, value)),
    }
}

const VLLM: &[Family] = &[
    family("vllm:num_requests_running", Running),
    family("vllm:num_requests_waiting", Waiting),
    family("vllm:kv_cache_usage_perc", KvUsage),
    family("vllm:gpu_cache_usage_perc", KvUsage),
    family("vllm:prefix_cache_hits_total", PrefixHits),
    family("vllm:prefix_cache_hits", PrefixHits),
    family("vllm:gpu_prefix_cache_hits_total", PrefixHits),
    family("vllm:gpu_prefix_cache_hits", PrefixHits),
    family("vllm:prefix_cache_queries_total", PrefixQueries),
    family("vllm:prefix_cache_queries", PrefixQueries),
    family("vllm:gpu_prefix_cache_queries_total", PrefixQueries),
    family("vllm:gpu_prefix_cache_queries", PrefixQueries),
    family("vllm:gpu_prefix_cache_hit_rate", PrefixHitRate),
    family("vllm:lora_requests_info", LoraInfo),
    family("vllm:cache_config_info", CacheConfig),
];

const SGLANG: &[Family] = &[
    family("sglang:num_running_reqs", Running),
    family("sglang:num_queue_reqs", Waiting),
    family("sglang:token_usage", KvUsage),
    family("sglang:max_total_num_tokens", KvTokens),
    family("sglang:page_size", BlockSize),
    family("sglang:cache_hit_rate", PrefixHitRate),
    family("sglang:cached_tokens_total", PrefixHits),
    family("sglang:prompt_tokens_total", PrefixQueries),
    family("sglang:lora_pool_slots_used", LoraUsed),
    family("sglang:lora_pool_slots_total", LoraMax),
    family("sglang:cache_config_info", CacheConfig),
];

const TGI: &[Family] = &[
    family("tgi_batch_current_size", Running),
    family("tgi_queue_size", Waiting),
];

const TRITON_REQUESTS: &str = "nv_trt_llm_request_metrics";
const TRITON_BLOCKS: &str = "nv_trt_llm_kv_cache_block_metrics";
const TRITON_BLOCK_TYPE: &str = "kv_cache_block_type";

const TRITON: &[Family] = &[
    only(TRITON_REQUESTS, "request_type", "scheduled", Running),
    only(TRITON_REQUESTS, "request_type", "waiting", Waiting),
    only(TRITON_BLOCKS, TRITON_BLOCK_TYPE, "fraction", KvUsage),
    only(TRITON_BLOCKS, TRITON_BLOCK_TYPE, "max", Blocks),
    only(TRITON_BLOCKS, TRITON_BLOCK_TYPE, "tokens_per", BlockSize),
];

const TRTLLM_SERVE: &[Family] = &[
    family("trtllm_num_requests_running", Running),
    family("trtllm_num_requests_waiting", Waiting),
    family("trtllm_kv_cache_utilization", KvUsage),
    family("trtllm_kv_cache_max_blocks", Blocks),
    family("trtllm_kv_cache_tokens_per_block", BlockSize),
];

const LLAMA_CPP: &[Family] = &[
    family("llamacpp:requests_processing", Running),
    family("llamacpp:requests_deferred", Waiting),
    family("llamacpp:kv_cache_usage_ratio", KvUsage),
    family("llamacpp:prompt_tokens_cached_total", PrefixHits),
];

const MIND_IE: &[Family] = &[
    family("num_requests_running", Running),
    family("num_requests_waiting", Waiting),
    family("npu_cache_usage_perc", KvUsage),
];

/// The families of an engine, preferred names first.
pub(super) fn families(engine: InferenceEngine) -> &'static [Family] {
    match engine {
        InferenceEngine::Vllm => VLLM,
        InferenceEngine::SgLang => SGLANG,
        InferenceEngine::Tgi => TGI,
        InferenceEngine::Triton => TRITON,
        InferenceEngine::TensorRtLlm => TRTLLM_SERVE,
        InferenceEngine::LlamaCpp => LLAMA_CPP,
        InferenceEngine::MindIE => MIND_IE,
    }
}
