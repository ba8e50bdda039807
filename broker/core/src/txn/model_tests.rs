//! Random histories against invariants: one transaction at a time, epochs never fall, a decided outcome never changes, and whatever is
//! replayed is what was live.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Init { named: bool },
    Add { instance: usize, version_two: bool },
    End { instance: usize, commit: bool, version_two: bool },
    WriteMarkers,
    Wait { ms: i64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        any::<bool>().prop_map(|named| Step::Init { named }),
        (0..4_usize, any::<bool>()).prop_map(|(instance, version_two)| Step::Add { instance, version_two }),
        (0..4_usize, any::<bool>(), any::<bool>()).prop_map(|(instance, commit, version_two)| Step::End {
            instance,
            commit,
            version_two
        }),
        Just(Step::WriteMarkers),
        (1..40_000_i64).prop_map(|ms| Step::Wait { ms }),
        Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

struct World {
    core: TransactionCoordinator,
    log: Vec<TransactionRecord>,
    waiting: Vec<EndedTransaction>,
    /// Producers that clients were given, newest last.
    given: Vec<ProducerIdAndEpoch>,
    now_ms: i64,
    next_id: i64,
}

impl World {
    fn take<R>(&mut self, decision: Decision<R>) -> R {
        for record in &decision.records {
            let before = self.core.describe(&record.transactional_id).cloned();
            self.core.apply(record);
            check_edge(before.as_ref(), record.value.as_ref());
        }
        self.log.extend(decision.records);
        self.waiting.extend(decision.ended);
        decision.response
    }

    fn instance(&self, back: usize) -> ProducerIdAndEpoch {
        self.given
            .iter()
            .rev()
            .nth(back)
            .copied()
            .unwrap_or(ProducerIdAndEpoch { id: 1, epoch: 0 })
    }

    fn fresh(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id
    }

    fn run(&mut self, step: Step) {
        let id = || "t".to_owned();
        match step {
            Step::Init { named } => {
                let request = InitProducerId {
                    transactional_id: id(),
                    timeout_ms: 60_000,
                    current: if named { self.instance(0) } else { ProducerIdAndEpoch::NONE },
                    fresh_producer_id: self.fresh(),
                };
                let decision = self.core.init_producer_id(self.now_ms, &request);
                if let Ok(producer) = self.take(decision) {
                    self.given.push(producer);
                }
            }
            Step::Add { instance, version_two } => {
                let producer = self.instance(instance);
                let request = AddPartitions {
                    transactional_id: id(),
                    producer,
                    partitions: TopicPartitions::from([("a".to_owned(), [0].into())]),
                    version: version(version_two),
                };
                let decision = self.core.add_partitions(self.now_ms, &request);
                if self.take(decision).is_ok() {
                    let current = self.core.describe("t").map(|transaction| transaction.producer);
                    assert_eq!(current, Some(producer), "only the current producer may add partitions");
                }
            }
            Step::End {
                instance,
                commit,
                version_two,
            } => {
                let request = EndTransaction {
                    transactional_id: id(),
                    producer: self.instance(instance),
                    outcome: if commit { Outcome::Commit } else { Outcome::Abort },
                    version: version(version_two),
                    fresh_producer_id: self.fresh(),
                };
                let decision = self.core.end(self.now_ms, &request);
                let decides = !decision.records.is_empty();
                if let Ok(producer) = self.take(decision) {
                    let state = self.core.describe("t").map(|transaction| transaction.state);
                    let wanted: &[TransactionState] = if commit {
                        &[TransactionState::PrepareCommit, TransactionState::CompleteCommit]
                    } else {
                        &[TransactionState::PrepareAbort, TransactionState::CompleteAbort]
                    };
                    assert!(
                        state.is_some_and(|state| wanted.contains(&state)),
                        "answered {wanted:?}, is {state:?}"
                    );
                    if decides && version_two {
                        self.given.push(producer);
                    }
                }
            }
            Step::WriteMarkers => {
                for ended in std::mem::take(&mut self.waiting) {
                    let decision = self
                        .core
                        .markers_written(self.now_ms, &ended.transactional_id, ended.producer, ended.prepared_ms);
                    self.take(decision);
                }
            }
            Step::Wait { ms } => {
                self.now_ms += ms;
                let decision = self.core.tick(self.now_ms);
                self.take(decision);
            }
            Step::Restart => {
                let mut core = TransactionCoordinator::new(TransactionConfig::default());
                for record in &self.log {
                    let value = record.encode_value();
                    core.apply(&TransactionRecord::decode(&record.encode_key(), value.as_deref()).unwrap());
                }
                // Which epoch a retry names is soft state, as in Kafka.
                let soft = |transaction: &Transaction| Transaction {
                    last_epoch: -1,
                    ..transaction.clone()
                };
                let replayed: Vec<_> = core.hard_state().values().map(soft).collect();
                let live: Vec<_> = self.core.hard_state().values().map(soft).collect();
                assert_eq!(replayed, live);
                self.core = core;
                self.waiting.clear();
                let decision = self.core.loaded(self.now_ms);
                self.take(decision);
            }
        }
        let is_ending = self.core.describe("t").is_some_and(|transaction| transaction.state.is_ending());
        assert_eq!(
            is_ending,
            !self.waiting.is_empty(),
            "markers wait exactly while a transaction is ending"
        );
    }
}

fn version(two: bool) -> TransactionVersion {
    if two { TransactionVersion::Two } else { TransactionVersion::One }
}

/// The table of the module doc.
fn check_edge(before: Option<&Transaction>, after: Option<&Transaction>) {
    use TransactionState::*;
    let (Some(before), Some(after)) = (before, after) else { return };
    let allowed: &[TransactionState] = match before.state {
        Empty => &[Empty, Ongoing, PrepareAbort],
        Ongoing => &[Ongoing, PrepareCommit, PrepareAbort],
        PrepareCommit => &[CompleteCommit],
        PrepareAbort => &[CompleteAbort],
        CompleteCommit | CompleteAbort => &[Empty, Ongoing, PrepareAbort],
    };
    assert!(allowed.contains(&after.state), "{} to {}", before.state.name(), after.state.name());
    let order = |transaction: &Transaction| (transaction.producer.id, transaction.producer.epoch);
    assert!(
        order(after) >= order(before),
        "the producer goes from {:?} to {:?}",
        before.producer,
        after.producer
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
    #[test]
    fn histories_keep_the_invariants(steps in steps()) {
        let mut world = World {
            core: TransactionCoordinator::new(TransactionConfig::default()),
            log: Vec::new(),
            waiting: Vec::new(),
            given: Vec::new(),
            now_ms: 0,
            next_id: 0,
        };
        let decision = world.core.loaded(0);
        world.take(decision);
        for step in steps {
            world.run(step);
        }
    }
}
