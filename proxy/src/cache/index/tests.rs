use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use super::*;
use crate::cache::chain::{extra_digest, token_seed};
use crate::cache::event::{EngineHash, KvEvent, Medium, Stored};

mod model;

const MIB: usize = 1 << 20;

fn index() -> Index {
    Index::new(IndexBudget::in_virtual_time(64 * MIB))
}

fn tokens(id: u32, blocks: usize) -> Vec<u32> {
    (0..blocks as u32 * 16).map(|at| at ^ (id << 18)).collect()
}

fn chain(id: u32, blocks: usize) -> Chain {
    Chain::of_tokens(token_seed(None), &tokens(id, blocks), 16)
}

/// Engine hashes are `id << 32` and up.
fn run(id: u32, blocks: usize) -> Stored {
    Stored {
        hashes: engine_hashes(id, 0..blocks),
        parent: None,
        tokens: tokens(id, blocks),
        block_size: 16,
        lora: None,
        medium: Medium::Device,
        group: None,
        partial_attention: false,
        extra: Vec::new(),
    }
}

fn engine_hashes(id: u32, blocks: std::ops::Range<usize>) -> Vec<EngineHash> {
    let hash = |block| EngineHash(u64::from(id) << 32 | block as u64);
    blocks.map(hash).collect()
}

fn removed(id: u32, blocks: std::ops::Range<usize>, medium: Medium, group: Option<u32>) -> KvEvent {
    KvEvent::Removed {
        hashes: engine_hashes(id, blocks),
        medium,
        group,
    }
}

fn store(index: &Index, slot: Slot, run: Stored) {
    index.apply(slot, &KvEvent::Stored(run));
}

fn held(index: &Index, slot: Slot, chain: &Chain) -> u32 {
    index.matched(chain).blocks(slot)
}

#[test]
fn a_dispatched_prompt_counts_at_once() {
    let index = index();
    let (one, two) = (index.attach().unwrap(), index.attach().unwrap());
    let prompt = chain(1, 600);
    index.dispatched(one, &prompt);
    let matched = index.matched(&prompt);
    assert_eq!((matched.blocks(one), matched.blocks(two)), (600, 0));
    assert_eq!(held(&index, one, &chain(2, 600)), 0);
}

#[test]
fn a_withdrawn_prompt_takes_back_only_its_own() {
    let index = index();
    let slot = index.attach().unwrap();
    let (short, long) = (chain(1, 10), chain(1, 600));
    index.dispatched(slot, &short);
    index.dispatched(slot, &long);
    index.withdrawn(slot, &long);
    assert_eq!(held(&index, slot, &long), 10);
    index.confirmed(slot, &short);
    index.dispatched(slot, &long);
    index.withdrawn(slot, &long);
    assert_eq!(held(&index, slot, &long), 10);
    index.dispatched(slot, &long);
    index.confirmed(slot, &long);
    index.withdrawn(slot, &long);
    assert_eq!(held(&index, slot, &long), 600);
}

#[test]
fn the_tail_of_the_oldest_chain_goes_first() {
    let index = index();
    let slot = index.attach().unwrap();
    index.set_capacity(slot, 16 * 100);
    for id in 1..=2 {
        index.dispatched(slot, &chain(id, 50));
        index.confirmed(slot, &chain(id, 50));
    }
    index.dispatched(slot, &chain(3, 30));
    assert_eq!(held(&index, slot, &chain(1, 50)), 20);
    assert_eq!(held(&index, slot, &chain(2, 50)), 50);
    index.dispatched(slot, &chain(1, 10));
    index.dispatched(slot, &chain(4, 40));
    assert_eq!(held(&index, slot, &chain(1, 50)), 10);
    index.set_capacity(slot, 16 * 45);
    assert_eq!(held(&index, slot, &chain(4, 40)), 40);
    assert_eq!(held(&index, slot, &chain(1, 50)), 5);
    assert_eq!(index.stats().predicted, 45);
}

#[test]
fn a_prompt_beyond_capacity_keeps_its_head() {
    let index = index();
    let slot = index.attach().unwrap();
    index.set_capacity(slot, 16 * 300);
    index.dispatched(slot, &chain(1, 1000));
    assert_eq!(held(&index, slot, &chain(1, 1000)), 300);
}

#[test]
fn a_detached_slot_is_forgotten_and_reused() {
    let index = index();
    let slots: Vec<_> = (0..130).map(|_| index.attach().unwrap()).collect();
    for slot in &slots {
        index.dispatched(*slot, &chain(1, 40));
    }
    assert_eq!(held(&index, slots[129], &chain(1, 40)), 40);
    index.detach(slots[70]);
    index.dispatched(slots[70], &chain(1, 40));
    let matched = index.matched(&chain(1, 40));
    let depths: Vec<_> = slots.iter().map(|slot| matched.blocks(*slot)).collect();
    assert!(
        depths
            .iter()
            .enumerate()
            .all(|(at, depth)| (*depth == 40) == (at != 70))
    );
    assert_eq!(index.attach(), Some(slots[70]));
    assert_eq!(held(&index, slots[70], &chain(1, 40)), 0);
}

#[test]
fn there_is_an_end_to_slots() {
    let index = index();
    assert!((0..1024).all(|_| index.attach().is_some()));
    assert_eq!(index.attach(), None);
}

#[test]
fn events_and_requests_name_the_same_blocks() {
    let index = index();
    let slot = index.attach().unwrap();
    let salt = extra_digest(&["salt"]);
    let mut salted = run(2, 4);
    salted.lora = Some("adapter".into());
    salted.extra = vec![salt, 0, 0, 0];
    store(&index, slot, run(1, 4));
    store(&index, slot, salted);
    assert_eq!(held(&index, slot, &chain(1, 9)), 4);
    assert_eq!(held(&index, slot, &chain(2, 9)), 0);
    let seed = token_seed(Some("adapter"));
    let asked = Chain::of_tokens_with(seed, &tokens(2, 9), 16, &[salt]);
    assert_eq!(held(&index, slot, &asked), 4);
    assert_eq!(index.reported_block(slot), Some(16));
}

#[test]
fn engines_with_other_hashes_share_blocks() {
    let index = index();
    let (one, two) = (index.attach().unwrap(), index.attach().unwrap());
    store(&index, one, run(1, 4));
    let mut other = run(1, 4);
    other.hashes = engine_hashes(9, 0..4);
    store(&index, two, other);
    assert_eq!(index.stats().blocks, 4);
    index.apply(one, &removed(1, 2..4, Medium::Device, None));
    assert_eq!(held(&index, one, &chain(1, 4)), 2);
    assert_eq!(held(&index, two, &chain(1, 4)), 4);
}

#[test]
fn a_run_continues_from_its_parent_or_is_dropped() {
    let index = index();
    let slot = index.attach().unwrap();
    let whole = run(1, 700);
    let part = |range: std::ops::Range<usize>| Stored {
        hashes: whole.hashes[range.clone()].to_vec(),
        parent: range
            .start
            .checked_sub(1)
            .map(|before| whole.hashes[before]),
        tokens: whole.tokens[range.start * 16..range.end * 16].to_vec(),
        ..whole.clone()
    };
    store(&index, slot, part(300..700));
    assert_eq!(index.stats().counters.orphaned, 1);
    store(&index, slot, part(0..300));
    store(&index, slot, part(300..700));
    assert_eq!(held(&index, slot, &chain(1, 700)), 700);
    let mut coarse = part(300..700);
    coarse.block_size = 32;
    coarse.hashes.truncate(200);
    store(&index, slot, coarse);
    assert_eq!(index.stats().counters.orphaned, 2);
}

#[test]
fn a_block_stays_while_any_fast_medium_has_it() {
    let index = index();
    let slot = index.attach().unwrap();
    let copied = |medium| Stored {
        tokens: Vec::new(),
        medium,
        ..run(1, 4)
    };
    store(&index, slot, run(1, 4));
    store(&index, slot, run(1, 4));
    store(&index, slot, copied(Medium::Host));
    index.apply(slot, &removed(1, 0..4, Medium::Device, None));
    assert_eq!(held(&index, slot, &chain(1, 4)), 4);
    store(&index, slot, copied(Medium::Storage));
    index.apply(slot, &removed(1, 0..4, Medium::Host, None));
    assert_eq!(held(&index, slot, &chain(1, 4)), 0);
    store(&index, slot, copied(Medium::Device));
    assert_eq!(held(&index, slot, &chain(1, 4)), 4);
    for medium in [Medium::Device, Medium::Storage] {
        index.apply(slot, &removed(1, 0..4, medium, None));
    }
    assert_eq!((index.stats().reported, index.stats().blocks), (0, 0));
    store(&index, slot, copied(Medium::Host));
    assert_eq!(index.stats().counters.unknown, 4);
}

#[test]
fn groups_are_removed_one_by_one() {
    let index = index();
    let slot = index.attach().unwrap();
    let of = |group, partial_attention| Stored {
        group: Some(group),
        partial_attention,
        ..run(1, 4)
    };
    store(&index, slot, of(1, true));
    assert_eq!(held(&index, slot, &chain(1, 4)), 0);
    store(&index, slot, of(0, false));
    index.apply(slot, &removed(1, 0..4, Medium::Device, Some(1)));
    assert_eq!(held(&index, slot, &chain(1, 4)), 4);
    index.apply(slot, &removed(1, 0..4, Medium::Device, Some(0)));
    assert_eq!(held(&index, slot, &chain(1, 4)), 0);
    assert_eq!(index.stats().counters.partial, 1);
}

#[test]
fn events_that_do_not_fit_are_counted_and_dropped() {
    let index = index();
    let slot = index.attach().unwrap();
    let broken: [fn(&mut Stored); 6] = [
        |run| run.block_size = 0,
        |run| run.block_size = u32::MAX,
        |run| run.tokens.truncate(63),
        |run| run.hashes.truncate(3),
        |run| run.extra = vec![1; 3],
        |run| {
            run.tokens.clear();
            run.hashes.clear();
        },
    ];
    for (count, damage) in (1..).zip(broken) {
        let mut run = run(1, 4);
        damage(&mut run);
        store(&index, slot, run);
        assert_eq!(index.stats().counters.malformed, count);
    }
    assert_eq!(index.stats().reported, 0);
}

#[test]
fn an_engine_cannot_invent_sizes_without_end() {
    let index = index();
    let slot = index.attach().unwrap();
    for size in 1..400 {
        let hashes = vec![EngineHash(u64::from(size))];
        store(
            &index,
            slot,
            Stored {
                hashes,
                tokens: vec![0; size as usize],
                block_size: size,
                ..run(1, 1)
            },
        );
    }
    assert_eq!(index.stats().reported, 256);
    assert_eq!(index.stats().counters.malformed, 399 - 256);
}

#[test]
fn predictions_give_way_to_live_events() {
    let budget = IndexBudget::in_virtual_time(64 * MIB);
    let index = Index::new(Arc::clone(&budget));
    let slot = index.attach().unwrap();
    index.set_reported(slot, true);
    let (done, waiting) = (chain(1, 20), chain(2, 20));
    index.dispatched(slot, &done);
    index.dispatched(slot, &waiting);
    index.confirmed(slot, &done);
    store(&index, slot, run(1, 12));
    assert_eq!(held(&index, slot, &done), 20);
    budget.advance(Duration::from_secs(7));
    index.expire();
    assert_eq!(held(&index, slot, &done), 12);
    assert_eq!(held(&index, slot, &waiting), 20);
    index.confirmed(slot, &waiting);
    budget.advance(Duration::from_secs(7));
    index.expire();
    assert_eq!(held(&index, slot, &waiting), 0);
}

#[test]
fn what_is_reported_is_not_predicted_again() {
    let index = index();
    let slot = index.attach().unwrap();
    index.set_reported(slot, true);
    store(&index, slot, run(1, 300));
    index.dispatched(slot, &chain(1, 600));
    assert_eq!(index.stats().predicted, 300);
    assert_eq!(held(&index, slot, &chain(1, 600)), 600);
    index.withdrawn(slot, &chain(1, 600));
    assert_eq!(held(&index, slot, &chain(1, 600)), 300);
}

#[test]
fn a_cleared_slot_starts_anew() {
    let index = index();
    let (one, two) = (index.attach().unwrap(), index.attach().unwrap());
    for slot in [one, two] {
        store(&index, slot, run(1, 3000));
        index.dispatched(slot, &chain(2, 3000));
    }
    index.apply(one, &KvEvent::Cleared);
    assert_eq!(held(&index, one, &chain(1, 3000)), 0);
    assert_eq!(held(&index, one, &chain(2, 3000)), 0);
    assert_eq!(held(&index, two, &chain(2, 3000)), 3000);
    store(&index, one, run(1, 5));
    assert_eq!(held(&index, one, &chain(1, 5)), 5);
}

#[test]
fn the_budget_holds_over_all_pools() {
    let budget = IndexBudget::in_virtual_time(4 * MIB);
    let pools: Vec<_> = (0..3).map(|_| Index::new(Arc::clone(&budget))).collect();
    let slots: Vec<_> = pools.iter().map(|pool| pool.attach().unwrap()).collect();
    for id in 0..300 {
        let at = id as usize % 3;
        budget.advance(Duration::from_secs(1));
        pools[at].dispatched(slots[at], &chain(id, 1000));
        store(&pools[at], slots[at], run(id + 1000, 1000));
        assert!(budget.used() <= budget.limit());
    }
    let booked: usize = pools.iter().map(|pool| pool.stats().bytes).sum();
    assert_eq!(booked, budget.used());
    assert!(pools.iter().all(|pool| pool.stats().counters.evicted > 0));
    assert_eq!(held(&pools[2], slots[2], &chain(299, 1000)), 1000);
    assert_eq!(held(&pools[0], slots[0], &chain(0, 1000)), 0);
    assert!(budget.used() > budget.limit() * 3 / 4);
    drop(pools);
    assert_eq!(budget.used(), 0);
}

#[test]
fn an_idle_pool_makes_room_for_a_busy_one() {
    let budget = IndexBudget::in_virtual_time(4 * MIB);
    let (idle, busy) = (
        Index::new(Arc::clone(&budget)),
        Index::new(Arc::clone(&budget)),
    );
    let (idle_slot, busy_slot) = (idle.attach().unwrap(), busy.attach().unwrap());
    for id in 0..100 {
        idle.dispatched(idle_slot, &chain(id, 1000));
    }
    budget.advance(Duration::from_secs(60));
    for id in 0..50 {
        busy.dispatched(busy_slot, &chain(id, 1000));
    }
    assert_eq!(busy.stats().predicted, 50_000);
    assert_eq!(busy.stats().counters.evicted, 0);
}

#[test]
fn blocks_that_requests_use_outlive_others() {
    let budget = IndexBudget::in_virtual_time(2 * MIB);
    let index = Index::new(Arc::clone(&budget));
    let slot = index.attach().unwrap();
    index.set_reported(slot, true);
    store(&index, slot, run(0, 500));
    for id in 1..200 {
        store(&index, slot, run(id, 500));
        index.dispatched(slot, &chain(0, 500));
    }
    assert_eq!(held(&index, slot, &chain(0, 500)), 500);
    assert_eq!(held(&index, slot, &chain(1, 500)), 0);
}

#[test]
fn an_export_brings_back_confirmed_predictions_in_their_order() {
    let (old, new) = (index(), index());
    let (from, to) = (old.attach().unwrap(), new.attach().unwrap());
    for id in 1..=3 {
        old.dispatched(from, &chain(id, 50));
    }
    old.confirmed(from, &chain(1, 50));
    old.confirmed(from, &chain(3, 50));
    let blocks = old.export(from, usize::MAX);
    assert_eq!(blocks.len(), 100);
    new.dispatched(to, &chain(4, 10));
    new.set_capacity(to, 16 * 80);
    new.import(to, &blocks);
    let depths = [1, 2, 3, 4].map(|id| held(&new, to, &chain(id, 50)));
    assert_eq!(depths, [20, 0, 50, 10]);
}

/// Writers put even chains into even slots and odd ones into odd, and take them out again; tables grow and shrink
/// all the time. No reader may ever see an even chain in an odd slot.
#[test]
fn readers_never_see_a_false_holder() {
    let index = index();
    let slots: Vec<_> = (0..8).map(|_| index.attach().unwrap()).collect();
    let chains: Vec<_> = (0..64).map(|id| chain(id, 100)).collect();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !done.load(Ordering::Relaxed) {
                        for (id, chain) in chains.iter().enumerate() {
                            let matched = index.matched(chain);
                            for (at, slot) in slots.iter().enumerate() {
                                let blocks = matched.blocks(*slot);
                                assert!(blocks == 0 || at % 2 == id % 2, "{id} in {at}");
                                seen += u64::from(blocks > 0);
                            }
                        }
                    }
                    seen
                })
            })
            .collect();
        for round in 0..40 {
            for (id, chain) in chains.iter().enumerate() {
                let slot = slots[(id + 2 * round) % 8];
                index.dispatched(slot, chain);
                if round % 3 == 0 {
                    index.clear(slot);
                }
                if id % 2 == round % 2 {
                    index.withdrawn(slot, chain);
                }
            }
        }
        index.dispatched(slots[0], &chains[0]);
        done.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().unwrap();
        }
    });
}
