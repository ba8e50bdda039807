//! Runs a chain over one batch: link after link, and within a link call after call.
//!
//! A link starts with one call for the whole batch. If the call fails, the window is halved and the halves are tried from left to
//! right, until every failing window is a single record, to which the binding's policy applies. Each call of such a search is a step of
//! its own, so that other batches run between them.
//!
//! | a call | leads to |
//! |---|---|
//! | answers | verdicts applied; next window, or next link |
//! | fails on many records | its halves |
//! | fails on one record | policy: keep, drop, reject, divert, or stall |
//! | cannot be made (no instance, `init` fails) | stall |
//! | trips the breaker | binding `closed`: stall; binding `open`: the link's input goes on unchanged |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use millstream_core::transform::{BatchContext, BreakerMode, ChainOutcome, Diverted, Hook, Limits, Rejected};
use tokio::sync::oneshot;

use crate::{
    breaker::Permit,
    instance::{CallInput, Failure},
    policy::{Action, Rules},
    pool::{CallError, Pool},
    section::{ApplyError, Effect, Output, OutputLimits, Section, Window},
    stats::Site,
    text,
    worker::Task,
};

/// A batch may keep one plugin busy for this many deadlines while its culprits are searched for; then it stalls.
const SEARCH_DEADLINES_MAX: u32 = 40;

/// A chain whose plugins are compiled and have their pools.
pub(crate) struct ResolvedChain {
    pub(crate) hook: Hook,
    pub(crate) topic: Arc<str>,
    pub(crate) view: Option<String>,
    pub(crate) links: Vec<Link>,
    pub(crate) record_bytes_max: usize,
}

/// One binding, ready to run.
pub(crate) struct Link {
    pub(crate) plugin: String,
    pub(crate) version: String,
    pub(crate) pool: Arc<Pool>,
    pub(crate) site: Arc<Site>,
    pub(crate) rules: Rules,
    pub(crate) breaker: BreakerMode,
    pub(crate) limits: Limits,
    pub(crate) dead_letter_topic: Option<String>,
}

impl Link {
    /// `reason`, with the plugin in front.
    fn blame(&self, reason: &str) -> String {
        text::line(&format!("{}@{}: {reason}", self.plugin, self.version))
    }
}

/// A batch on its way through a chain.
pub(crate) struct ChainRun {
    chain: Arc<ResolvedChain>,
    context: BatchContext,
    original: Section,
    section: Section,
    limits: OutputLimits,
    next_link: usize,
    link_run: Option<LinkRun>,
    changed: bool,
    rejected: Vec<Rejected>,
    diverted: Vec<PendingDivert>,
    reply: Option<oneshot::Sender<ChainOutcome>>,
}

/// A diverted record whose bytes are still to be cut out of the original batch.
struct PendingDivert {
    link: usize,
    effect: Effect,
}

/// A batch within one link.
struct LinkRun {
    output: Output,
    /// What is still to be tried; the last is next.
    windows: Vec<Window>,
    permit: Permit,
    crashed: bool,
    culprits: u32,
    spent: Duration,
}

enum LinkStep {
    /// All windows are done.
    Done(LinkRun),
    /// There are more.
    Again(LinkRun),
    /// Nothing may go through.
    Stalled(String),
    /// The breaker is tripped.
    Tripped,
    /// The batch is no batch.
    Malformed(String),
}

impl ChainRun {
    /// The batch's way through `chain`; the outcome goes to `reply`.
    pub(crate) fn new(chain: Arc<ResolvedChain>, context: BatchContext, section: Section, reply: oneshot::Sender<ChainOutcome>) -> Self {
        let limits = OutputLimits::new(section.bytes().len(), chain.record_bytes_max);
        Self {
            chain,
            context,
            original: section.clone(),
            section,
            limits,
            next_link: 0,
            link_run: None,
            changed: false,
            rejected: Vec::new(),
            diverted: Vec::new(),
            reply: Some(reply),
        }
    }

    /// Goes on until the outcome is known, or until others should have their turn.
    fn advance(&mut self) -> Option<ChainOutcome> {
        let chain = self.chain.clone();
        loop {
            let Some(link) = chain.links.get(self.next_link).filter(|_| self.section.record_count() > 0) else {
                return Some(self.finish());
            };
            let link_run = match self.link_run.take() {
                Some(link_run) => link_run,
                None => match link.site.breaker.admit(Instant::now()) {
                    Some(permit) => self.start(link, permit),
                    None => match self.refused(link) {
                        Some(outcome) => return Some(outcome),
                        None => continue,
                    },
                },
            };
            match link_run.step(link, &chain, &self.context) {
                LinkStep::Again(link_run) => {
                    self.link_run = Some(link_run);
                    return None;
                }
                LinkStep::Done(link_run) => {
                    self.merge(link, link_run);
                    if !self.rejected.is_empty() {
                        return Some(self.finish());
                    }
                }
                LinkStep::Stalled(reason) => {
                    return Some(ChainOutcome::Stalled {
                        reason: link.blame(&reason),
                    });
                }
                LinkStep::Tripped => {
                    if let Some(outcome) = self.refused(link) {
                        return Some(outcome);
                    }
                }
                LinkStep::Malformed(reason) => return Some(malformed(chain.hook, &reason)),
            }
        }
    }

    fn start(&self, link: &Link, permit: Permit) -> LinkRun {
        link.site.counters.batch_in(self.section.record_count());
        LinkRun {
            output: Output::new(self.section.clone(), link.rules, self.limits),
            windows: vec![self.section.window()],
            permit,
            crashed: false,
            culprits: 0,
            spent: Duration::ZERO,
        }
    }

    /// The breaker refuses: stalls, or skips the link.
    fn refused(&mut self, link: &Link) -> Option<ChainOutcome> {
        match link.breaker {
            BreakerMode::Closed => Some(ChainOutcome::Stalled {
                reason: link.blame("it crashed too often, its breaker is tripped"),
            }),
            BreakerMode::Open => {
                let topic = &*self.chain.topic;
                tracing::warn!(
                    plugin = link.plugin,
                    version = link.version,
                    topic,
                    "batch passes unfiltered: breaker tripped and open"
                );
                self.next_link += 1;
                None
            }
        }
    }

    fn merge(&mut self, link: &Link, link_run: LinkRun) {
        let (section, changed, effects, tally) = link_run.output.finish();
        link.site.counters.batch_out(section.record_count(), tally);
        link_run.permit.succeeded();
        self.section = section;
        self.changed |= changed;
        for effect in effects {
            match effect.action {
                Action::Reject => {
                    let index = i32::try_from(effect.record).unwrap_or(i32::MAX);
                    self.rejected.push(Rejected {
                        index,
                        reason: link.blame(&effect.reason),
                    });
                }
                Action::Divert => self.diverted.push(PendingDivert {
                    link: self.next_link,
                    effect,
                }),
                Action::Keep | Action::Drop | Action::Stall => {}
            }
        }
        self.next_link += 1;
    }

    fn finish(&mut self) -> ChainOutcome {
        if !self.changed {
            return ChainOutcome::Unchanged;
        }
        // A batch that fails must leave nothing behind: its producer sends it again.
        let diverted = if self.rejected.is_empty() {
            self.cut_diverted()
        } else {
            Vec::new()
        };
        ChainOutcome::Changed {
            records: self.section.bytes().clone(),
            record_count: i32::try_from(self.section.record_count()).unwrap_or(i32::MAX),
            rejected: std::mem::take(&mut self.rejected),
            diverted,
        }
    }

    fn cut_diverted(&mut self) -> Vec<Diverted> {
        let mut pending = std::mem::take(&mut self.diverted);
        pending.sort_by_key(|pending| pending.effect.record);
        let originals = self.original.records_at(pending.iter().map(|pending| pending.effect.record));
        pending
            .into_iter()
            .zip(originals)
            .filter_map(|(pending, original)| self.divert(pending, original))
            .collect()
    }

    fn divert(&self, pending: PendingDivert, original: Bytes) -> Option<Diverted> {
        let link = self.chain.links.get(pending.link)?;
        Some(Diverted {
            index: i32::try_from(pending.effect.record).unwrap_or(i32::MAX),
            original,
            dead_letter_topic: link.dead_letter_topic.clone()?,
            plugin: link.plugin.clone(),
            version: link.version.clone(),
            kind: pending.effect.kind,
            reason: pending.effect.reason,
        })
    }
}

impl Task for ChainRun {
    fn step(mut self: Box<Self>) -> Option<Box<dyn Task>> {
        if self.reply.as_ref().is_none_or(oneshot::Sender::is_closed) {
            // The caller has gone: nobody acknowledges this batch.
            return None;
        }
        let Some(outcome) = self.advance() else { return Some(self) };
        let reply = self.reply.take()?;
        // Whoever hears the outcome may count on the chain not being in use any more.
        drop(self);
        // The caller may have gone meanwhile.
        reply.send(outcome).ok();
        None
    }
}

impl LinkRun {
    /// Makes one call.
    fn step(mut self, link: &Link, chain: &ResolvedChain, context: &BatchContext) -> LinkStep {
        let Some(window) = self.windows.pop() else {
            return LinkStep::Done(self);
        };
        let started = Instant::now();
        let result = self.call(&window, link, chain, context);
        let elapsed = started.elapsed();
        link.site.counters.spent(elapsed);
        self.spent += elapsed;
        match result {
            Ok(Ok(())) => self.next(),
            Ok(Err(malformed)) => LinkStep::Malformed(malformed),
            Err(CallError::Unavailable(failure)) => self.unavailable(link, &failure),
            Err(CallError::Failed(failure)) => self.failed(window, link, chain, &failure),
        }
    }

    /// The inner error is a batch that is malformed, for which the plugin is not to blame.
    fn call(
        &mut self,
        window: &Window,
        link: &Link,
        chain: &ResolvedChain,
        context: &BatchContext,
    ) -> Result<Result<(), String>, CallError> {
        let bytes = self.output.input().bytes().clone();
        let call = CallInput {
            hook: chain.hook,
            topic: &chain.topic,
            view: chain.view.as_deref(),
            context,
            section: bytes.get(window.bytes.clone()).unwrap_or_default(),
            record_count: window.count,
            deadline_ms: link.limits.deadline_ms,
        };
        link.pool
            .call(&call, &link.site.counters, |reply| match self.output.apply(window, reply) {
                Ok(()) => Ok(Ok(())),
                Err(ApplyError::Records(reason)) => Ok(Err(reason)),
                Err(ApplyError::Reply(failure)) => Err(failure),
            })
    }

    fn next(self) -> LinkStep {
        match self.output.stall_reason() {
            Some(reason) => LinkStep::Stalled(reason.to_owned()),
            None if self.windows.is_empty() => LinkStep::Done(self),
            None => LinkStep::Again(self),
        }
    }

    fn unavailable(mut self, link: &Link, failure: &Failure) -> LinkStep {
        let reason = failure.reason();
        tracing::warn!(
            plugin = link.plugin,
            version = link.version,
            reason,
            "plugin has no instance to run"
        );
        link.site.counters.crashed();
        match self.permit.crashed(Instant::now(), link.limits.crashes_per_minute) {
            true => LinkStep::Tripped,
            false => LinkStep::Stalled(reason),
        }
    }

    fn failed(mut self, window: Window, link: &Link, chain: &ResolvedChain, failure: &Failure) -> LinkStep {
        let is_culprit = window.count <= 1;
        self.culprits += u32::from(is_culprit);
        let kind = match failure {
            Failure::Refused(_) => {
                link.site.counters.error();
                "error"
            }
            Failure::Crashed { .. } => {
                if self.crash_trips(is_culprit, link, failure) {
                    return LinkStep::Tripped;
                }
                "crash"
            }
        };
        if is_culprit {
            return self.judge(window, link, kind, failure);
        }
        if self.spent > Duration::from_millis(u64::from(link.limits.deadline_ms)) * SEARCH_DEADLINES_MAX {
            return LinkStep::Stalled(format!(
                "the search for the records on which it fails took too long; {}",
                failure.reason()
            ));
        }
        let topic = &*chain.topic;
        tracing::debug!(
            plugin = link.plugin,
            topic,
            records = window.count,
            reason = failure.reason(),
            "batch halved"
        );
        let (left, right) = self.output.input().halves(&window);
        self.windows.extend([right, left]);
        LinkStep::Again(self)
    }

    /// Counts a crash. The crashes of one search count once, and each further culprit it finds once more: the limit is on incidents.
    fn crash_trips(&mut self, is_culprit: bool, link: &Link, failure: &Failure) -> bool {
        link.site.counters.crashed();
        let is_incident = !self.crashed || (is_culprit && self.culprits > 1);
        self.crashed = true;
        if !is_incident {
            return false;
        }
        let trips = self.permit.crashed(Instant::now(), link.limits.crashes_per_minute);
        tracing::warn!(
            plugin = link.plugin,
            version = link.version,
            reason = failure.reason(),
            trips,
            "plugin crashed"
        );
        trips
    }

    /// The policy for the one record on which the plugin fails.
    fn judge(mut self, window: Window, link: &Link, kind: &'static str, failure: &Failure) -> LinkStep {
        let action = link.rules.on_failure();
        self.output.act(window, action, kind, &failure.reason());
        if action == Action::Reject {
            // The batch fails whatever the other records do.
            self.windows.clear();
        }
        self.next()
    }
}

/// A batch that is no batch. The broker checks batches before; this is the second lock on the door.
pub(crate) fn malformed(hook: Hook, reason: &str) -> ChainOutcome {
    let reason = text::line(&format!("malformed record section: {reason}"));
    match hook {
        Hook::Produce => {
            let rejected = vec![Rejected { index: 0, reason }];
            ChainOutcome::Changed {
                records: Bytes::new(),
                record_count: 0,
                rejected,
                diverted: Vec::new(),
            }
        }
        Hook::View => ChainOutcome::Stalled { reason },
    }
}
