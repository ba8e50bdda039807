//! A tier whose bucket may be out of reach when the broker starts: an outage of the store must not become one of the broker.
//!
//! Until the bucket answers, partitions that are attached wait, cold reads are refused retriably, and nothing is trimmed, as nothing was
//! committed. A store that answers but breaks a promise of the tier is refused at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use millstream_log::remote::{PortFuture, RemoteBatches, RemoteBounds, RemoteError, RemoteLog, TierStatus, TieredSource, TopicIdPartition};
use tokio::{runtime::Handle, sync::watch};

use crate::{options::TierOptions, store::TierError, tier::Tier};

/// How long a start waits for the bucket before it goes on without.
const FIRST_TRY: Duration = Duration::from_secs(5);

/// A [`Tier`] now or later.
pub struct LateTier {
    tier: OnceLock<Arc<Tier>>,
    waiting: Mutex<Waiting>,
    ready: watch::Sender<bool>,
}

#[derive(Default)]
struct Waiting {
    attached: BTreeMap<TopicIdPartition, Arc<dyn TieredSource>>,
    /// Deleted before the bucket was in reach; their objects are purged once it is.
    deleted: Vec<(TopicIdPartition, Arc<dyn TieredSource>)>,
    last_error: String,
}

impl LateTier {
    /// Starts the tier, or keeps trying in the background if its bucket is out of reach.
    pub async fn start(options: TierOptions, runtime: Handle) -> Result<Arc<Self>, TierError> {
        let late = Arc::new(Self {
            tier: OnceLock::new(),
            waiting: Mutex::default(),
            ready: watch::Sender::new(false),
        });
        let first = tokio::time::timeout(FIRST_TRY, Tier::start(options.clone(), runtime.clone())).await;
        match first.unwrap_or(Err(TierError::ProbeTimeout)) {
            Ok(tier) => late.set(tier),
            Err(error) if error.may_pass() => {
                tracing::warn!(bucket = %options.bucket_url, error = %with_causes(&error), "bucket is out of reach; serving without it and trying on");
                late.waiting().last_error = with_causes(&error);
                tokio::spawn(keep_trying(Arc::clone(&late), options, runtime));
            }
            Err(error) => return Err(error),
        }
        Ok(late)
    }

    fn set(&self, tier: Arc<Tier>) {
        let mut waiting = self.waiting();
        for (partition, source) in std::mem::take(&mut waiting.attached) {
            tier.attach(partition, source);
        }
        for (partition, source) in std::mem::take(&mut waiting.deleted) {
            tier.attach(partition, source);
            tier.detach(partition, true);
        }
        // Under the lock, so that no attach slips in between. Only one start ever succeeds.
        let _ = self.tier.set(tier);
        drop(waiting);
        self.ready.send_replace(true);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all work.
    pub async fn shutdown(&self) {
        if let Some(tier) = self.tier.get() {
            tier.shutdown().await;
        }
    }

    fn unavailable(&self, partition: TopicIdPartition, offset: i64) -> RemoteError {
        RemoteError::Unavailable {
            partition,
            offset,
            reason: self.waiting().last_error.clone(),
        }
    }
}

/// An error with what led to it, on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

async fn keep_trying(late: Arc<LateTier>, options: TierOptions, runtime: Handle) {
    let mut pause = options.backoff_min;
    loop {
        tokio::time::sleep(pause).await;
        match Tier::start(options.clone(), runtime.clone()).await {
            Ok(tier) => {
                tracing::info!(bucket = %options.bucket_url, "bucket is in reach");
                late.set(tier);
                return;
            }
            Err(error) if error.may_pass() => late.waiting().last_error = with_causes(&error),
            Err(error) => {
                tracing::error!(bucket = %options.bucket_url, %error, "the bucket cannot be used; tiering stays off until it is fixed and the broker restarted");
                late.waiting().last_error = with_causes(&error);
                return;
            }
        }
        pause = (pause * 2).min(options.backoff_max);
    }
}

impl RemoteLog for LateTier {
    fn attach(&self, partition: TopicIdPartition, source: Arc<dyn TieredSource>) {
        let mut waiting = self.waiting();
        match self.tier.get() {
            Some(tier) => tier.attach(partition, source),
            None => {
                waiting.attached.insert(partition, source);
            }
        }
    }

    fn detach(&self, partition: TopicIdPartition, delete: bool) {
        let mut waiting = self.waiting();
        match self.tier.get() {
            Some(tier) => tier.detach(partition, delete),
            None => {
                if let Some(source) = waiting.attached.remove(&partition)
                    && delete
                {
                    waiting.deleted.push((partition, source));
                }
            }
        }
    }

    fn ready(&self, partition: TopicIdPartition) -> PortFuture<'_, ()> {
        Box::pin(async move {
            // The sender lives as long as `self`, so this only ends with `true`.
            let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
            if let Some(tier) = self.tier.get() {
                tier.ready(partition).await;
            }
        })
    }

    fn bounds(&self, partition: TopicIdPartition) -> Option<RemoteBounds> {
        self.tier.get()?.bounds(partition)
    }

    fn read(&self, partition: TopicIdPartition, offset: i64, max_bytes: usize) -> PortFuture<'_, Result<RemoteBatches, RemoteError>> {
        match self.tier.get() {
            Some(tier) => tier.read(partition, offset, max_bytes),
            None => Box::pin(std::future::ready(Err(self.unavailable(partition, offset)))),
        }
    }

    fn seek_timestamp(&self, partition: TopicIdPartition, timestamp: i64) -> PortFuture<'_, Result<Option<i64>, RemoteError>> {
        match self.tier.get() {
            Some(tier) => tier.seek_timestamp(partition, timestamp),
            None => Box::pin(std::future::ready(Err(self.unavailable(partition, -1)))),
        }
    }

    fn status(&self) -> Vec<TierStatus> {
        if let Some(tier) = self.tier.get() {
            return tier.status();
        }
        let waiting = self.waiting();
        let status = |(partition, source): (&TopicIdPartition, &Arc<dyn TieredSource>)| TierStatus {
            partition: *partition,
            topic: source.topic_name(),
            bounds: None,
            local_start_offset: source.local_start_offset(),
            remote_segments: 0,
            remote_bytes: 0,
            pending_bytes: source.sealed_segments().iter().map(|segment| segment.size).sum(),
            last_error: Some(waiting.last_error.clone()),
        };
        waiting.attached.iter().map(status).collect()
    }
}
