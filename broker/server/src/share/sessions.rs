//! Share sessions: what each member fetches, so that its requests hold only changes, and that they follow each other.
//!
//! | epoch of a request | meaning |
//! |---|---|
//! | 0 | opens a session with the request's partitions; an older one of the member is replaced |
//! | n > 0 | the n-th request of the session |
//! | -1 | closes the session |
//!
//! A session also ends with the connection that opened it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use millstream_protocol::ErrorCode;
use uuid::Uuid;

const INITIAL_EPOCH: i32 = 0;
const FINAL_EPOCH: i32 = -1;
/// A session that was used within this time is not evicted for a new one.
const EVICTION_MS: i64 = 120_000;

/// A topic's partition.
pub(crate) type TopicPartitionId = (Uuid, i32);

#[derive(Debug)]
struct Session {
    /// The other end of the connection that opened it.
    opened_by: SocketAddr,
    next_epoch: i32,
    used_ms: i64,
    /// In the order in which they are served.
    partitions: Vec<TopicPartitionId>,
}

/// What a request says of its session.
#[derive(Debug)]
pub(crate) struct SessionRequest<'a> {
    pub group_id: &'a str,
    pub member_id: &'a str,
    pub epoch: i32,
    pub client: SocketAddr,
    pub added: Vec<TopicPartitionId>,
    pub forgotten: BTreeSet<TopicPartitionId>,
}

/// All sessions, by group and member.
#[derive(Debug)]
pub(crate) struct ShareSessions {
    max: usize,
    sessions: Mutex<BTreeMap<(String, String), Session>>,
}

impl ShareSessions {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            sessions: Mutex::default(),
        }
    }

    /// The partitions to fetch after the request's changes; nothing if it closes the session.
    pub fn fetch(&self, request: SessionRequest<'_>, now_ms: i64) -> Result<Vec<TopicPartitionId>, ErrorCode> {
        let key = (request.group_id.to_owned(), request.member_id.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match request.epoch {
            INITIAL_EPOCH => {
                sessions.remove(&key);
                let mut known = BTreeSet::new();
                let mut partitions = request.added;
                partitions.retain(|partition| known.insert(*partition));
                make_room(&mut sessions, self.max, now_ms)?;
                let session = Session {
                    opened_by: request.client,
                    next_epoch: 1,
                    used_ms: now_ms,
                    partitions,
                };
                Ok(sessions.entry(key).insert_entry(session).get().partitions.clone())
            }
            FINAL_EPOCH => match sessions.remove(&key) {
                Some(_) => Ok(Vec::new()),
                None => Err(ErrorCode::ShareSessionNotFound),
            },
            epoch => {
                let session = next_request(&mut sessions, &key, epoch, now_ms)?;
                session.partitions.retain(|partition| !request.forgotten.contains(partition));
                let mut known: BTreeSet<TopicPartitionId> = session.partitions.iter().copied().collect();
                session
                    .partitions
                    .extend(request.added.into_iter().filter(|partition| known.insert(*partition)));
                // Each is first once in a while.
                if !session.partitions.is_empty() {
                    session.partitions.rotate_left(1);
                }
                Ok(session.partitions.clone())
            }
        }
    }

    /// Ends the sessions that a connection opened; their groups and members.
    pub fn end_of(&self, client: SocketAddr) -> Vec<(String, String)> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = sessions.extract_if(.., |_, session| session.opened_by == client);
        ended.map(|(key, _)| key).collect()
    }

    /// Checks the session of a request that only acknowledges; whether it closes the session.
    pub fn acknowledge(&self, group_id: &str, member_id: &str, epoch: i32, now_ms: i64) -> Result<bool, ErrorCode> {
        let key = (group_id.to_owned(), member_id.to_owned());
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        match epoch {
            INITIAL_EPOCH => Err(ErrorCode::InvalidShareSessionEpoch),
            FINAL_EPOCH => match sessions.remove(&key) {
                Some(_) => Ok(true),
                None => Err(ErrorCode::ShareSessionNotFound),
            },
            epoch => next_request(&mut sessions, &key, epoch, now_ms).map(|_| false),
        }
    }
}

fn next_request<'a>(
    sessions: &'a mut BTreeMap<(String, String), Session>,
    key: &(String, String),
    epoch: i32,
    now_ms: i64,
) -> Result<&'a mut Session, ErrorCode> {
    let session = sessions.get_mut(key).ok_or(ErrorCode::ShareSessionNotFound)?;
    if session.next_epoch != epoch {
        return Err(ErrorCode::InvalidShareSessionEpoch);
    }
    // Epochs wrap to 1, as 0 opens a session.
    session.next_epoch = epoch.checked_add(1).unwrap_or(1);
    session.used_ms = now_ms;
    Ok(session)
}

fn make_room(sessions: &mut BTreeMap<(String, String), Session>, max: usize, now_ms: i64) -> Result<(), ErrorCode> {
    if sessions.len() < max {
        return Ok(());
    }
    let oldest = sessions.iter().min_by_key(|(_, session)| session.used_ms);
    let idle = oldest.filter(|(_, session)| now_ms.saturating_sub(session.used_ms) > EVICTION_MS);
    match idle.map(|(key, _)| key.clone()) {
        Some(key) => {
            sessions.remove(&key);
            Ok(())
        }
        None => Err(ErrorCode::ShareSessionLimitReached),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4711);

    fn fetch(
        sessions: &ShareSessions,
        member_id: &str,
        epoch: i32,
        added: &[i32],
        forgotten: &[i32],
        now_ms: i64,
    ) -> Result<Vec<i32>, ErrorCode> {
        let ids = |numbers: &[i32]| numbers.iter().map(|number| (Uuid::nil(), *number)).collect::<Vec<_>>();
        let request = SessionRequest {
            group_id: "g",
            member_id,
            epoch,
            client: CLIENT,
            added: ids(added),
            forgotten: ids(forgotten).into_iter().collect(),
        };
        let fetched = sessions.fetch(request, now_ms)?;
        Ok(fetched.into_iter().map(|(_, number)| number).collect())
    }

    #[test]
    fn a_session_remembers_its_partitions_and_serves_them_in_turn() {
        let sessions = ShareSessions::new(10);
        assert_eq!(fetch(&sessions, "m", 0, &[0, 1, 2], &[], 0), Ok(vec![0, 1, 2]));
        assert_eq!(fetch(&sessions, "m", 1, &[], &[], 0), Ok(vec![1, 2, 0]));
        assert_eq!(fetch(&sessions, "m", 2, &[3], &[1], 0), Ok(vec![0, 3, 2]));
        assert_eq!(fetch(&sessions, "m", -1, &[], &[], 0), Ok(vec![]));
        assert_eq!(fetch(&sessions, "m", 3, &[], &[], 0), Err(ErrorCode::ShareSessionNotFound));
    }

    #[test]
    fn sessions_end_with_the_connection_that_opened_them() {
        let sessions = ShareSessions::new(10);
        assert!(fetch(&sessions, "m", 0, &[0], &[], 0).is_ok());
        assert!(fetch(&sessions, "n", 0, &[0], &[], 0).is_ok());
        assert_eq!(sessions.end_of(SocketAddr::new(CLIENT.ip(), 1)), []);
        let ended = ["m", "n"].map(|member| ("g".to_owned(), member.to_owned()));
        assert_eq!(sessions.end_of(CLIENT), ended);
        assert_eq!(fetch(&sessions, "m", 1, &[], &[], 0), Err(ErrorCode::ShareSessionNotFound));
    }

    #[test]
    fn requests_must_follow_each_other() {
        let sessions = ShareSessions::new(10);
        assert_eq!(fetch(&sessions, "m", 1, &[], &[], 0), Err(ErrorCode::ShareSessionNotFound));
        assert!(fetch(&sessions, "m", 0, &[0], &[], 0).is_ok());
        assert_eq!(fetch(&sessions, "m", 2, &[], &[], 0), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge("g", "m", 0, 0), Err(ErrorCode::InvalidShareSessionEpoch));
        assert_eq!(sessions.acknowledge("g", "m", 1, 0), Ok(false));
        assert_eq!(sessions.acknowledge("g", "m", -1, 0), Ok(true));
        assert_eq!(sessions.acknowledge("g", "m", -1, 0), Err(ErrorCode::ShareSessionNotFound));
    }

    #[test]
    fn sessions_are_bounded_and_idle_ones_make_way() {
        let sessions = ShareSessions::new(1);
        assert!(fetch(&sessions, "a", 0, &[], &[], 0).is_ok());
        assert_eq!(fetch(&sessions, "b", 0, &[], &[], 1), Err(ErrorCode::ShareSessionLimitReached));
        assert!(fetch(&sessions, "a", 0, &[], &[], 2).is_ok(), "its own does not count");
        assert!(fetch(&sessions, "b", 0, &[], &[], EVICTION_MS + 3).is_ok());
    }
}
