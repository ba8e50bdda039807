//! One attached partition: what readers see of it, and the pieces that its work shares.
//!
//! Readers use a published copy of the head and never wait for uploads or commits. Until the head has been read once, nothing is
//! known and every read is refused as unavailable: "not read yet" must never look like "empty".

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use millstream_log::remote::{RemoteBatches, RemoteBounds, RemoteError, TierStatus, TieredSource, TopicIdPartition};
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
};

use crate::{
    clock::Clock,
    commit::Versioned,
    envelope::FormatError,
    fetch::FetchError,
    head::Head,
    head_store::HeadStore,
    layout::Layout,
    options::TierOptions,
    read_ahead::ReadAhead,
    reader::{ReadOutcome, Reader},
    store::SharedStore,
    upload::Uploader,
    work::{Work, WorkError},
};

/// What all partitions of a tier share.
pub(crate) struct Shared {
    /// The tier's options.
    pub options: Arc<TierOptions>,
    /// Names of objects.
    pub layout: Layout,
    /// The store of data objects.
    pub data: SharedStore,
    /// The store of heads.
    pub heads: Box<dyn HeadStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Sends segments.
    pub uploader: Uploader,
    /// Reads batches.
    pub reader: Reader,
    /// Where background work runs.
    pub runtime: Handle,
}

/// What is known of a head.
#[derive(Debug, Clone)]
enum View {
    /// It was not read yet.
    Unread,
    /// There is none.
    Missing,
    /// It was read or written last as this.
    Present(Arc<Head>),
}

/// An attached partition.
pub(crate) struct Partition {
    /// Which one.
    pub id: TopicIdPartition,
    /// Its log.
    pub source: Arc<dyn TieredSource>,
    /// What it shares with others.
    pub shared: Arc<Shared>,
    /// Wakes its background work.
    pub wake: Notify,
    /// Held during one pass of work.
    pub work: tokio::sync::Mutex<Work>,
    view: RwLock<View>,
    opened: watch::Sender<bool>,
    last_error: Mutex<Option<String>>,
    read_ahead: Mutex<ReadAhead>,
}

impl Partition {
    /// A partition whose head is not read yet.
    pub fn new(id: TopicIdPartition, source: Arc<dyn TieredSource>, shared: Arc<Shared>) -> Partition {
        Partition {
            id,
            source,
            shared,
            wake: Notify::new(),
            work: tokio::sync::Mutex::new(Work::default()),
            view: RwLock::new(View::Unread),
            opened: watch::Sender::new(false),
            last_error: Mutex::new(None),
            read_ahead: Mutex::new(ReadAhead::default()),
        }
    }

    fn view(&self) -> View {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The head as last read or written.
    pub fn head(&self) -> Option<Arc<Head>> {
        match self.view() {
            View::Present(head) => Some(head),
            View::Unread | View::Missing => None,
        }
    }

    /// What can be read from the bucket.
    pub fn bounds(&self) -> Option<RemoteBounds> {
        self.head()?.bounds()
    }

    /// Shows readers a newer head; an older one than they have is ignored.
    pub fn publish(&self, head: Option<&Head>) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        match (&*view, head) {
            (View::Present(known), Some(head)) if (known.incarnation, known.seq) >= (head.incarnation, head.seq) => {}
            // A head that vanishes is an accident, see `work`; readers keep what they have.
            (View::Present(_), None) => {}
            (View::Unread | View::Missing, None) => *view = View::Missing,
            (View::Unread | View::Missing | View::Present(_), Some(head)) => *view = View::Present(Arc::new(head.clone())),
        }
        drop(view);
        self.opened.send_replace(true);
    }

    /// Waits until the head has been read, or will never be.
    pub async fn ready(&self) {
        // An error means that the sender is gone, and it lives as long as `self`.
        let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
    }

    /// Lets everybody go who waits for the head of a partition that is not attached any more.
    pub fn close(&self) {
        self.opened.send_replace(true);
    }

    /// Reads the head from the bucket.
    pub async fn read_head(&self) -> Result<Option<Versioned>, WorkError> {
        let key = self.shared.layout.head(self.id);
        let found = self.shared.heads.get(&key).await.map_err(|source| WorkError::Store {
            operation: "read head",
            source,
        })?;
        let Some((bytes, version)) = found else { return Ok(None) };
        let head = Head::decode(&bytes).map_err(WorkError::Format)?;
        if head.topic_uuid != self.id.topic_id || head.partition != self.id.partition {
            return Err(WorkError::Format(FormatError::Inconsistent {
                what: "head",
                reason: "it is of another partition",
            }));
        }
        Ok(Some(Versioned { head, version }))
    }

    /// Remembers how the last pass of work ended.
    pub fn note_outcome(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn unavailable(&self, offset: i64, reason: impl ToString) -> RemoteError {
        RemoteError::Unavailable {
            partition: self.id,
            offset,
            reason: reason.to_string(),
        }
    }

    fn read_error(&self, offset: i64, error: FetchError) -> RemoteError {
        match error {
            FetchError::Corrupt { key, reason } => RemoteError::Corrupt {
                partition: self.id,
                key: key.to_string(),
                reason,
            },
            FetchError::Missing { .. } | FetchError::Unavailable { .. } => self.unavailable(offset, error),
        }
    }

    /// The head, if it covers `offset`.
    fn head_for(&self, offset: i64) -> Result<Arc<Head>, RemoteError> {
        match self.view() {
            View::Unread => Err(self.unavailable(offset, "the head was not read yet")),
            View::Present(head) if (head.log_start..head.remote_end).contains(&offset) => Ok(head),
            View::Missing | View::Present(_) => Err(RemoteError::OutOfRange {
                partition: self.id,
                offset,
            }),
        }
    }

    /// Reads batches. An object that is gone means that the head is old, so it is read again, once (I7).
    pub async fn read(self: &Arc<Self>, offset: i64, max_bytes: usize) -> Result<RemoteBatches, RemoteError> {
        let head = self.head_for(offset)?;
        match self.shared.reader.read(self.id, &head, offset, max_bytes).await {
            Err(FetchError::Missing { .. }) => {}
            outcome => return self.finish_read(&head, offset, outcome),
        }
        let found = self.read_head().await.map_err(|error| self.unavailable(offset, error))?;
        self.publish(found.as_ref().map(|found| &found.head));
        let head = self.head_for(offset)?;
        let outcome = self.shared.reader.read(self.id, &head, offset, max_bytes).await;
        self.finish_read(&head, offset, outcome)
    }

    fn finish_read(
        self: &Arc<Self>,
        head: &Arc<Head>,
        offset: i64,
        outcome: Result<Option<ReadOutcome>, FetchError>,
    ) -> Result<RemoteBatches, RemoteError> {
        let Some(outcome) = outcome.map_err(|error| self.read_error(offset, error))? else {
            return Ok(RemoteBatches {
                bytes: Vec::new(),
                next_offset: head.remote_end,
            });
        };
        self.start_read_ahead(head, offset, &outcome);
        Ok(outcome.batches)
    }

    fn start_read_ahead(self: &Arc<Self>, head: &Arc<Head>, offset: i64, outcome: &ReadOutcome) {
        let options = &self.shared.options;
        let bytes = outcome.batches.bytes.iter().map(|bytes| bytes.len() as u64).sum();
        // Beyond a quarter of the cache, reading ahead would throw out what it brought before.
        let window_max = options.read_ahead_bytes_max.min(options.cache_bytes / 4);
        let first_window = u64::from(options.read_unit_bytes);
        let mut readers = self.read_ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = readers.note(offset, outcome.batches.next_offset, bytes, first_window, window_max);
        drop(readers);
        let Some(ahead) = ahead.filter(|_| self.shared.reader.fetcher.is_calm()) else {
            return;
        };
        let (partition, head, end) = (self.clone(), head.clone(), outcome.end.clone());
        self.shared.runtime.spawn(async move {
            if let Err(error) = partition.shared.reader.read_ahead(partition.id, &head, end, ahead).await {
                tracing::debug!(partition = %partition.id, %error, "read-ahead stopped");
            }
        });
    }

    /// The offset from which to scan for `timestamp`.
    pub async fn seek_timestamp(&self, timestamp: i64) -> Result<Option<i64>, RemoteError> {
        let head = match self.view() {
            View::Unread => return Err(self.unavailable(-1, "the head was not read yet")),
            View::Missing => return Ok(None),
            View::Present(head) => head,
        };
        let found = self.shared.reader.seek_timestamp(self.id, &head, timestamp).await;
        found.map_err(|error| self.read_error(head.log_start, error))
    }

    /// Where the partition stands.
    pub fn status(&self) -> TierStatus {
        let head = self.head();
        let remote_end = head.as_ref().map_or(i64::MIN, |head| head.remote_end);
        let pending = self
            .source
            .sealed_segments()
            .into_iter()
            .filter(|segment| segment.next_offset > remote_end);
        TierStatus {
            partition: self.id,
            topic: self.source.topic_name(),
            bounds: self.bounds(),
            local_start_offset: self.source.local_start_offset(),
            remote_segments: head.as_ref().map_or(0, |head| head.segment_count()),
            remote_bytes: head.as_ref().map_or(0, |head| head.bytes()),
            pending_bytes: pending.map(|segment| segment.size).fold(0, u64::saturating_add),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
