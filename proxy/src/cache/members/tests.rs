use proptest::prelude::*;

use super::*;
use crate::cache::event::{EngineHash, Medium, Stored};

fn setting(members: usize) -> (Arc<PoolCache>, Vec<Arc<MemberCache>>) {
    let pool = PoolCache::new(&IndexBudget::new(16 << 20));
    let members = (0..members).map(|_| MemberCache::new(&pool)).collect();
    (pool, members)
}

fn prompt(text: &str) -> Arc<Prompt> {
    let mut chain = Chain::bytes(0);
    chain.push(text.as_bytes());
    Arc::new(Prompt {
        chain: chain.finish(),
        ..Prompt::default()
    })
}

fn stored(tokens: &[u32], block_size: u32) -> KvEvent {
    KvEvent::Stored(Stored {
        hashes: (1..=tokens.len() as u64 / u64::from(block_size))
            .map(EngineHash)
            .collect(),
        parent: None,
        tokens: tokens.to_vec(),
        block_size,
        lora: None,
        medium: Medium::Device,
        group: None,
        partial_attention: false,
        extra: Vec::new(),
    })
}

#[test]
fn a_prompt_counts_as_held_where_it_was_sent_until_it_fails() {
    let (pool, members) = setting(2);
    let prompt = prompt(&"x".repeat(4096));
    let found = pool.find(&prompt, None, &[]);
    assert_eq!(found.prompt_tokens, 1024);
    let mut claim = members[0].dispatched(&found);
    let again = pool.find(&prompt, None, &[]);
    assert_eq!(
        [members[0].cached(&again), members[1].cached(&again)],
        [1024, 0]
    );
    claim.confirm();
    drop(claim);
    drop(members[1].dispatched(&found));
    let after = pool.find(&prompt, None, &[]);
    assert_eq!(
        [members[0].cached(&after), members[1].cached(&after)],
        [1024, 0]
    );
}

#[test]
fn live_events_answer_for_tokens_and_bytes_for_the_rest() {
    let (pool, members) = setting(2);
    let prompt = prompt(&"x".repeat(640));
    let tokens: Vec<u32> = (0..160).collect();
    for member in &members {
        member.dispatched(&pool.find(&prompt, None, &[])).confirm();
    }
    members[0].set_live(true);
    members[0].apply(None, &stored(&tokens[..64], 16));
    assert_eq!(block_sizes(members.iter()), [16]);
    let found = pool.find(&prompt, Some(&tokens), &[16]);
    assert_eq!(members[0].cached(&found), 64);
    assert_eq!(members[1].cached(&found), 160);
    let late = pool.find(&prompt, None, &[16]);
    assert_eq!(members[0].cached(&late), 160);
    members[0].apply(None, &KvEvent::Cleared);
    let found = pool.find(&prompt, Some(&tokens), &[16]);
    assert_eq!(members[0].cached(&found), 0);
    let mut claim = members[0].dispatched(&found);
    let found = pool.find(&prompt, Some(&tokens[..150]), &[16]);
    assert_eq!(members[0].cached(&found), 144);
    claim.confirm();
}

#[test]
fn the_ratio_of_bytes_to_tokens_follows_the_engines_counts() {
    let (pool, _) = setting(0);
    for _ in 0..200 {
        pool.counted(&prompt(&"x".repeat(3000)), 1000);
        pool.counted(&prompt("ten bytes."), 1000);
    }
    assert!((pool.bytes_per_token() - 3.0).abs() < 0.01);
}

#[test]
fn a_member_that_leaves_takes_its_knowledge_with_it() {
    let (pool, mut members) = setting(1);
    let prompt = prompt(&"x".repeat(640));
    members[0]
        .dispatched(&pool.find(&prompt, None, &[]))
        .confirm();
    members.clear();
    assert_eq!(pool.byte_index().stats().blocks, 0);
}

#[test]
fn a_live_member_that_has_not_said_how_its_blocks_are_cut_is_known_by_bytes() {
    let (pool, members) = setting(2);
    let prompt = prompt(&"x".repeat(640));
    let tokens: Vec<u32> = (0..160).collect();
    members[0].set_live(true);
    members[0].apply(None, &stored(&[9; 16], 16));
    members[1].set_live(true);
    let found = pool.find(&prompt, Some(&tokens), &[16]);
    let _claim = members[1].dispatched(&found);
    let follower = pool.find(&prompt, Some(&tokens), &[16]);
    assert_eq!(members[0].cached(&follower), 0);
    assert_eq!(members[1].cached(&follower), 160);
}

/// What may happen to a prompt: by number of member and prompt, or of a claim made before.
#[derive(Debug, Clone)]
enum Step {
    Dispatch(usize, usize),
    Confirm(usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_usize, 0..4_usize).prop_map(|(member, prompt)| Step::Dispatch(member, prompt)),
        (0..64_usize).prop_map(Step::Confirm),
        (0..64_usize).prop_map(Step::End),
    ]
}

proptest! {
    #[test]
    fn a_prompt_is_held_where_it_was_confirmed_or_is_on_its_way_and_nowhere_else(
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let (pool, members) = setting(3);
        let prompts: Vec<_> = (0..4).map(|n| prompt(&n.to_string().repeat(4096))).collect();
        let mut open: Vec<(usize, usize, Claim)> = Vec::new();
        let mut confirmed = [[false; 4]; 3];
        for step in steps {
            match step {
                Step::Dispatch(member, number) => {
                    let found = pool.find(&prompts[number], None, &[]);
                    open.push((member, number, members[member].dispatched(&found)));
                }
                Step::Confirm(claim) if claim < open.len() => {
                    let (member, number, claim) = &mut open[claim];
                    claim.confirm();
                    confirmed[*member][*number] = true;
                }
                Step::End(claim) if claim < open.len() => drop(open.swap_remove(claim)),
                Step::Confirm(_) | Step::End(_) => {}
            }
        }
        for (number, prompt) in prompts.iter().enumerate() {
            let found = pool.find(prompt, None, &[]);
            for (place, member) in members.iter().enumerate() {
                let coming = open.iter().any(|&(at, what, _)| (at, what) == (place, number));
                let held = confirmed[place][number] || coming;
                prop_assert_eq!(member.cached(&found), if held { 1024 } else { 0 });
            }
        }
    }
}

#[test]
fn the_last_block_of_a_prompt_that_is_held_whole_is_computed_anew() {
    let (pool, members) = setting(1);
    let prompt = prompt(&"x".repeat(256));
    let tokens: Vec<u32> = (0..65).collect();
    members[0].set_live(true);
    members[0].apply(None, &stored(&tokens[..64], 16));
    let cached =
        |length: usize| members[0].cached(&pool.find(&prompt, Some(&tokens[..length]), &[16]));
    assert_eq!([16, 17, 63, 64, 65].map(cached), [0, 16, 48, 48, 64]);
}

#[test]
fn the_first_answers_replace_the_guess_by_their_mean() {
    let (pool, _) = setting(0);
    pool.counted(&prompt(&"x".repeat(2000)), 1000);
    assert!((pool.bytes_per_token() - 2.0).abs() < 1e-9);
    pool.counted(&prompt(&"x".repeat(3000)), 1000);
    assert!((pool.bytes_per_token() - 2.5).abs() < 1e-9);
}

#[test]
fn a_turn_that_goes_on_from_a_remembered_one_is_known_by_its_tokens() {
    let (pool, members) = setting(2);
    let (first, second) = ("x".repeat(640), "x".repeat(640) + &"y".repeat(640));
    let tokens: Vec<u32> = (0..165).collect();
    for member in &members {
        member.set_live(true);
        member
            .dispatched(&pool.find(&prompt(&first), None, &[]))
            .confirm();
    }
    // One has lost the half of it since.
    members[0].apply(None, &stored(&tokens[..160], 16));
    members[1].apply(None, &stored(&tokens[..80], 16));
    let by_bytes = pool.find(&prompt(&second), None, &[16]);
    assert_eq!(members[1].cached(&by_bytes), 160, "nothing is remembered");
    pool.remember(&prompt(&first), tokens.clone());
    let found = pool.find(&prompt(&second), None, &[16]);
    assert_eq!(found.prompt_tokens, 320, "still by the bytes");
    assert_eq!(
        [members[0].cached(&found), members[1].cached(&found)],
        [160, 80]
    );
    // What was dispatched since goes beyond what is remembered.
    members[0].dispatched(&found).confirm();
    let found = pool.find(&prompt(&second), None, &[16]);
    assert_eq!(members[0].cached(&found), 320);
}
