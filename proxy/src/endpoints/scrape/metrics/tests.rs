use proptest::prelude::*;

use super::*;

const ENGINES: [InferenceEngine; 7] = [
    InferenceEngine::Vllm,
    InferenceEngine::SgLang,
    InferenceEngine::LlamaCpp,
    InferenceEngine::Tgi,
    InferenceEngine::Triton,
    InferenceEngine::TensorRtLlm,
    InferenceEngine::MindIE,
];

fn read(engine: InferenceEngine, page: &str) -> EngineReport {
    let mut reader = PageReader::new(engine);
    reader.push(page.as_bytes());
    reader.finish()
}

const VLLM: &str = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 4.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 8.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 8.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.47
vllm:prefix_cache_queries_total{engine="0",model_name="tiny"} 10822.0
vllm:prefix_cache_queries_created{engine="0",model_name="tiny"} 1.79e+09
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 800.0
vllm:lora_requests_info{max_lora="2",running_lora_adapters="",waiting_lora_adapters="lora-a"} 1.7e+09
vllm:lora_requests_info{max_lora="2",running_lora_adapters="lora-a,lora-b",waiting_lora_adapters=""} 1.7000000016e+09
vllm:lora_requests_info{max_lora="2",running_lora_adapters="lora-a",waiting_lora_adapters=""} 1.7000000001e+09
vllm:cache_config_info{block_size="32",kv_cache_size_tokens="4096",enable_prefix_caching="True",num_gpu_blocks="128"} 1.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
"#;

#[test]
fn vllm_is_read_and_the_newest_word_on_adapters_holds() {
    let report = read(InferenceEngine::Vllm, VLLM);
    let loras = LoraReport {
        running: vec!["lora-a".into(), "lora-b".into()],
        max: Some(2.0),
        stamp: 1_700_000_001.6,
        ..LoraReport::default()
    };
    let expected = EngineReport {
        running: Some(4.0),
        waiting: Some(8.0),
        kv_usage: Some(0.47),
        kv_tokens: Some(4096.0),
        block_size: Some(32.0),
        prefix_hits: Some(800.0),
        prefix_queries: Some(10_822.0),
        loras,
        ..EngineReport::default()
    };
    assert_eq!(report, expected);
}

#[test]
fn old_names_count_only_where_new_ones_are_missing() {
    let old = "vllm:gpu_cache_usage_perc 0.3\nvllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"100\"} 1\n";
    let report = read(InferenceEngine::Vllm, old);
    assert_eq!(
        (report.kv_usage, report.kv_tokens),
        (Some(0.3), Some(1600.0))
    );
    let both = format!("{old}vllm:kv_cache_usage_perc 0.4\n");
    assert_eq!(read(InferenceEngine::Vllm, &both).kv_usage, Some(0.4));
}

#[test]
fn ranks_add_up_and_their_fullest_counts() {
    let page = r#"
vllm:num_requests_running{engine="0"} 4
vllm:num_requests_running{engine="1"} 5
vllm:kv_cache_usage_perc{engine="0"} 0.2
vllm:kv_cache_usage_perc{engine="1"} 0.9
vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100"} 1
vllm:cache_config_info{engine="1",block_size="16",num_gpu_blocks="100"} 1
"#;
    let report = read(InferenceEngine::Vllm, page);
    assert_eq!(report.running, Some(9.0));
    assert_eq!(report.kv_usage, Some(0.9));
    assert_eq!(report.kv_tokens, Some(3200.0));
}

#[test]
fn tensor_parallel_repeats_of_sglang_count_once() {
    let page = r#"
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",dp_rank="0",pp_rank="0"} 7.0
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="1",dp_rank="0",pp_rank="0"} 7.0
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",dp_rank="1",pp_rank="0"} 2.0
sglang:num_queue_reqs{model_name="m",tp_rank="0"} 1.0
sglang:token_usage{model_name="m",tp_rank="0"} 0.28
sglang:cache_hit_rate{model_name="m"} 0.007507507507507508
sglang:max_total_num_tokens{model_name="m"} 123456.0
sglang:page_size{model_name="m"} 64.0
sglang:lora_pool_slots_used{model_name="m"} 3.0
sglang:lora_pool_slots_total{model_name="m"} 8.0
"#;
    let report = read(InferenceEngine::SgLang, page);
    assert_eq!(report.running, Some(9.0));
    assert_eq!(report.waiting, Some(1.0));
    assert_eq!(report.kv_usage, Some(0.28));
    assert_eq!(report.kv_tokens, Some(123_456.0));
    assert_eq!(report.block_size, Some(64.0));
    assert_eq!(
        (report.loras.used, report.loras.max),
        (Some(3.0), Some(8.0))
    );
    let pages = "sglang:cache_config_info{page_size=\"64\",num_pages=\"10\"} 1\n";
    assert_eq!(read(InferenceEngine::SgLang, pages).kv_tokens, Some(640.0));
}

#[test]
fn triton_tells_families_apart_by_label() {
    let page = r#"
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 1
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="context",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 2
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.4875
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="tensorrt_llm",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 6239
"#;
    let report = read(InferenceEngine::Triton, page);
    assert_eq!((report.running, report.waiting), (Some(2.0), Some(1.0)));
    assert_eq!(report.kv_usage, Some(0.4875));
    assert_eq!(report.kv_tokens, Some(64.0 * 6239.0));
}

#[test]
fn the_other_engines_are_read() {
    let tgi = read(
        InferenceEngine::Tgi,
        "tgi_queue_size 3\ntgi_batch_current_size 5\n",
    );
    assert_eq!((tgi.running, tgi.waiting), (Some(5.0), Some(3.0)));
    let llama = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:prompt_tokens_cached_total 76\n";
    let llama = read(InferenceEngine::LlamaCpp, llama);
    assert_eq!((llama.running, llama.waiting), (Some(2.0), Some(1.0)));
    assert_eq!(llama.prefix_hits, Some(76.0));
    let trtllm = "trtllm_num_requests_running{model_name=\"m\"} 6\ntrtllm_num_requests_waiting 0\n\
        trtllm_kv_cache_utilization 0.5\ntrtllm_kv_cache_tokens_per_block 32\ntrtllm_kv_cache_max_blocks 10\n";
    let trtllm = read(InferenceEngine::TensorRtLlm, trtllm);
    assert_eq!((trtllm.running, trtllm.waiting), (Some(6.0), Some(0.0)));
    assert_eq!(trtllm.kv_tokens, Some(320.0));
    let mindie = "num_requests_running{model_name=\"q\"} 4\nnum_requests_waiting{model_name=\"q\"} 2\n\
        npu_cache_usage_perc{model_name=\"q\"} 0.25\n";
    let mindie = read(InferenceEngine::MindIE, mindie);
    assert_eq!((mindie.running, mindie.kv_usage), (Some(4.0), Some(0.25)));
}

#[test]
fn values_that_cannot_be_are_missing_and_counted() {
    let page = "vllm:num_requests_running NaN\nvllm:num_requests_waiting -3\nvllm:kv_cache_usage_perc 47\n\
        vllm:prefix_cache_hits_total +Inf\nvllm:cache_config_info{block_size=\"None\",num_gpu_blocks=\"x\"} 1\n";
    let report = read(InferenceEngine::Vllm, page);
    let expected = EngineReport {
        rejected: 4,
        ..EngineReport::default()
    };
    assert_eq!(report, expected);
}

#[test]
fn an_endless_page_is_cut_and_what_was_read_counts() {
    let mut reader = PageReader::new(InferenceEngine::Vllm);
    assert!(reader.push(b"vllm:num_requests_running 4\n"));
    let filler = "some_histogram_bucket{le=\"1\"} 1\n".repeat(4096);
    let mut pieces = 0;
    while reader.push(filler.as_bytes()) {
        pieces += 1;
        assert!(pieces < 400, "it must stop by itself");
    }
    let report = reader.finish();
    assert!(report.cut);
    assert_eq!(report.running, Some(4.0));
}

#[test]
fn an_endless_line_is_passed_over() {
    let mut reader = PageReader::new(InferenceEngine::Vllm);
    for _ in 0..20 {
        reader.push(&[b'x'; 8000]);
    }
    assert!(reader.partial.capacity() <= MAX_LINE_BYTES);
    reader.push(b"\nvllm:num_requests_running 4\n");
    assert_eq!(reader.finish().running, Some(4.0));
}

#[test]
fn a_million_ranks_are_not_kept() {
    let mut reader = PageReader::new(InferenceEngine::Vllm);
    for rank in 0..MAX_RANKS + 50 {
        reader.push(format!("vllm:num_requests_running{{engine=\"{rank}\"}} 1\n").as_bytes());
    }
    assert_eq!(reader.finish().running, Some(MAX_RANKS as f64));
}

proptest! {
    #[test]
    fn no_bytes_break_it(pieces in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..200), 0..20,
    )) {
        for engine in ENGINES {
            let mut reader = PageReader::new(engine);
            for piece in &pieces {
                reader.push(piece);
            }
            reader.finish();
        }
    }

    #[test]
    fn nearly_right_text_does_not_break_it(
        lines in proptest::collection::vec(
            r#"vllm:(num_requests_running|cache_config_info|lora_requests_info|kv_cache_usage_perc)[{ "\\,=}a-z0-9.+-]{0,40}"#,
            0..20,
        ),
    ) {
        let report = read(InferenceEngine::Vllm, &lines.join("\n"));
        prop_assert!(report.kv_usage.is_none_or(|usage| (0.0..=1.0).contains(&usage)));
        prop_assert!(report.running.is_none_or(|running| running >= 0.0));
    }

    #[test]
    fn where_pieces_end_makes_no_difference(cut in proptest::collection::vec(0..VLLM.len(), 0..6)) {
        let mut cut = cut;
        cut.sort_unstable();
        let mut reader = PageReader::new(InferenceEngine::Vllm);
        let mut from = 0;
        for at in cut.into_iter().chain([VLLM.len()]) {
            reader.push(&VLLM.as_bytes()[from..at]);
            from = at;
        }
        prop_assert_eq!(reader.finish(), read(InferenceEngine::Vllm, VLLM));
    }
}
