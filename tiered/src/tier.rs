//! The tier as a whole: the bucket, the attached partitions and the tasks that work for them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use millstream_log::remote::{PortFuture, RemoteBatches, RemoteBounds, RemoteError, RemoteLog, TierStatus, TieredSource, TopicIdPartition};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use crate::{
    cache::MemoryCache,
    clock::{Clock, SystemClock},
    fetch::Fetcher,
    layout::Layout,
    marker::check_marker,
    options::TierOptions,
    partition::{Partition, Shared},
    reader::Reader,
    store::{Bucket, TierError},
    sweep,
    upload::Uploader,
    work::{Report, WorkError},
};

/// How long `shutdown` waits for passes under way before it drops them, which is as safe as a crash.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(10);

/// Who calls `run_once`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drive {
    /// A task per attached partition.
    Background,
    /// The embedder, step by step: deterministic tests and simulations.
    Manual,
}

struct Attached {
    partition: Arc<Partition>,
    stop: watch::Sender<bool>,
}

/// Tiered storage of one broker. Implements the port `RemoteLog`.
pub struct Tier {
    shared: Arc<Shared>,
    drive: Drive,
    attached: RwLock<BTreeMap<TopicIdPartition, Attached>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Tier {
    /// Opens the bucket, proves that it is safe, and starts the tier.
    pub async fn start(options: TierOptions, runtime: Handle) -> Result<Arc<Tier>, TierError> {
        let bucket = Bucket::open(&options)?;
        Tier::start_with(options, bucket, Arc::new(SystemClock), Drive::Background, runtime).await
    }

    /// As `start`, with a given bucket and clock.
    pub async fn start_with(
        options: TierOptions,
        bucket: Bucket,
        clock: Arc<dyn Clock>,
        drive: Drive,
        runtime: Handle,
    ) -> Result<Arc<Tier>, TierError> {
        options.check().map_err(TierError::Option)?;
        let layout = Layout::new(&bucket.prefix);
        let heads = bucket.probe(&layout).await?;
        check_marker(bucket.data.as_ref(), &layout, options.cluster_id).await?;
        tracing::info!(store = %bucket.data, ?heads, "bucket is fit for a tier");
        let options = Arc::new(options);
        let data = bucket.data;
        let cache = Box::new(MemoryCache::new(options.cache_bytes, options.read_unit_bytes));
        let fetcher = Fetcher::new(
            data.clone(),
            runtime.clone(),
            cache,
            options.fetch_concurrency,
            options.get_bytes_max,
        );
        let shared = Arc::new(Shared {
            uploader: Uploader::new(data.clone(), layout.clone(), options.clone(), clock.clone()),
            reader: Reader::new(data.clone(), layout.clone(), fetcher),
            options,
            layout,
            data,
            heads,
            clock,
            runtime,
        });
        let tier = Tier {
            shared,
            drive,
            attached: RwLock::default(),
            tasks: Mutex::default(),
        };
        if drive == Drive::Background {
            let shared = tier.shared.clone();
            tier.spawn(async move {
                match sweep::resume_purges(shared.data.as_ref(), &shared.layout).await {
                    Ok(purged) => tracing::debug!(purged, "no deleted topic is left in the bucket"),
                    Err(error) => tracing::warn!(%error, "deleted topics stay in the bucket until the next start"),
                }
            });
        }
        Ok(Arc::new(tier))
    }

    /// After this the broker should roll the active segment of a tiered topic, so that it can be uploaded.
    pub fn lag_max(&self) -> Duration {
        self.shared.options.lag_max
    }

    /// Tells the tier that a partition may have work: a segment was sealed, or the stable offset passed one.
    pub fn wake(&self, partition: TopicIdPartition) {
        if let Some(partition) = self.partition(partition) {
            partition.wake.notify_one();
        }
    }

    /// Does one pass of work for a partition and says what was done. The background tasks call the same.
    pub async fn run_once(&self, partition: TopicIdPartition) -> Result<Report, WorkError> {
        self.partition(partition).ok_or(WorkError::Detached)?.run_once().await
    }

    /// Stops all work. A pass under way may end within a grace period; dropping it is as safe as a crash.
    pub async fn shutdown(&self) {
        let attached = std::mem::take(&mut *self.attached.write().unwrap_or_else(PoisonError::into_inner));
        for attached in attached.values() {
            attached.stop.send_replace(true);
            attached.partition.close();
        }
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all_ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_GRACE, all_ended).await.is_err() {
            tracing::warn!("tier work is dropped at shutdown");
            tasks.shutdown().await;
        }
    }

    fn partition(&self, partition: TopicIdPartition) -> Option<Arc<Partition>> {
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner);
        attached.get(&partition).map(|attached| attached.partition.clone())
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, &self.shared.runtime);
    }
}

impl RemoteLog for Tier {
    fn attach(&self, partition: TopicIdPartition, source: Arc<dyn TieredSource>) {
        let mut attached = self.attached.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = attached
            .get(&partition)
            .filter(|known| Arc::ptr_eq(&known.partition.source, &source))
        {
            known.partition.wake.notify_one();
            return;
        }
        let entry = Attached {
            partition: Arc::new(Partition::new(partition, source, self.shared.clone())),
            stop: watch::Sender::new(false),
        };
        if self.drive == Drive::Background {
            self.spawn(work_until_stopped(entry.partition.clone(), entry.stop.subscribe()));
        }
        if let Some(replaced) = attached.insert(partition, entry) {
            replaced.stop.send_replace(true);
            replaced.partition.close();
        }
    }

    fn detach(&self, partition: TopicIdPartition, delete: bool) {
        let removed = self.attached.write().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        let Some(Attached { partition, stop }) = removed else { return };
        stop.send_replace(true);
        partition.close();
        if delete {
            self.spawn(purge_with_retries(partition));
        }
    }

    fn bounds(&self, partition: TopicIdPartition) -> Option<RemoteBounds> {
        self.partition(partition)?.bounds()
    }

    fn ready(&self, partition: TopicIdPartition) -> PortFuture<'_, ()> {
        let partition = self.partition(partition);
        Box::pin(async move {
            if let Some(partition) = partition {
                partition.ready().await;
            }
        })
    }

    fn read(&self, partition: TopicIdPartition, offset: i64, max_bytes: usize) -> PortFuture<'_, Result<RemoteBatches, RemoteError>> {
        let attached = self.partition(partition);
        Box::pin(async move {
            match attached {
                Some(partition) => partition.read(offset, max_bytes).await,
                None => Err(RemoteError::Unavailable {
                    partition,
                    offset,
                    reason: "the partition is not attached".to_owned(),
                }),
            }
        })
    }

    fn seek_timestamp(&self, partition: TopicIdPartition, timestamp: i64) -> PortFuture<'_, Result<Option<i64>, RemoteError>> {
        let attached = self.partition(partition);
        Box::pin(async move {
            match attached {
                Some(partition) => partition.seek_timestamp(timestamp).await,
                None => Err(RemoteError::Unavailable {
                    partition,
                    offset: -1,
                    reason: "the partition is not attached".to_owned(),
                }),
            }
        })
    }

    fn status(&self) -> Vec<TierStatus> {
        let attached = self.attached.read().unwrap_or_else(PoisonError::into_inner);
        attached.values().map(|attached| attached.partition.status()).collect()
    }
}

/// Works for a partition: at once while there is something to offload, else when woken or after the interval; after failures
/// with growing pauses, in which being woken does not help.
async fn work_until_stopped(partition: Arc<Partition>, mut stop: watch::Receiver<bool>) {
    let options = partition.shared.options.clone();
    let mut failures = 0;
    while !*stop.borrow() {
        let pause = match partition.run_once().await {
            Ok(report) if report.offloaded.is_some() => {
                failures = 0;
                continue;
            }
            Ok(_) => {
                failures = 0;
                options.work_interval
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(partition = %partition.id, failures, %error, "tier work stopped");
                options.backoff(failures)
            }
        };
        // Every arm may be dropped at any time: they only wait.
        tokio::select! {
            _ = stop.wait_for(|stopped| *stopped) => return,
            () = partition.wake.notified(), if failures == 0 => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Deletes the objects of a deleted topic, after the last pass of work has ended. If the process ends before that is done, the
/// mark in `topic.json` makes the next start finish it.
async fn purge_with_retries(partition: Arc<Partition>) {
    let _no_more_work = partition.work.lock().await;
    let mut failures = 0;
    while let Err(error) = sweep::purge_partition(&partition.shared, partition.id, partition.source.topic_name()).await {
        failures += 1;
        tracing::warn!(partition = %partition.id, failures, %error, "objects of a deleted topic are still there");
        tokio::time::sleep(partition.shared.options.backoff(failures)).await;
    }
}
