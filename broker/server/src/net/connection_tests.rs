//! Clients that neither read nor send: their connections end in time, and hold little until then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millstream_log::disk::MemoryDisk;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinHandle,
};

use super::connection::{Ended, Limits, Unsent, serve};
use crate::{Broker, handlers::fetch_tests};

const MEMORY_UNITS: usize = 64 * 1024;

/// A connection that has little patience, and its client's end.
async fn connect(broker: &Arc<Broker>) -> (JoinHandle<Ended>, TcpStream) {
    connect_with(broker, limits(usize::MAX)).await
}

async fn connect_with(broker: &Arc<Broker>, limits: Arc<Limits>) -> (JoinHandle<Ended>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    (tokio::spawn(serve(stream, peer, Arc::clone(broker), limits)), client)
}

fn limits(unsent_max: usize) -> Arc<Limits> {
    Arc::new(Limits {
        frame_bytes_max: 100 << 20,
        idle: Duration::from_secs(86_400),
        stall_max: Duration::from_millis(100),
        frame_memory: Arc::new(Semaphore::new(MEMORY_UNITS)),
        frame_memory_units: MEMORY_UNITS,
        parked_memory: Arc::new(Semaphore::new(MEMORY_UNITS)),
        unsent: AtomicUsize::new(0),
        unsent_max,
    })
}

/// A frame with an ApiVersions request, version 0.
fn api_versions() -> Vec<u8> {
    [&[0, 0, 0, 10][..], &[0, 18, 0, 0], &[0, 0, 0, 1], &[0xff, 0xff]].concat()
}

#[tokio::test]
async fn who_does_not_send_the_rest_of_a_large_frame_is_disconnected() {
    let broker = fetch_tests::broker(&MemoryDisk::new(), 1).await;
    let (connection, mut client) = connect(&broker).await;
    client.write_all(&api_versions()).await.unwrap();
    // A Produce of 128 KiB, of which half comes.
    client.write_all(&[0, 2, 0, 0, 0, 0, 0, 9]).await.unwrap();
    client.write_all(&[0; 70_000]).await.unwrap();
    let ended = connection.await.unwrap();
    assert!(matches!(ended, Ended::NotSending(_)), "{ended}");
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn who_does_not_read_answers_is_disconnected() {
    let broker = fetch_tests::broker(&MemoryDisk::new(), 1).await;
    let (connection, mut client) = connect(&broker).await;
    let asking = tokio::spawn(async move {
        let many = api_versions().repeat(1_000);
        // Until it is disconnected.
        while client.write_all(&many).await.is_ok() {}
    });
    let ended = connection.await.unwrap();
    assert!(matches!(ended, Ended::NotReading), "{ended}");
    asking.await.unwrap();
    broker.shutdown().await.unwrap();
}

#[test]
fn answers_that_nobody_reads_share_memory() {
    let limits = limits(100);
    let [first, second] = [&limits, &limits].map(|limits| Unsent::new(Arc::clone(limits)));
    first.add(99);
    assert!(first.has_room());
    first.add(1);
    assert!(!first.has_room());
    // One is always allowed, so that a connection goes on however slow the others are.
    assert!(second.has_room());
    second.add(50);
    assert!(!second.has_room());
    drop(first);
    assert!(second.has_room());
    second.remove(50);
    assert_eq!(limits.unsent.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn burst_is_answered_one_by_one_where_answers_have_no_memory() {
    let broker = fetch_tests::broker(&MemoryDisk::new(), 1).await;
    let limits = limits(1);
    let (connection, mut client) = connect_with(&broker, Arc::clone(&limits)).await;
    client.write_all(&api_versions().repeat(200)).await.unwrap();
    for _ in 0..200 {
        let length = client.read_u32().await.unwrap();
        let mut answer = vec![0; length as usize];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..4], [0, 0, 0, 1], "the correlation id");
    }
    drop(client);
    assert!(matches!(connection.await.unwrap(), Ended::ByClient));
    assert_eq!(limits.unsent.load(Ordering::Relaxed), 0);
    broker.shutdown().await.unwrap();
}
