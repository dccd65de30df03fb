//! The index against maps: random dispatches, confirmations, withdrawals, events, clearings and detachments.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

const SLOTS: usize = 3;

#[derive(Debug, Clone, Copy)]
enum Act {
    Dispatch,
    Confirm,
    Withdraw,
    Store,
    Promote,
    Remove,
    Clear,
    Replace,
}

/// Something done to the blocks `from..to` of a chain in a slot; requests and promotions begin at 0.
#[derive(Debug, Clone)]
struct Step {
    act: Act,
    slot: usize,
    id: u32,
    from: usize,
    to: usize,
    medium: Medium,
    group: Option<u32>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Act::{Clear, Confirm, Dispatch, Promote, Remove, Replace, Store, Withdraw};
    let acts = [
        [Dispatch; 4].as_slice(),
        &[Confirm; 3],
        &[Withdraw; 3],
        &[Store; 4],
        &[Promote; 2],
        &[Remove; 3],
        &[Clear, Replace],
    ];
    let medium = prop::sample::select(vec![Medium::Device, Medium::Host, Medium::Storage]);
    let group = prop::sample::select(vec![None, Some(0), Some(1)]);
    let act = prop::sample::select(acts.concat());
    let blocks = (0..7_usize, 1..8_usize);
    let step = (act, 0..SLOTS, 0..3_u32, blocks, medium, group);
    let step = step.prop_map(|(act, slot, id, (from, count), medium, group)| Step {
        act,
        slot,
        id,
        from,
        to: from + count,
        medium,
        group,
    });
    prop::collection::vec(step, 0..120)
}

type Block = (u32, usize);
type Places = HashSet<(Medium, Option<u32>)>;

/// What one slot holds, by chain and block.
#[derive(Default)]
struct Naive {
    /// Requests in flight, and whether one was confirmed.
    predicted: HashMap<Block, (u32, bool)>,
    reported: HashMap<Block, Places>,
}

impl Naive {
    fn take(&mut self, step: &Step) {
        let Step { id, from, to, .. } = *step;
        let place = (step.medium, step.group);
        match step.act {
            Act::Dispatch => {
                for block in 0..to {
                    self.predicted.entry((id, block)).or_default().0 += 1;
                }
            }
            Act::Confirm => {
                for block in 0..to {
                    let state = self.predicted.entry((id, block)).or_default();
                    *state = (state.0.saturating_sub(1), true);
                }
            }
            Act::Withdraw => {
                for (_, state) in self.predicted_of(id, to) {
                    state.0 = state.0.saturating_sub(1);
                }
                self.predicted.retain(|_, state| *state != (0, false));
            }
            Act::Store if from > 0 && !self.reported.contains_key(&(id, from - 1)) => {}
            Act::Store => {
                for block in from..to {
                    self.reported.entry((id, block)).or_default().insert(place);
                }
            }
            Act::Promote => {
                for (_, places) in self.reported_of(id, 0, to) {
                    places.insert(place);
                }
            }
            Act::Remove => {
                for (_, places) in self.reported_of(id, from, to) {
                    let stays = |at: &(Medium, Option<u32>)| {
                        at.0 != place.0 || (place.1.is_some() && at.1 != place.1)
                    };
                    places.retain(stays);
                }
                self.reported.retain(|_, places| !places.is_empty());
            }
            Act::Clear | Act::Replace => *self = Self::default(),
        }
    }

    fn predicted_of(
        &mut self,
        id: u32,
        to: usize,
    ) -> impl Iterator<Item = (&Block, &mut (u32, bool))> {
        let all = self.predicted.iter_mut();
        all.filter(move |((of, block), _)| *of == id && *block < to)
    }

    fn reported_of(
        &mut self,
        id: u32,
        from: usize,
        to: usize,
    ) -> impl Iterator<Item = (&Block, &mut Places)> {
        let all = self.reported.iter_mut();
        all.filter(move |((of, block), _)| *of == id && (from..to).contains(block))
    }

    fn holds(&self, id: u32, block: usize) -> bool {
        let mut places = self.reported.get(&(id, block)).into_iter().flatten();
        let fast = places.any(|place| place.0 != Medium::Storage);
        fast || self.predicted.contains_key(&(id, block))
    }
}

fn take(index: &Index, slots: &mut [Slot], step: &Step) {
    let Step { id, from, to, .. } = *step;
    let slot = slots[step.slot];
    match step.act {
        Act::Dispatch => index.dispatched(slot, &chain(id, to)),
        Act::Confirm => index.confirmed(slot, &chain(id, to)),
        Act::Withdraw => index.withdrawn(slot, &chain(id, to)),
        Act::Store => {
            let whole = run(id, to);
            let part = Stored {
                hashes: whole.hashes[from..].to_vec(),
                parent: from.checked_sub(1).map(|before| whole.hashes[before]),
                tokens: whole.tokens[from * 16..].to_vec(),
                medium: step.medium,
                group: step.group,
                ..whole
            };
            store(index, slot, part);
        }
        Act::Promote => {
            let part = Stored {
                tokens: Vec::new(),
                medium: step.medium,
                group: step.group,
                ..run(id, to)
            };
            store(index, slot, part);
        }
        Act::Remove => index.apply(slot, &removed(id, from..to, step.medium, step.group)),
        Act::Clear => index.clear(slot),
        Act::Replace => {
            index.detach(slot);
            slots[step.slot] = index.attach().unwrap();
        }
    }
}

/// Chains are asked for in every length, so that each block is looked at as the last one. Looks prove the last block
/// of what is credited and not each before it, so holes may be passed over.
fn compare(index: &Index, slots: &[Slot], naive: &[Naive]) -> Result<(), TestCaseError> {
    for (id, depth) in (0..3).flat_map(|id| (1..16).map(move |depth| (id, depth))) {
        let matched = index.matched(&chain(id, depth));
        for (slot, naive) in slots.iter().zip(naive) {
            let blocks = matched.blocks(*slot) as usize;
            let holds = |block| naive.holds(id, block);
            let whole = (0..depth).take_while(|block| holds(*block)).count();
            prop_assert!(blocks >= whole);
            prop_assert_eq!(blocks == 0, whole == 0);
            prop_assert!(blocks == 0 || holds(blocks - 1));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn holds_what_maps_hold(steps in steps()) {
        let index = index();
        let mut slots: Vec<_> = (0..SLOTS).map(|_| index.attach().unwrap()).collect();
        let mut naive: Vec<_> = (0..SLOTS).map(|_| Naive::default()).collect();
        for step in &steps {
            take(&index, &mut slots, step);
            naive[step.slot].take(step);
        }
        compare(&index, &slots, &naive)?;
        let predicted: usize = naive.iter().map(|naive| naive.predicted.len()).sum();
        let reported: usize = naive.iter().map(|naive| naive.reported.len()).sum();
        let stats = index.stats();
        prop_assert_eq!((stats.predicted, stats.reported), (predicted, reported));
    }
}
