//! One test per scheduler rule, on a small engine.

use super::*;

fn small() -> Profile {
    Profile {
        kv_tokens: 64,
        block_tokens: 4,
        max_batched_tokens: 16,
        max_sequences: 4,
        ..Profile::H8B
    }
}

fn request(prompt: std::ops::Range<u32>, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.collect(),
        max_tokens,
        ..GenerateRequest::default()
    }
}

fn submit(engine: &mut Engine, request: GenerateRequest) -> RequestId {
    engine.submit(request, Duration::ZERO).unwrap()
}

/// Steps until idle; all results.
fn drain(engine: &mut Engine) -> Vec<StepResult> {
    let mut now = Duration::ZERO;
    let mut results = Vec::new();
    while engine.has_work() {
        let result = engine.step(now);
        now += result.duration;
        results.push(result);
        assert!(results.len() < 10_000, "the engine makes no progress");
    }
    results
}

#[test]
fn a_request_yields_exactly_its_tokens_in_order() {
    let mut engine = Engine::new(small());
    let id = submit(&mut engine, request(0..10, 5));
    let tokens: Vec<_> = drain(&mut engine)
        .into_iter()
        .flat_map(|result| result.tokens)
        .collect();
    assert_eq!(
        tokens.iter().map(|token| token.index).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4]
    );
    assert!(tokens.iter().all(|token| token.id == id));
    assert_eq!(tokens.iter().filter(|token| token.last).count(), 1);
    assert_eq!(engine.gauges().kv_usage, 0.0);
}

#[test]
fn a_long_prompt_is_prefilled_in_chunks_of_the_budget() {
    let mut engine = Engine::new(small());
    submit(&mut engine, request(0..40, 1));
    let chunks: Vec<_> = drain(&mut engine)
        .iter()
        .map(|result| result.batch.tokens)
        .collect();
    assert_eq!(chunks, [16, 16, 8]);
}

#[test]
fn decodes_go_first_and_prefill_takes_the_rest_of_the_budget() {
    let mut engine = Engine::new(small());
    submit(&mut engine, request(0..4, 8));
    engine.step(Duration::ZERO);
    submit(&mut engine, request(100..140, 1));
    let result = engine.step(Duration::ZERO);
    assert_eq!(result.batch.tokens, 16);
    assert_eq!(result.batch.decode_context, 4.0);
    assert_eq!(result.batch.prefill_attention, 15.0 * 7.5);
}

#[test]
fn a_hit_is_rounded_down_to_blocks_and_leaves_the_last_token() {
    let mut engine = Engine::new(small());
    for (length, expected) in [(12, 0), (12, 8), (13, 12), (11, 8), (4, 0), (5, 4)] {
        submit(&mut engine, request(0..length, 1));
        let finished = drain(&mut engine).pop().unwrap().finished;
        assert_eq!(finished[0].cached_tokens, expected, "prompt of {length}");
    }
    let gauges = engine.gauges();
    assert_eq!(
        (gauges.prefix_queries, gauges.prefix_hits),
        (12 + 12 + 13 + 11 + 4 + 5, 8 + 12 + 8 + 4)
    );
}

#[test]
fn a_chain_ends_at_the_first_block_that_differs() {
    let mut engine = Engine::new(small());
    submit(&mut engine, request(0..16, 1));
    drain(&mut engine);
    let mut other = request(0..16, 1);
    other.prompt[5] = 99;
    submit(&mut engine, other);
    assert_eq!(drain(&mut engine)[0].finished[0].cached_tokens, 4);
}

#[test]
fn salts_do_not_share() {
    let mut engine = Engine::new(small());
    for (salt, expected) in [(1, 0), (2, 0), (1, 8)] {
        submit(
            &mut engine,
            GenerateRequest {
                salt,
                ..request(0..12, 1)
            },
        );
        assert_eq!(
            drain(&mut engine)[0].finished[0].cached_tokens,
            expected,
            "salt {salt}"
        );
    }
}

#[test]
fn generated_tokens_fill_blocks_that_the_next_turn_finds() {
    let mut engine = Engine::new(small());
    submit(
        &mut engine,
        GenerateRequest {
            output_seed: 7,
            ..request(0..6, 11)
        },
    );
    drain(&mut engine);
    let mut next = request(0..6, 1);
    next.prompt
        .extend((0..11).map(|index| super::super::hash::output_token(7, index)));
    submit(&mut engine, next);
    // 17 tokens, of which the engine computed 16: the last one it generated was never run through it.
    assert_eq!(drain(&mut engine)[0].finished[0].cached_tokens, 16);
}

#[test]
fn running_sequences_share_blocks() {
    let mut engine = Engine::new(small());
    submit(&mut engine, request(0..9, 20));
    engine.step(Duration::ZERO);
    submit(&mut engine, request(0..9, 20));
    engine.step(Duration::ZERO);
    // Three blocks for the first; the second adds only its own tail.
    assert_eq!(engine.gauges().kv_usage, 4.0 / 16.0);
}

#[test]
fn the_oldest_tail_is_evicted_first() {
    let mut engine = Engine::new(Profile {
        kv_tokens: 20,
        ..small()
    });
    submit(&mut engine, request(0..12, 1));
    drain(&mut engine);
    // Needs all five blocks but two that were never used: takes the tail of the first prompt.
    submit(&mut engine, request(100..112, 1));
    drain(&mut engine);
    submit(&mut engine, request(0..12, 1));
    assert_eq!(drain(&mut engine)[0].finished[0].cached_tokens, 8);
}

#[test]
fn without_blocks_the_last_running_sequence_is_preempted_and_comes_back() {
    let mut engine = Engine::new(Profile {
        kv_tokens: 24,
        ..small()
    });
    let first = submit(&mut engine, request(0..8, 12));
    let second = submit(&mut engine, request(100..108, 12));
    let results = drain(&mut engine);
    let preempted: Vec<_> = results
        .iter()
        .flat_map(|result| result.preempted.clone())
        .collect();
    assert_eq!(preempted, [second]);
    let step = results
        .iter()
        .position(|result| !result.preempted.is_empty())
        .unwrap();
    assert!(
        results[step].batch.sequences == 1,
        "none is admitted in a step that preempted"
    );
    let finished: Vec<_> = results
        .iter()
        .flat_map(|result| result.finished.clone())
        .collect();
    assert_eq!(
        finished.iter().map(|one| one.id).collect::<Vec<_>>(),
        [first, second]
    );
    assert_eq!(finished[1].output_tokens, 12);
    assert_eq!(finished[1].preemptions, 1);
    let indexes: Vec<_> = results
        .iter()
        .flat_map(|r| &r.tokens)
        .filter(|token| token.id == second)
        .map(|token| token.index)
        .collect();
    assert_eq!(
        indexes,
        (0..12).collect::<Vec<_>>(),
        "no token is generated twice"
    );
}

#[test]
fn the_number_of_running_sequences_is_limited() {
    let mut engine = Engine::new(Profile {
        max_sequences: 2,
        ..small()
    });
    for start in 0..3 {
        submit(&mut engine, request(start * 100..start * 100 + 2, 4));
    }
    engine.step(Duration::ZERO);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (2, 1));
}

#[test]
fn waiting_sequences_are_admitted_in_the_order_of_arrival() {
    let mut engine = Engine::new(small());
    // The first does not fit beside the running one; the short one behind it must not overtake.
    submit(&mut engine, request(0..16, 36));
    engine.step(Duration::ZERO);
    submit(&mut engine, request(100..161, 1));
    submit(&mut engine, request(200..202, 1));
    let finished: Vec<_> = drain(&mut engine)
        .into_iter()
        .flat_map(|result| result.finished)
        .collect();
    assert_eq!(
        finished.iter().map(|one| one.id.0).collect::<Vec<_>>(),
        [0, 1, 2]
    );
}

#[test]
fn cancelling_frees_blocks_and_ends_the_output() {
    let mut engine = Engine::new(small());
    let running = submit(&mut engine, request(0..8, 50));
    engine.step(Duration::ZERO);
    let waiting = submit(&mut engine, request(100..108, 5));
    assert!(engine.cancel(running));
    assert!(engine.cancel(waiting));
    assert!(!engine.cancel(running));
    assert!(!engine.has_work());
    assert_eq!(engine.gauges().kv_usage, 0.0);
}

#[test]
fn what_cannot_ever_fit_is_refused() {
    let mut engine = Engine::new(small());
    assert_eq!(
        engine.submit(request(0..64, 1), Duration::ZERO),
        Err(SubmitError::TooLong {
            needed: 17,
            capacity: 16
        })
    );
    assert_eq!(
        engine.submit(request(0..0, 1), Duration::ZERO),
        Err(SubmitError::EmptyPrompt)
    );
}

#[test]
fn times_of_a_finished_sequence_are_in_the_drivers_clock() {
    let mut engine = Engine::new(small());
    engine
        .submit(request(0..20, 2), Duration::from_secs(1))
        .unwrap();
    let mut now = Duration::from_secs(2);
    let mut results = Vec::new();
    while engine.has_work() {
        results.push(engine.step(now));
        now += results.last().unwrap().duration;
    }
    let finished = &results[2].finished[0];
    assert_eq!(
        (finished.arrived, finished.admitted),
        (Duration::from_secs(1), Duration::from_secs(2))
    );
    assert_eq!(
        finished.first_token,
        Duration::from_secs(2) + results[0].duration + results[1].duration
    );
    assert_eq!(finished.finished, now);
}

#[test]
fn events_name_every_block_once_and_its_removal() {
    let mut engine = Engine::new(Profile {
        kv_tokens: 16,
        ..small()
    });
    engine.record_events();
    submit(&mut engine, request(0..9, 1));
    submit(&mut engine, request(100..112, 1));
    let events: Vec<_> = drain(&mut engine)
        .into_iter()
        .flat_map(|result| result.events)
        .collect();
    let stored: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            KvEvent::Stored {
                hash,
                parent,
                tokens,
                ..
            } => Some((*hash, *parent, tokens.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(stored.len(), 5);
    assert_eq!(stored[0].1, None);
    assert_eq!(stored[1].1, Some(stored[0].0));
    assert_eq!(stored[1].2, [4, 5, 6, 7]);
    // The second prompt reuses the first one's partial block, then its tail.
    assert!(events.contains(&KvEvent::Removed { hash: stored[1].0 }));
    assert!(engine.reset_prefix_cache());
}
