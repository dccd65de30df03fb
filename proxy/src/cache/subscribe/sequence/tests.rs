use proptest::prelude::*;

use super::*;

/// A publisher's batch: its process and number stand for its content.
type Batch = (u64, u64);

fn fingerprint(batch: Batch) -> u64 {
    batch.0 << 32 | batch.1
}

/// A publisher with a replay buffer of `kept` batches, none with zero.
struct Publisher {
    process: u64,
    published: u64,
    kept: u64,
}

impl Publisher {
    fn replay(&self, from: u64) -> impl Iterator<Item = Batch> + use<> {
        let oldest = self.published.saturating_sub(self.kept);
        let process = self.process;
        (from.max(oldest)..self.published).map(move |number| (process, number))
    }
}

/// What a follower does with what the sequence says, and what came of it.
#[derive(Default)]
struct Reader {
    sequence: Sequence,
    applied: Vec<Batch>,
}

impl Reader {
    fn live(&mut self, batch: Batch, publisher: &Publisher) {
        let mut meaning = self.sequence.live(batch.1);
        if meaning == Live::Restart {
            self.applied.clear();
            meaning = self.sequence.live(batch.1);
        }
        match meaning {
            Live::Next => self.apply(batch),
            Live::Known => {}
            Live::Restart => unreachable!("it has begun anew"),
            Live::Gap => {
                self.catch_up(publisher);
                match self.sequence.resume(batch.1) {
                    Resume::Next => self.apply(batch),
                    Resume::Known => {}
                    Resume::Hole => {
                        self.applied.clear();
                        self.apply(batch);
                    }
                }
            }
        }
    }

    fn apply(&mut self, batch: Batch) {
        self.sequence.advance(batch.1, fingerprint(batch));
        self.applied.push(batch);
    }

    fn catch_up(&mut self, publisher: &Publisher) {
        if publisher.kept > 0 && self.replay(publisher) {
            self.applied.clear();
            assert!(!self.replay(publisher), "foreign twice");
        }
    }

    fn replay(&mut self, publisher: &Publisher) -> bool {
        for batch in publisher.replay(self.sequence.replay_from()) {
            match self.sequence.replayed(batch.1, fingerprint(batch)) {
                Replayed::Next => self.apply(batch),
                Replayed::Known => {}
                Replayed::Hole => {
                    self.applied.clear();
                    self.apply(batch);
                }
                Replayed::Foreign => return true,
            }
        }
        self.sequence.replay_ended()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Publish {
        lost: bool,
    },
    /// Disconnected while so many batches were published, perhaps by a new process.
    Away {
        batches: u64,
        restart: bool,
    },
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        97 => (0..100u32).prop_map(|roll| Act::Publish { lost: roll == 0 }),
        3 => (0..20u64, any::<bool>()).prop_map(|(batches, restart)| Act::Away { batches, restart }),
    ];
    prop::collection::vec(act, 1..600)
}

fn run(acts: &[Act], kept: u64) -> (Publisher, Reader) {
    let mut publisher = Publisher {
        process: 0,
        published: 0,
        kept,
    };
    let mut reader = Reader::default();
    for act in acts {
        match *act {
            Act::Publish { lost } => {
                let batch = (publisher.process, publisher.published);
                publisher.published += 1;
                if !lost {
                    reader.live(batch, &publisher);
                }
            }
            Act::Away { batches, restart } => {
                if restart {
                    publisher.process += 1;
                    publisher.published = 0;
                }
                publisher.published += batches;
                reader.catch_up(&publisher);
            }
        }
    }
    (publisher, reader)
}

proptest! {
    #[test]
    fn loss_with_replay_ends_where_no_loss_would(acts in acts()) {
        let (publisher, mut reader) = run(&acts, u64::MAX);
        // The last ones may be lost, and are noticed with the next one.
        reader.catch_up(&publisher);
        let whole: Vec<Batch> = publisher.replay(0).collect();
        prop_assert_eq!(reader.applied, whole);
        prop_assert!(reader.sequence.is_complete());
    }

    #[test]
    fn a_short_replay_leaves_a_run_without_holes(acts in acts(), kept in 1..8u64) {
        let (publisher, reader) = run(&acts, kept);
        assert_is_a_run(&reader, &publisher)?;
    }

    #[test]
    fn without_replay_what_is_applied_has_no_holes(acts in acts()) {
        let (publisher, reader) = run(&acts, 0);
        // A process that is not noticed to be new must have continued the old one's numbers by chance.
        let numbers: Vec<u64> = reader.applied.iter().map(|batch| batch.1).collect();
        prop_assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        prop_assert!(numbers.last().is_none_or(|&last| publisher.published > 0 || last > 0 || numbers.len() == 1));
    }

    #[test]
    fn no_numbers_panic(numbers in prop::collection::vec((any::<bool>(), prop_oneof![0..9u64, any::<u64>()]), 0..99)) {
        let mut sequence = Sequence::default();
        for (live, number) in numbers {
            if live {
                sequence.live(number);
                sequence.resume(number);
            } else {
                sequence.replay_from();
                sequence.replayed(number, number);
            }
            sequence.advance(number, number);
        }
    }
}

fn assert_is_a_run(reader: &Reader, publisher: &Publisher) -> Result<(), TestCaseError> {
    let Some(&(process, first)) = reader.applied.first() else {
        return Ok(());
    };
    let run: Vec<Batch> = (first..)
        .map(|number| (process, number))
        .take(reader.applied.len())
        .collect();
    prop_assert_eq!(&reader.applied, &run);
    prop_assert!(process <= publisher.process);
    prop_assert!(first == 0 || !reader.sequence.is_complete());
    Ok(())
}

#[test]
fn a_restart_that_has_overtaken_is_known_by_its_fingerprint() {
    let mut publisher = Publisher {
        process: 0,
        published: 0,
        kept: 100,
    };
    let mut reader = Reader::default();
    for number in 0..5 {
        publisher.published += 1;
        reader.live((0, number), &publisher);
    }
    let publisher = Publisher {
        process: 1,
        published: 9,
        kept: 100,
    };
    reader.live((1, 8), &publisher);
    assert_eq!(reader.applied, publisher.replay(0).collect::<Vec<_>>());
}
