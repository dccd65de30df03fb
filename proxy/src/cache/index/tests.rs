use super::*;

fn index() -> Index {
    Index::new(IndexBudget::in_virtual_time(64 << 20))
}

fn chain(id: u32, blocks: usize) -> Chain {
    let tokens: Vec<_> = (0..blocks as u32 * 16).map(|at| at ^ (id << 20)).collect();
    Chain::of_tokens(0, &tokens, 16)
}

#[test]
fn a_dispatched_prompt_counts_at_once() {
    let index = index();
    let (one, two) = (index.attach().unwrap(), index.attach().unwrap());
    let prompt = chain(1, 600);
    index.dispatched(one, &prompt);
    let matched = index.matched(&prompt);
    assert_eq!((matched.blocks(one), matched.blocks(two)), (600, 0));
    index.withdrawn(one, &prompt);
    assert_eq!(index.matched(&prompt).blocks(one), 0);
    assert_eq!(index.stats().predicted, 0);
}
