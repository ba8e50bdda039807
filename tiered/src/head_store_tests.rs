use std::sync::Arc;

use object_store::{local::LocalFileSystem, memory::InMemory};

use super::*;
use crate::testkit::{Fault, Request, ScriptedStore};

/// Every kind of head store over every store that can carry it.
fn stores(directory: &tempfile::TempDir) -> Vec<Arc<dyn HeadStore>> {
    let local = Arc::new(LocalFileSystem::new_with_prefix(directory.path()).unwrap());
    vec![
        Arc::new(EtagHead::new(Arc::new(InMemory::new()))),
        Arc::new(SeqHead::new(Arc::new(InMemory::new()))),
        Arc::new(SeqHead::new(local)),
    ]
}

fn key() -> Path {
    Path::from("t/1/head")
}

async fn put(store: &dyn HeadStore, expected: Option<&HeadVersion>, text: &str) -> Result<HeadVersion, PutError> {
    store.put_if(&key(), expected, Bytes::from(text.to_owned())).await
}

#[tokio::test]
async fn a_head_is_created_once_and_replaced_only_at_its_version() {
    let directory = tempfile::tempdir().unwrap();
    for store in stores(&directory) {
        assert!(store.get(&key()).await.unwrap().is_none(), "{store:?}");
        let first = put(store.as_ref(), None, "1").await.unwrap();
        assert!(matches!(put(store.as_ref(), None, "x").await, Err(PutError::Conflict)));
        let second = put(store.as_ref(), Some(&first), "2").await.unwrap();
        assert!(matches!(put(store.as_ref(), Some(&first), "x").await, Err(PutError::Conflict)));
        assert_eq!(store.get(&key()).await.unwrap(), Some((Bytes::from("2"), second)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_32_racing_writers_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    for store in stores(&directory) {
        let mut version = None;
        for _round in 0..10 {
            let race = (0..32).map(|writer| {
                let (store, version) = (store.clone(), version.clone());
                tokio::spawn(async move {
                    put(store.as_ref(), version.as_ref(), &writer.to_string())
                        .await
                        .map(|won| (writer, won))
                })
            });
            let outcomes: Vec<_> = futures_util::future::join_all(race).await.into_iter().map(Result::unwrap).collect();
            let winners: Vec<_> = outcomes.into_iter().filter_map(Result::ok).collect();
            assert_eq!(winners.len(), 1, "{store:?}");
            let (writer, won) = winners[0].clone();
            assert_eq!(
                store.get(&key()).await.unwrap(),
                Some((Bytes::from(writer.to_string()), won.clone()))
            );
            version = Some(won);
        }
    }
}

#[tokio::test]
async fn numbered_heads_keep_a_bounded_number_of_old_ones() {
    let memory: SharedStore = Arc::new(InMemory::new());
    let store = SeqHead::new(memory.clone());
    let mut version = None;
    for number in 0..50 {
        version = Some(put(&store, version.as_ref(), &number.to_string()).await.unwrap());
    }
    let left: Vec<_> = memory.list(None).try_collect().await.unwrap();
    assert_eq!(left.len() as u64, OLD_HEADS_KEPT);
    assert_eq!(store.get(&key()).await.unwrap().unwrap().0, "49");
}

#[tokio::test]
async fn a_stalled_writer_that_recreates_a_forgotten_number_does_not_win() {
    let store = SeqHead::new(Arc::new(InMemory::new()));
    let stalled = put(&store, None, "0").await.unwrap();
    let mut version = stalled.clone();
    for number in 1..50 {
        version = put(&store, Some(&version), &number.to_string()).await.unwrap();
    }
    // Number 1 was deleted, so creating it works; that must not count.
    assert!(matches!(put(&store, Some(&stalled), "zombie").await, Err(PutError::Conflict)));
    assert_eq!(store.get(&key()).await.unwrap().unwrap().0, "49");
}

#[tokio::test]
async fn a_failed_check_after_a_create_is_an_unknown_outcome() {
    let scripted = ScriptedStore::memory();
    let store = SeqHead::new(scripted.clone());
    scripted.inject(Request::List, "head", 1, Fault::Before);
    assert!(matches!(put(&store, None, "0").await, Err(PutError::Unknown(_))));
    assert_eq!(store.get(&key()).await.unwrap().unwrap().0, "0");
}
