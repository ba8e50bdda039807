//! One claim a test about the coordinator's decisions.

use millstream_protocol::ErrorCode;

use super::*;

const TIMEOUT_MS: i32 = 60_000;

/// A coordinator whose decisions are applied at once, as a shell with an instant log does.
struct Fixture {
    core: TransactionCoordinator,
    log: Vec<TransactionRecord>,
    ended: Vec<EndedTransaction>,
    fresh_id: i64,
}

impl Fixture {
    fn new() -> Self {
        Self {
            core: TransactionCoordinator::new(TransactionConfig::default()),
            log: Vec::new(),
            ended: Vec::new(),
            fresh_id: 100,
        }
    }

    fn take<R>(&mut self, decision: Decision<R>) -> R {
        for record in &decision.records {
            self.core.apply(record);
        }
        self.log.extend(decision.records);
        self.ended.extend(decision.ended);
        decision.response
    }

    fn init(&mut self, now_ms: i64, current: ProducerIdAndEpoch) -> Checked<ProducerIdAndEpoch> {
        self.fresh_id += 1;
        let decision = self.core.init_producer_id(
            now_ms,
            &InitProducerId {
                transactional_id: "t".to_owned(),
                timeout_ms: TIMEOUT_MS,
                current,
                fresh_producer_id: self.fresh_id,
            },
        );
        self.take(decision)
    }

    fn add(&mut self, now_ms: i64, producer: ProducerIdAndEpoch, version: TransactionVersion) -> Checked {
        let request = AddPartitions {
            transactional_id: "t".to_owned(),
            producer,
            partitions: TopicPartitions::from([("a".to_owned(), [0].into())]),
            version,
        };
        let decision = self.core.add_partitions(now_ms, &request);
        self.take(decision)
    }

    fn end(
        &mut self,
        now_ms: i64,
        producer: ProducerIdAndEpoch,
        outcome: Outcome,
        version: TransactionVersion,
    ) -> Checked<ProducerIdAndEpoch> {
        self.fresh_id += 1;
        let request = EndTransaction {
            transactional_id: "t".to_owned(),
            producer,
            outcome,
            version,
            fresh_producer_id: self.fresh_id,
        };
        let decision = self.core.end(now_ms, &request);
        self.take(decision)
    }

    /// Writes all markers that wait.
    fn write_markers(&mut self, now_ms: i64) {
        for ended in std::mem::take(&mut self.ended) {
            let decision = self
                .core
                .markers_written(now_ms, &ended.transactional_id, ended.producer, ended.prepared_ms);
            self.take(decision);
        }
    }

    fn state(&self) -> TransactionState {
        self.core.describe("t").unwrap().state
    }
}

const fn producer(id: i64, epoch: i16) -> ProducerIdAndEpoch {
    ProducerIdAndEpoch { id, epoch }
}

use self::{Outcome::*, TransactionVersion::*};

#[test]
fn a_transaction_goes_from_begin_to_complete() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    assert_eq!(p, producer(101, 0));
    fixture.add(1, p, One).unwrap();
    assert_eq!(fixture.state(), TransactionState::Ongoing);
    assert_eq!(fixture.core.verify("t", p, "a", 0), Ok(()));
    assert_eq!(fixture.core.verify("t", p, "a", 1), Err(ErrorCode::TransactionAbortable));
    assert_eq!(fixture.end(2, p, Commit, One), Ok(p));
    assert_eq!(fixture.state(), TransactionState::PrepareCommit);
    assert_eq!(fixture.add(3, p, One), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(fixture.init(3, ProducerIdAndEpoch::NONE), Err(ErrorCode::ConcurrentTransactions));
    assert!(fixture.ended[0].commit && fixture.ended[0].producer == p);
    fixture.write_markers(4);
    assert_eq!(fixture.state(), TransactionState::CompleteCommit);
    assert_eq!(fixture.end(5, p, Commit, One), Ok(p), "a retry");
    assert_eq!(fixture.end(5, p, Abort, One), Err(ErrorCode::InvalidTxnState));
}

#[test]
fn version_two_raises_the_epoch_with_every_end_and_knows_a_retry() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    fixture.add(1, p, Two).unwrap();
    let next = fixture.end(2, p, Commit, Two).unwrap();
    assert_eq!(next, producer(p.id, 1));
    assert_eq!(
        fixture.ended[0].producer, next,
        "markers carry the new epoch and so fence what is late"
    );
    assert_eq!(fixture.end(2, p, Commit, Two), Err(ErrorCode::ConcurrentTransactions));
    fixture.write_markers(3);
    assert_eq!(
        fixture.end(4, p, Commit, Two),
        Ok(next),
        "the answer was lost and the client asks again"
    );
    assert_eq!(fixture.end(4, p, Abort, Two), Err(ErrorCode::InvalidTxnState));
    assert_eq!(
        fixture.add(5, p, Two),
        Err(ErrorCode::ProducerFenced),
        "a delayed write of the old epoch"
    );
    assert_eq!(
        fixture.end(5, next, Commit, Two),
        Err(ErrorCode::InvalidTxnState),
        "nothing was begun"
    );
    assert_eq!(
        fixture.end(5, next, Abort, Two),
        Ok(producer(p.id, 2)),
        "an abort without partitions is allowed"
    );
    fixture.write_markers(6);
    assert_eq!(fixture.state(), TransactionState::CompleteAbort);
}

#[test]
fn a_new_instance_aborts_the_open_transaction_and_fences_the_old_one() {
    let mut fixture = Fixture::new();
    let old = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    fixture.add(1, old, One).unwrap();
    assert_eq!(fixture.init(2, ProducerIdAndEpoch::NONE), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(fixture.state(), TransactionState::PrepareAbort);
    assert_eq!(fixture.end(2, old, Commit, One), Err(ErrorCode::ProducerFenced));
    fixture.write_markers(3);
    let new = fixture.init(4, ProducerIdAndEpoch::NONE).unwrap();
    assert_eq!(new, producer(old.id, 2), "epoch 1 fenced, and nobody ever had it");
    assert_eq!(fixture.add(5, old, One), Err(ErrorCode::ProducerFenced));
}

#[test]
fn a_timeout_aborts_and_fences() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    fixture.add(10, p, One).unwrap();
    assert_eq!(fixture.core.next_deadline(), Some(10 + i64::from(TIMEOUT_MS)));
    let early = fixture.core.tick(9 + i64::from(TIMEOUT_MS));
    assert_eq!(early, Decision::default());
    let late = fixture.core.tick(10 + i64::from(TIMEOUT_MS));
    fixture.take(late);
    assert_eq!(fixture.state(), TransactionState::PrepareAbort);
    assert_eq!(fixture.ended[0].producer, producer(p.id, 1));
    fixture.write_markers(70_011);
    assert_eq!(fixture.end(70_012, p, Commit, One), Err(ErrorCode::ProducerFenced));
}

#[test]
fn after_a_timeout_a_producer_of_version_two_goes_on_where_it_hears_of_it() {
    let timeout = i64::from(TIMEOUT_MS);
    for goes_on_by_init in [false, true] {
        let mut fixture = Fixture::new();
        let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
        fixture.add(10, p, Two).unwrap();
        let late = fixture.core.tick(10 + timeout);
        fixture.take(late);
        fixture.write_markers(11 + timeout);
        assert_eq!(fixture.end(12 + timeout, p, Commit, Two), Err(ErrorCode::InvalidTxnState));
        assert_eq!(fixture.add(12 + timeout, p, Two), Err(ErrorCode::ProducerFenced));
        let next = if goes_on_by_init {
            fixture.init(13 + timeout, p)
        } else {
            fixture.end(13 + timeout, p, Abort, Two)
        };
        assert_eq!(next, Ok(producer(p.id, 1)));
        assert_eq!(fixture.add(14 + timeout, producer(p.id, 1), Two), Ok(()));
    }
}

#[test]
fn a_fenced_producer_is_never_given_the_epoch_of_the_instance_after_it() {
    for version in [One, Two] {
        let mut fixture = Fixture::new();
        let old = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
        let new = fixture.init(1, ProducerIdAndEpoch::NONE).unwrap();
        fixture.add(2, new, version).unwrap();
        let mut held = vec![new, fixture.end(3, new, Abort, version).unwrap()];
        fixture.write_markers(4);
        for outcome in [Abort, Commit] {
            assert_eq!(
                fixture.end(5, old, outcome, Two),
                Err(ErrorCode::ProducerFenced),
                "{version:?} {outcome:?}"
            );
        }
        assert_eq!(fixture.init(6, old), Err(ErrorCode::ProducerFenced));
        // While the new one's transaction is open, and after a third instance took over.
        let current = *held.last().unwrap();
        fixture.add(7, current, version).unwrap();
        assert_eq!(fixture.end(8, old, Abort, Two), Err(ErrorCode::ProducerFenced));
        assert_eq!(fixture.init(9, ProducerIdAndEpoch::NONE), Err(ErrorCode::ConcurrentTransactions));
        fixture.write_markers(10);
        held.push(fixture.init(11, ProducerIdAndEpoch::NONE).unwrap());
        assert_eq!(fixture.end(12, current, Abort, Two), Err(ErrorCode::ProducerFenced));
        assert_eq!(fixture.init(12, current), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn an_epoch_that_only_fences_is_given_to_nobody() {
    let timeout = i64::from(TIMEOUT_MS);
    let mut fixture = Fixture::new();
    let first = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    let mut record = fixture.log[0].clone();
    record.value.as_mut().unwrap().producer.epoch = i16::MAX - 1;
    fixture.core.apply(&record);
    let last = producer(first.id, i16::MAX - 1);
    fixture.add(1, last, Two).unwrap();
    let late = fixture.core.tick(1 + timeout);
    fixture.take(late);
    fixture.write_markers(2 + timeout);
    assert_eq!(fixture.end(3 + timeout, last, Abort, Two), Err(ErrorCode::ProducerFenced));
    let next = fixture.init(4 + timeout, last).unwrap();
    assert!(next.id != last.id && next.epoch == 0, "{next:?}");
    assert_eq!(fixture.add(5 + timeout, next, Two), Ok(()));
}

#[test]
fn a_producer_that_names_itself_gets_the_next_epoch_and_its_retry_the_same() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    let next = fixture.init(1, p).unwrap();
    assert_eq!(next, producer(p.id, 1));
    assert_eq!(fixture.init(2, p), Ok(next), "KIP-360: a lost answer");
    let newest = fixture.init(3, next).unwrap();
    assert_eq!(newest, producer(p.id, 2));
    assert_eq!(fixture.init(4, p), Err(ErrorCode::ProducerFenced));
    assert_eq!(fixture.init(4, producer(p.id + 50, 0)), Err(ErrorCode::ProducerFenced));
}

#[test]
fn used_up_epochs_give_a_new_producer_id() {
    let mut fixture = Fixture::new();
    let first = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    let mut record = fixture.log[0].clone();
    let transaction = record.value.as_mut().unwrap();
    transaction.producer.epoch = i16::MAX - 1;
    fixture.core.apply(&record);
    let rotated = fixture.init(1, ProducerIdAndEpoch::NONE).unwrap();
    assert!(rotated.id != first.id && rotated.epoch == 0);

    fixture.core.apply(&record);
    let last = producer(first.id, i16::MAX - 1);
    fixture.add(2, last, Two).unwrap();
    let next = fixture.end(3, last, Commit, Two).unwrap();
    assert!(next.id != first.id && next.epoch == 0);
    assert_eq!(fixture.ended[0].producer, producer(first.id, i16::MAX));
    fixture.write_markers(4);
    assert_eq!(fixture.core.describe("t").unwrap().producer, next);
    assert_eq!(fixture.end(5, last, Commit, Two), Ok(next), "a retry across the change of id");
    assert_eq!(fixture.add(6, next, Two), Ok(()));
}

#[test]
fn timeouts_are_bounded() {
    let mut core = TransactionCoordinator::new(TransactionConfig {
        timeout_ms_max: 1_000,
        ..TransactionConfig::default()
    });
    let mut init = |timeout_ms| {
        let request = InitProducerId {
            transactional_id: "t".to_owned(),
            timeout_ms,
            current: ProducerIdAndEpoch::NONE,
            fresh_producer_id: 1,
        };
        core.init_producer_id(0, &request).response
    };
    assert_eq!(init(1_000), Ok(producer(1, 0)));
    for bad in [1_001, 0, -1] {
        assert_eq!(init(bad), Err(ErrorCode::InvalidTransactionTimeout));
    }
}

#[test]
fn unknown_ids_and_foreign_producers_are_refused() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.add(0, producer(1, 0), One), Err(ErrorCode::InvalidProducerIdMapping));
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    assert_eq!(fixture.add(1, producer(p.id + 1, 0), One), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(fixture.add(1, producer(p.id, 1), One), Err(ErrorCode::ProducerFenced));
    assert_eq!(fixture.end(1, p, Commit, One), Err(ErrorCode::InvalidTxnState));
}

#[test]
fn a_replay_asks_for_the_markers_again() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    fixture.add(1, p, One).unwrap();
    fixture.end(2, p, Abort, One).unwrap();
    let mut again = TransactionCoordinator::new(TransactionConfig::default());
    for record in &fixture.log {
        let (key, value) = (record.encode_key(), record.encode_value());
        again.apply(&TransactionRecord::decode(&key, value.as_deref()).unwrap());
    }
    assert_eq!(again.loaded(3).ended, fixture.ended);
    assert_eq!(again.hard_state(), fixture.core.hard_state());
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    let mut fixture = Fixture::new();
    let decision = fixture.core.loaded(0);
    fixture.take(decision);
    fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    let expiration_ms = TransactionConfig::default().id_expiration_ms;
    let decision = fixture.core.tick(expiration_ms - 1);
    fixture.take(decision);
    assert!(fixture.core.describe("t").is_some());
    let decision = fixture.core.tick(2 * expiration_ms);
    fixture.take(decision);
    assert!(fixture.core.describe("t").is_none());
}

#[test]
fn filters_choose_what_is_listed() {
    let mut fixture = Fixture::new();
    let p = fixture.init(0, ProducerIdAndEpoch::NONE).unwrap();
    fixture.add(100, p, One).unwrap();
    let all = TransactionFilter {
        duration_ms: -1,
        ..TransactionFilter::default()
    };
    let longer_than = |duration_ms| TransactionFilter {
        duration_ms,
        ..all.clone()
    };
    let count = |filter: &TransactionFilter| fixture.core.list(1_000, filter).len();
    assert_eq!(count(&all), 1);
    let states = |states: &[TransactionState]| TransactionFilter {
        states: states.to_vec(),
        ..all.clone()
    };
    assert_eq!(count(&states(&[TransactionState::Ongoing])), 1);
    assert_eq!(count(&states(&[TransactionState::Empty])), 0);
    let of = |id| TransactionFilter {
        producer_ids: [id].into(),
        ..all.clone()
    };
    assert_eq!((count(&of(p.id)), count(&of(p.id + 1))), (1, 0));
    assert_eq!((count(&longer_than(899)), count(&longer_than(900))), (1, 0));
    fixture.end(200, p, Commit, One).unwrap();
    assert_eq!(fixture.core.list(1_000, &longer_than(899)).len(), 1, "it ends, and has not ended");
    fixture.write_markers(300);
    assert!(fixture.core.list(1_000, &longer_than(0)).is_empty());
}
