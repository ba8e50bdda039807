//! One pass of tier work for a partition that this broker leads.
//!
//! | step | what | needs |
//! |---|---|---|
//! | open | read the head | — |
//! | claim | commit a head of my epoch, once per epoch and process | open |
//! | offload | PUT the next sealed segment, then commit it | claim |
//! | spill | move old references to a page | claim |
//! | trim | delete local segments below the end of the bucket | claim (I4, I6) |
//! | retain | commit a higher log start | claim (I4) |
//! | bury | DELETE objects whose grace is over, then commit | claim (I5) |
//! | sweep | DELETE what crashes of earlier epochs left | claim (I5) |
//!
//! A pass may stop at any point, by an error, a crash or a dropped future: everything it did before is either committed or
//! unreferenced. After an error nothing that was cached is trusted; the next pass reads the head and claims again, and the claim
//! changes the head's version, so that no write of before can still land.

use std::sync::Arc;

use millstream_log::{
    LogError,
    remote::{SealedSegment, TierConfig, TieredSource},
};
use object_store::{Error as StoreError, ObjectStoreExt};
use thiserror::Error;
use ulid::Ulid;

use crate::{
    commit::{Commit, CommitError, Effect, Event, Term, Versioned},
    envelope::FormatError,
    fetch::FetchError,
    head::{Head, PageRef, SegRef, encode_page},
    marker::{Lifecycle, TopicJson, write_topic},
    ops::{Keys, Op},
    partition::Partition,
    retention, sweep,
    upload::{Upload, UploadError},
};

/// Why a pass of work stopped.
#[derive(Debug, Error)]
pub enum WorkError {
    /// The store failed.
    #[error("{operation}: {source}")]
    Store {
        /// What was tried.
        operation: &'static str,
        /// What the store said.
        source: StoreError,
    },
    /// The head is not readable.
    #[error(transparent)]
    Format(FormatError),
    /// A commit did not succeed.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// A segment was not uploaded.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// A page could not be read.
    #[error("read page: {0}")]
    Page(String),
    /// The local log failed.
    #[error("{operation}: {source}")]
    Source {
        /// What was tried.
        operation: &'static str,
        /// What the log said.
        source: LogError,
    },
    /// Local data was trimmed, so there must have been a head, and there is none (failure matrix row 24).
    #[error("offsets {log_start}..{local_start} are gone locally and the bucket has no head: rebuild it")]
    HeadLost {
        /// First offset that should be readable.
        log_start: i64,
        /// First offset that is stored locally.
        local_start: i64,
    },
    /// The partition is not attached.
    #[error("the partition is not attached")]
    Detached,
    /// The tier is shutting down.
    #[error("the tier is shutting down")]
    Stopped,
}

impl From<FetchError> for WorkError {
    fn from(error: FetchError) -> Self {
        WorkError::Page(error.to_string())
    }
}

/// What one pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Offsets that were offloaded (end exclusive).
    pub offloaded: Option<(i64, i64)>,
    /// References that were moved to a page.
    pub spilled: usize,
    /// First offset that the local log keeps, if it was trimmed.
    pub trimmed_to: Option<i64>,
    /// The new log start, if it was raised.
    pub log_start: Option<i64>,
    /// Objects that were deleted.
    pub deleted_objects: usize,
}

impl Report {
    /// Whether there was nothing to do.
    pub fn is_idle(&self) -> bool {
        *self == Report::default()
    }
}

/// What the work of a partition remembers between passes.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// The head as this process last read or wrote it.
    current: Option<Versioned>,
    /// Whether `current` is what the bucket holds, as far as is known.
    opened: bool,
    /// Whether a head was ever seen.
    had_head: bool,
    /// The epoch for which this process has claimed the head.
    claimed: Option<i32>,
    /// The epoch in which somebody else was found to lead, and who.
    fenced: Option<(i32, CommitError)>,
    /// Whether `topic.json` was written.
    described: bool,
    /// When the folder was last searched for orphans, in milliseconds.
    swept_ms: Option<i64>,
}

impl Work {
    /// Distrusts everything but the fact that there was a head.
    fn forget(&mut self) {
        *self = Work {
            had_head: self.had_head,
            fenced: self.fenced.take(),
            described: self.described,
            swept_ms: self.swept_ms,
            ..Work::default()
        };
    }
}

impl Partition {
    /// Does one pass of work; at most one segment is uploaded.
    pub async fn run_once(&self) -> Result<Report, WorkError> {
        let mut work = self.work.lock().await;
        // A pass that is dropped half-way leaves what it has cached in an unknown state.
        let mut pass = std::mem::take(&mut *work);
        work.had_head = pass.had_head;
        let result = self.pass(&mut pass).await;
        if let Err(error) = &result {
            pass.forget();
            if let WorkError::Commit(fenced @ (CommitError::Fenced { .. } | CommitError::ForeignCluster { .. })) = error {
                pass.fenced = Some((self.source.leader_epoch(), fenced.clone()));
            }
        }
        *work = pass;
        self.note_outcome(result.as_ref().err().map(ToString::to_string));
        result
    }

    async fn pass(&self, work: &mut Work) -> Result<Report, WorkError> {
        let epoch = self.source.leader_epoch();
        if let Some((_, error)) = work.fenced.as_ref().filter(|(fenced_epoch, _)| *fenced_epoch == epoch) {
            return Err(WorkError::Commit(error.clone()));
        }
        work.fenced = None;
        if work.claimed.is_some_and(|claimed| claimed != epoch) {
            // What the term before left behind can be told from now on, so the next sweep is due.
            work.claimed = None;
            work.swept_ms = None;
        }
        self.open(work).await?;
        let config = self.source.config();
        let mut report = Report::default();
        if !config.enabled {
            return Ok(report);
        }
        if !config.copy_disabled {
            report.offloaded = self.offload(work, epoch).await?;
        }
        report.spilled = self.spill(work, epoch).await?;
        report.trimmed_to = self.trim(work, epoch, &config).await?;
        report.log_start = self.retain(work, epoch, &config).await?;
        report.deleted_objects = self.bury(work, epoch).await?;
        if report.offloaded.is_none() {
            report.deleted_objects += self.sweep(work, epoch).await?;
        }
        Ok(report)
    }

    async fn open(&self, work: &mut Work) -> Result<(), WorkError> {
        if work.opened {
            return Ok(());
        }
        work.current = self.read_head().await?;
        work.had_head |= work.current.is_some();
        work.opened = true;
        self.publish(work.current.as_ref().map(|current| &current.head));
        Ok(())
    }

    async fn claim(&self, work: &mut Work, epoch: i32) -> Result<(), WorkError> {
        if work.claimed == Some(epoch) {
            return Ok(());
        }
        let (log_start, local_start) = (self.source.log_start_offset(), self.source.local_start_offset());
        let first_head = work.current.is_none();
        if first_head && (work.had_head || local_start > log_start) {
            return Err(WorkError::HeadLost { log_start, local_start });
        }
        let start = self
            .source
            .sealed_segments()
            .first()
            .map_or(local_start, |segment| segment.base_offset);
        let op = Op::Claim {
            epochs: self.source.epochs(),
            keys: self.keys(),
            now_ms: self.shared.clock.now_ms(),
        };
        self.commit(work, epoch, op, first_head.then_some(start)).await?;
        work.claimed = Some(epoch);
        if !work.described {
            self.describe().await?;
            work.described = true;
        }
        Ok(())
    }

    async fn describe(&self) -> Result<(), WorkError> {
        let topic_id = self.id.topic_id;
        let topic = TopicJson {
            topic_id: topic_id.to_string(),
            name: self.source.topic_name(),
            lifecycle: Lifecycle::Live,
        };
        let failed = |source| WorkError::Store {
            operation: "write topic.json",
            source,
        };
        write_topic(self.shared.data.as_ref(), &self.shared.layout, topic_id, &topic)
            .await
            .map_err(failed)
    }

    fn keys(&self) -> Keys {
        Keys {
            layout: self.shared.layout.clone(),
            partition: self.id,
        }
    }

    /// Runs the commit protocol. `genesis` is where a first head would start, if one is allowed.
    async fn commit(&self, work: &mut Work, epoch: i32, op: Op, genesis: Option<i64>) -> Result<(), WorkError> {
        let options = &self.shared.options;
        let term = Term {
            cluster_id: options.cluster_id,
            incarnation: options.incarnation,
            epoch,
            broker: options.broker_id,
        };
        let key = self.shared.layout.head(self.id);
        let mut commit = Commit::new(self.id, term, op, genesis);
        let mut event = Event::Start(work.current.take());
        loop {
            event = match commit.step(event, Ulid::generate()) {
                Effect::Read => match self.read_head().await {
                    Ok(found) => Event::Read(found),
                    Err(WorkError::Store { .. }) => Event::ReadFailed,
                    Err(error) => return Err(error),
                },
                Effect::Write { expected, bytes } => match self.shared.heads.put_if(&key, expected.as_ref(), bytes).await {
                    Ok(version) => Event::Written(version),
                    Err(error) => {
                        tracing::debug!(partition = %self.id, %error, "commit has no clear answer");
                        Event::WriteUnclear
                    }
                },
                Effect::Wait(attempt) => {
                    tokio::time::sleep(options.backoff(attempt)).await;
                    Event::Waited
                }
                Effect::Done(current) => {
                    self.publish(Some(&current.head));
                    work.had_head = true;
                    work.current = Some(*current);
                    return Ok(());
                }
                Effect::Failed(error) => return Err(WorkError::Commit(error)),
            };
        }
    }

    /// The head that this process has claimed for `epoch`; without it nothing may be destroyed (I4).
    fn claimed_head<'a>(&self, work: &'a Work, epoch: i32) -> &'a Head {
        let head = work
            .current
            .as_ref()
            .map(|current| &current.head)
            .filter(|_| work.claimed == Some(epoch));
        let head = head.unwrap_or_else(|| panic!("{} has no head that is claimed for epoch {epoch}", self.id));
        assert!(
            head.epoch == epoch,
            "head of {} has epoch {}, claimed was {epoch}",
            self.id,
            head.epoch
        );
        head
    }

    async fn offload(&self, work: &mut Work, epoch: i32) -> Result<Option<(i64, i64)>, WorkError> {
        let remote_end = work.current.as_ref().map(|current| current.head.remote_end);
        if candidate(self.source.as_ref(), remote_end).is_none() {
            return Ok(None);
        }
        self.claim(work, epoch).await?;
        let remote_end = self.claimed_head(work, epoch).remote_end;
        let Some((segment, from_offset)) = candidate(self.source.as_ref(), Some(remote_end)) else {
            return Ok(None);
        };
        let stable = self.source.stable_offset();
        assert!(
            segment.next_offset <= stable,
            "segment of {} ends at {} above the stable offset {stable}",
            self.id,
            segment.next_offset
        );
        let upload = Upload {
            partition: self.id,
            source: self.source.clone(),
            segment,
            from_offset,
            epoch,
        };
        let reference = self.shared.uploader.upload(&upload).await?;
        let offloaded = (reference.base, reference.next);
        // Local segments follow each other, so a first one above the end of the bucket means that those between are gone.
        let gap_allowed = from_offset > remote_end;
        let op = Op::Append {
            segment: Box::new(reference),
            epochs: self.source.epochs(),
            gap_allowed,
        };
        self.commit(work, epoch, op, None).await?;
        tracing::info!(partition = %self.id, base = offloaded.0, next = offloaded.1, "segment offloaded");
        Ok(Some(offloaded))
    }

    async fn spill(&self, work: &mut Work, epoch: i32) -> Result<usize, WorkError> {
        let limit = self.shared.options.head_segments_max;
        if work.current.as_ref().is_none_or(|current| current.head.segs.len() <= limit) {
            return Ok(0);
        }
        self.claim(work, epoch).await?;
        let moved: Vec<SegRef> = self.claimed_head(work, epoch).segs.iter().take(limit / 2).cloned().collect();
        let Some(page) = page_of(&moved, epoch) else { return Ok(0) };
        let key = self.shared.layout.object(self.id, &page.name());
        let failed = |source| WorkError::Store {
            operation: "put page",
            source,
        };
        self.shared.data.put(&key, encode_page(&moved).into()).await.map_err(failed)?;
        self.commit(work, epoch, Op::Spill { page: Box::new(page) }, None).await?;
        Ok(moved.len())
    }

    async fn trim(&self, work: &mut Work, epoch: i32, config: &TierConfig) -> Result<Option<i64>, WorkError> {
        let now_ms = self.shared.clock.now_ms();
        let wanted = |head: &Head| {
            retention::local_trim(
                head,
                &self.source.sealed_segments(),
                self.source.active_segment_bytes(),
                config,
                now_ms,
            )
        };
        if work.current.as_ref().and_then(|current| wanted(&current.head)).is_none() {
            return Ok(None);
        }
        self.claim(work, epoch).await?;
        let head = self.claimed_head(work, epoch);
        let Some(up_to) = wanted(head) else { return Ok(None) };
        assert!(
            up_to <= head.remote_end,
            "trim of {} to {up_to} above the end of the bucket {}",
            self.id,
            head.remote_end
        );
        self.blocking("trim log", move |source| source.trim_local(up_to)).await?;
        Ok(Some(up_to))
    }

    async fn retain(&self, work: &mut Work, epoch: i32, config: &TierConfig) -> Result<Option<i64>, WorkError> {
        let now_ms = self.shared.clock.now_ms();
        let wanted = |head: &Head| {
            let sealed = self.source.sealed_segments();
            let local_only = sealed
                .iter()
                .filter(|segment| segment.next_offset > head.remote_end)
                .map(|segment| segment.size);
            let local_only = local_only.fold(self.source.active_segment_bytes(), u64::saturating_add);
            let start = retention::log_start(head, self.source.log_start_offset(), local_only, config, now_ms);
            (start > head.log_start).then_some(start)
        };
        let Some(current) = &work.current else { return Ok(None) };
        if wanted(&current.head).is_some() {
            self.claim(work, epoch).await?;
            let head = self.claimed_head(work, epoch).clone();
            if let Some(log_start) = wanted(&head) {
                let mut paged = Vec::new();
                for page in head.pages.iter().take_while(|page| page.next <= log_start) {
                    paged.extend(self.shared.reader.page(self.id, page).await?.iter().cloned());
                }
                self.commit(
                    work,
                    epoch,
                    Op::Retain {
                        log_start,
                        keys: self.keys(),
                        paged,
                        now_ms,
                    },
                    None,
                )
                .await?;
            }
        }
        // Also after a crash between the commit and this.
        let committed = work.current.as_ref().map_or(0, |current| current.head.log_start);
        if committed <= self.source.log_start_offset() {
            return Ok(None);
        }
        self.blocking("advance log start", move |source| source.advance_log_start(committed))
            .await?;
        Ok(Some(committed))
    }

    async fn bury(&self, work: &mut Work, epoch: i32) -> Result<usize, WorkError> {
        let grace_ms = i64::try_from(self.shared.options.delete_grace.as_millis()).unwrap_or(i64::MAX);
        let now_ms = self.shared.clock.now_ms();
        let is_due = |head: &Head| head.graveyard.iter().any(|grave| now_ms.saturating_sub(grave.since) >= grace_ms);
        if !work.current.as_ref().is_some_and(|current| is_due(&current.head)) {
            return Ok(0);
        }
        self.claim(work, epoch).await?;
        let keys = sweep::delete_graves(&self.shared, self.id, self.claimed_head(work, epoch), now_ms, grace_ms).await?;
        let deleted = keys.len();
        self.commit(work, epoch, Op::Bury { keys }, None).await?;
        Ok(deleted)
    }

    async fn sweep(&self, work: &mut Work, epoch: i32) -> Result<usize, WorkError> {
        let now_ms = self.shared.clock.now_ms();
        let interval_ms = i64::try_from(self.shared.options.orphan_scan_interval.as_millis()).unwrap_or(i64::MAX);
        let due = work.swept_ms.is_none_or(|swept_ms| now_ms.saturating_sub(swept_ms) >= interval_ms);
        // Never a reason to claim: an idle partition stays idle.
        if !due || work.claimed != Some(epoch) {
            return Ok(0);
        }
        let deleted = sweep::delete_orphans(&self.shared, self.id, self.claimed_head(work, epoch)).await?;
        work.swept_ms = Some(now_ms);
        Ok(deleted)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&dyn TieredSource) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, WorkError> {
        let source = Arc::clone(&self.source);
        match tokio::task::spawn_blocking(move || act(source.as_ref())).await {
            Ok(result) => result.map_err(|source| WorkError::Source { operation, source }),
            Err(_) => Err(WorkError::Stopped),
        }
    }
}

/// The segment to offload next and the first offset of it to send: the one at the end of the bucket, wholly below the stable
/// offset (I1).
fn candidate(source: &dyn TieredSource, remote_end: Option<i64>) -> Option<(SealedSegment, i64)> {
    let remote_end = remote_end.unwrap_or(i64::MIN);
    let segment = source
        .sealed_segments()
        .into_iter()
        .find(|segment| segment.next_offset > remote_end)?;
    let from_offset = segment.base_offset.max(remote_end);
    (segment.next_offset <= source.stable_offset()).then_some((segment, from_offset))
}

fn page_of(segs: &[SegRef], epoch: i32) -> Option<PageRef> {
    Some(PageRef {
        ulid: Ulid::generate(),
        epoch,
        base: segs.first()?.base,
        next: segs.last()?.next,
        segments: u32::try_from(segs.len()).ok()?,
        bytes: segs.iter().map(|seg| seg.footer_pos).fold(0, u64::saturating_add),
        max_ts: segs.iter().map(|seg| seg.max_ts).max()?,
        uploaded_ms: segs.iter().map(|seg| seg.uploaded_ms).max()?,
        extra: serde_json::Map::new(),
    })
}
