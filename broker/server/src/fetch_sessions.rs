//! Incremental fetch sessions (KIP-227): the broker remembers what a consumer fetches, so that requests and answers hold only changes.
//!
//! | request (session id, epoch) | answer |
//! |---|---|
//! | (any, -1) | no session; an existing one is closed |
//! | (any, 0) | a new session with the request's partitions, and all of them in the answer |
//! | (known, expected) | the session's partitions after the request's changes; only those with news in the answer |
//! | (known, other) | INVALID_FETCH_SESSION_EPOCH |
//! | (unknown, > 0) | FETCH_SESSION_ID_NOT_FOUND |

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_protocol::{
    ErrorCode,
    messages::{FetchRequest, fetch_request::FetchPartition},
};
use uuid::Uuid;

/// The epoch of a request that wants no session.
const SESSIONLESS_EPOCH: i32 = -1;
/// The epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;
/// A session that was used within this time is not evicted for a new one.
const EVICTION_MS: i64 = 120_000;

/// A partition as a client names it: by topic name before version 13, by topic id since.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FetchKey {
    /// One copy for all partitions that a request names under it.
    pub topic: Arc<str>,
    pub topic_id: Uuid,
    pub partition: i32,
}

/// What to fetch from a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchWish {
    pub offset: i64,
    pub max_bytes: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

/// What the client was last told of a partition besides records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub high_watermark: i64,
    pub log_start_offset: i64,
}

#[derive(Debug)]
struct Cached {
    wish: FetchWish,
    told: Option<Told>,
    turn: u64,
}

/// What a consumer fetches.
#[derive(Debug)]
struct Session {
    epoch: i32,
    used_ms: i64,
    partitions: BTreeMap<FetchKey, Cached>,
    next_turn: u64,
}

impl Session {
    fn upsert(&mut self, key: FetchKey, wish: FetchWish) {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.partitions
            .entry(key)
            .and_modify(|cached| cached.wish = wish)
            .or_insert(Cached { wish, told: None, turn });
    }

    /// The partitions in turn: those that were served longest ago first.
    fn in_turn(&self) -> Vec<(FetchKey, FetchWish)> {
        let mut partitions: Vec<_> = self
            .partitions
            .iter()
            .map(|(key, cached)| (cached.turn, key.clone(), cached.wish))
            .collect();
        partitions.sort_by_key(|(turn, ..)| *turn);
        partitions.into_iter().map(|(_, key, wish)| (key, wish)).collect()
    }
}

/// A request with its session resolved.
#[derive(Debug)]
pub(crate) struct FetchPlan {
    /// What to fetch, in turn.
    pub partitions: Vec<(FetchKey, FetchWish)>,
    /// Goes into the response.
    pub session_id: i32,
    session: Option<Arc<Mutex<Session>>>,
    incremental: bool,
}

impl FetchPlan {
    /// Whether a partition's result goes into the response, and a note that it did.
    pub fn tells(&self, key: &FetchKey, told: Told, has_records: bool, has_error: bool) -> bool {
        let Some(session) = &self.session else { return true };
        let mut session = session.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = session.next_turn;
        let Some(cached) = session.partitions.get_mut(key) else {
            return true;
        };
        let news = has_records || has_error || cached.told != Some(told);
        // An error is told again next time, so that the client hears when it is over.
        cached.told = (!has_error).then_some(told);
        if has_records {
            cached.turn = turn;
            session.next_turn += 1;
        }
        news || !self.incremental
    }
}

/// The sessions of a broker, at most as many as there are slots.
#[derive(Debug)]
pub(crate) struct FetchSessions {
    slots: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    sessions: BTreeMap<i32, Arc<Mutex<Session>>>,
    last_id: i32,
}

impl FetchSessions {
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            state: Mutex::default(),
        }
    }

    /// Resolves a request to what it fetches.
    pub fn plan(&self, request: &FetchRequest, now_ms: i64) -> Result<FetchPlan, ErrorCode> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if request.session_epoch == SESSIONLESS_EPOCH || request.session_epoch == INITIAL_EPOCH {
            state.sessions.remove(&request.session_id);
            let partitions: Vec<_> = wishes(request).collect();
            if request.session_epoch == SESSIONLESS_EPOCH || partitions.is_empty() || !state.make_room(self.slots, now_ms) {
                return Ok(FetchPlan {
                    partitions,
                    session_id: 0,
                    session: None,
                    incremental: false,
                });
            }
            return Ok(state.create(partitions, now_ms));
        }
        let session = state
            .sessions
            .get(&request.session_id)
            .cloned()
            .ok_or(ErrorCode::FetchSessionIdNotFound)?;
        drop(state);
        let mut guard = session.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.epoch != request.session_epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        // The epoch after the largest is 1: 0 would mean a new session.
        guard.epoch = if guard.epoch == i32::MAX { 1 } else { guard.epoch + 1 };
        guard.used_ms = now_ms;
        for forgotten in &request.forgotten_topics_data {
            let topic = Arc::from(forgotten.topic.as_str());
            for partition in &forgotten.partitions {
                guard.partitions.remove(&key(&topic, forgotten.topic_id, *partition));
            }
        }
        for (key, wish) in wishes(request) {
            guard.upsert(key, wish);
        }
        let partitions = guard.in_turn();
        drop(guard);
        Ok(FetchPlan {
            partitions,
            session_id: request.session_id,
            session: Some(session),
            incremental: true,
        })
    }
}

impl State {
    /// Whether there is a slot for a new session, after evicting the one that was not used for longest.
    fn make_room(&mut self, slots: usize, now_ms: i64) -> bool {
        if self.sessions.len() < slots {
            return true;
        }
        let used_ms = |session: &Arc<Mutex<Session>>| session.lock().unwrap_or_else(PoisonError::into_inner).used_ms;
        let oldest = self.sessions.iter().map(|(id, session)| (used_ms(session), *id)).min();
        match oldest {
            Some((used_ms, id)) if now_ms - used_ms > EVICTION_MS => self.sessions.remove(&id).is_some(),
            _ => false,
        }
    }

    fn create(&mut self, partitions: Vec<(FetchKey, FetchWish)>, now_ms: i64) -> FetchPlan {
        loop {
            self.last_id = if self.last_id == i32::MAX { 1 } else { self.last_id + 1 };
            if !self.sessions.contains_key(&self.last_id) {
                break;
            }
        }
        let mut session = Session {
            epoch: 1,
            used_ms: now_ms,
            partitions: BTreeMap::new(),
            next_turn: 0,
        };
        for (key, wish) in &partitions {
            session.upsert(key.clone(), *wish);
        }
        let session = Arc::new(Mutex::new(session));
        self.sessions.insert(self.last_id, Arc::clone(&session));
        FetchPlan {
            partitions,
            session_id: self.last_id,
            session: Some(session),
            incremental: false,
        }
    }
}

fn key(topic: &Arc<str>, topic_id: Uuid, partition: i32) -> FetchKey {
    FetchKey {
        topic: Arc::clone(topic),
        topic_id,
        partition,
    }
}

fn wishes(request: &FetchRequest) -> impl Iterator<Item = (FetchKey, FetchWish)> {
    request.topics.iter().flat_map(|topic| {
        let name = Arc::from(topic.topic.as_str());
        let wanted = topic.partitions.iter();
        wanted.map(move |partition| (key(&name, topic.topic_id, partition.partition), wish(partition)))
    })
}

fn wish(partition: &FetchPartition) -> FetchWish {
    FetchWish {
        offset: partition.fetch_offset,
        max_bytes: partition.partition_max_bytes,
        current_leader_epoch: partition.current_leader_epoch,
        last_fetched_epoch: partition.last_fetched_epoch,
    }
}

#[cfg(test)]
mod tests {
    use millstream_protocol::{
        KString,
        messages::fetch_request::{FetchTopic, ForgottenTopic},
    };

    use super::*;

    fn request(session_id: i32, session_epoch: i32, partitions: &[(i32, i64)]) -> FetchRequest {
        let partitions = partitions.iter().map(|(partition, fetch_offset)| FetchPartition {
            partition: *partition,
            fetch_offset: *fetch_offset,
            ..FetchPartition::default()
        });
        let topic = FetchTopic {
            topic: KString::from_static("t"),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        FetchRequest {
            session_id,
            session_epoch,
            topics: vec![topic],
            ..FetchRequest::default()
        }
    }

    fn offsets(plan: &FetchPlan) -> Vec<(i32, i64)> {
        plan.partitions.iter().map(|(key, wish)| (key.partition, wish.offset)).collect()
    }

    const TOLD: Told = Told {
        high_watermark: 5,
        log_start_offset: 0,
    };

    #[test]
    fn a_session_remembers_changes_and_forgets_on_request() {
        let sessions = FetchSessions::new(10);
        let first = sessions.plan(&request(0, 0, &[(0, 10), (1, 20)]), 0).unwrap();
        assert!(first.session_id > 0);
        let second = sessions.plan(&request(first.session_id, 1, &[(1, 21)]), 0).unwrap();
        assert_eq!(offsets(&second), [(0, 10), (1, 21)]);
        let mut forget = request(first.session_id, 2, &[]);
        forget.forgotten_topics_data = vec![ForgottenTopic {
            topic: KString::from_static("t"),
            partitions: vec![0],
            ..ForgottenTopic::default()
        }];
        assert_eq!(offsets(&sessions.plan(&forget, 0).unwrap()), [(1, 21)]);
    }

    #[test]
    fn wrong_epochs_and_unknown_sessions_are_told_apart() {
        let sessions = FetchSessions::new(10);
        let id = sessions.plan(&request(0, 0, &[(0, 1)]), 0).unwrap().session_id;
        assert_eq!(
            sessions.plan(&request(id, 2, &[]), 0).err(),
            Some(ErrorCode::InvalidFetchSessionEpoch)
        );
        assert_eq!(
            sessions.plan(&request(id + 1, 1, &[]), 0).err(),
            Some(ErrorCode::FetchSessionIdNotFound)
        );
        assert!(sessions.plan(&request(id, 1, &[]), 0).is_ok());
        sessions.plan(&request(id, -1, &[]), 0).unwrap();
        assert_eq!(
            sessions.plan(&request(id, 2, &[]), 0).err(),
            Some(ErrorCode::FetchSessionIdNotFound)
        );
    }

    #[test]
    fn the_epoch_after_the_largest_is_1() {
        let sessions = FetchSessions::new(10);
        let id = sessions.plan(&request(0, 0, &[(0, 1)]), 0).unwrap().session_id;
        {
            let state = sessions.state.lock().unwrap();
            state.sessions[&id].lock().unwrap().epoch = i32::MAX;
        }
        sessions.plan(&request(id, i32::MAX, &[]), 0).unwrap();
        sessions.plan(&request(id, 1, &[]), 0).unwrap();
        assert_eq!(
            sessions.plan(&request(id, 1, &[]), 0).err(),
            Some(ErrorCode::InvalidFetchSessionEpoch)
        );
    }

    #[test]
    fn only_news_is_told_and_the_served_go_to_the_back() {
        let sessions = FetchSessions::new(10);
        let first = sessions.plan(&request(0, 0, &[(0, 0), (1, 0)]), 0).unwrap();
        let key = |index: usize| first.partitions[index].0.clone();
        assert!(first.tells(&key(0), TOLD, false, false) && first.tells(&key(1), TOLD, false, false));
        let second = sessions.plan(&request(first.session_id, 1, &[]), 0).unwrap();
        assert!(!second.tells(&key(1), TOLD, false, false));
        assert!(second.tells(&key(0), TOLD, true, false));
        let third = sessions.plan(&request(first.session_id, 2, &[]), 0).unwrap();
        assert_eq!(offsets(&third), [(1, 0), (0, 0)]);
        assert!(third.tells(&key(0), Told { high_watermark: 6, ..TOLD }, false, false));
    }

    #[test]
    fn without_a_free_slot_a_client_fetches_without_session() {
        let sessions = FetchSessions::new(1);
        let first = sessions.plan(&request(0, 0, &[(0, 1)]), 0).unwrap().session_id;
        assert_eq!(sessions.plan(&request(0, 0, &[(0, 1)]), EVICTION_MS).unwrap().session_id, 0);
        assert!(sessions.plan(&request(0, 0, &[(0, 1)]), EVICTION_MS + 1).unwrap().session_id > first);
        assert_eq!(
            sessions.plan(&request(first, 1, &[]), 0).err(),
            Some(ErrorCode::FetchSessionIdNotFound)
        );
    }
}
