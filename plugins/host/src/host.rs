//! The host as the broker holds it: the port's four calls, and the metrics that plugins keep.

use std::sync::Arc;

use bytes::Bytes;
use millstream_core::transform::{BatchContext, Chain, ChainOutcome, Inspected, PluginStats, PortFuture, Transform, TransformError};
use tokio::sync::oneshot;

use crate::{
    HostError, HostOptions,
    chain::{ChainRun, ResolvedChain, malformed},
    compile::Compiler,
    engine::{self, Ticker},
    imports,
    inspect::{self, known_hooks},
    instance::Failure,
    registry::{Registry, Unready},
    section::Section,
    stats::hook_name,
    telemetry::CustomMetric,
    worker::{Once, Workers},
};

/// Runs plugins. Its threads end when it is dropped; batches that are still waiting then stall.
pub struct PluginHost {
    component_bytes_max: usize,
    ticker: Arc<Ticker>,
    compiler: Compiler,
    registry: Registry,
    workers: Workers,
}

impl PluginHost {
    /// Starts the engine and the threads.
    pub fn new(options: HostOptions) -> Result<Arc<Self>, HostError> {
        let engine = engine::engine(&options)?;
        let ticker = Arc::new(Ticker::start(&engine)?);
        let linker = imports::linker(&engine).map_err(|error| HostError::Engine {
            reason: format!("{error:#}"),
        })?;
        Ok(Arc::new(Self {
            component_bytes_max: options.component_bytes_max,
            ticker: ticker.clone(),
            compiler: Compiler::start(linker, &options)?,
            workers: Workers::start("plugin", options.workers, options.queue_batches_max)?,
            registry: Registry::new(options, ticker),
        }))
    }

    /// Counters and histograms that plugins keep through `counter-add` and `histogram-record`.
    pub fn custom_metrics(&self) -> Vec<CustomMetric> {
        self.registry.custom_metrics()
    }

    /// Log lines of plugins that were left out because they came too fast.
    pub fn log_lines_dropped(&self) -> u64 {
        self.registry.log_lines_dropped()
    }

    /// Instances that hold memory now, idle ones included.
    pub fn live_instances(&self) -> u64 {
        self.compiler
            .linker()
            .engine()
            .pooling_allocator_metrics()
            .map_or(0, |metrics| metrics.component_instances())
    }

    async fn inspect_wasm(&self, wasm: Bytes) -> Result<Inspected, TransformError> {
        let (linker, ticker, bytes_max) = (self.compiler.linker().clone(), self.ticker.clone(), self.component_bytes_max);
        let busy = || TransformError::Invalid("too many plugins wait to be looked at; try again".to_owned());
        let inspection = self
            .compiler
            .run(move || inspect::inspect(&linker, &ticker, wasm, bytes_max))
            .ok_or_else(busy)?;
        inspection.await.map_err(|_| busy())?.map_err(TransformError::Invalid)
    }

    async fn prepare_chain(&self, chain: &Arc<Chain>) -> Result<(), TransformError> {
        for binding in &chain.bindings {
            let invalid = |reason: String| TransformError::Invalid(format!("{}: {reason}", crate::registry::label(&binding.artefact)));
            let compiled = self.compiler.request(&binding.artefact).await;
            compiled.map_err(|_| invalid("the host is stopping".to_owned()))?.map_err(invalid)?;
        }
        let resolved = match self.registry.resolve(chain, &self.compiler) {
            Ok(resolved) => resolved,
            Err(Unready::Refused(error)) => return Err(error),
            Err(Unready::Compile(_)) => {
                return Err(TransformError::Invalid(
                    "too many plugins are prepared at once; try again".to_owned(),
                ));
            }
        };
        let warm = self.warm_up(&resolved).await;
        if warm.is_err() {
            self.registry.forget(chain);
        }
        warm
    }

    /// Makes an instance of every plugin of a chain.
    async fn warm_up(&self, chain: &Arc<ResolvedChain>) -> Result<(), TransformError> {
        let (reply, result) = oneshot::channel();
        let chain = chain.clone();
        let task = Once(move || {
            let warm = warm_up_links(&chain);
            // Whoever hears the answer may count on the chain's memory being free once he drops the chain.
            drop(chain);
            // The caller may have gone; the instances are there all the same.
            reply.send(warm).ok();
        });
        let busy = || TransformError::Invalid("too many batches wait; try again".to_owned());
        self.workers.submit(Box::new(task)).map_err(|_| busy())?;
        result.await.map_err(|_| busy())?
    }

    async fn run_chain(&self, chain: &Arc<Chain>, context: BatchContext, records: Bytes) -> ChainOutcome {
        let section = match Section::new(records, context.record_count) {
            Ok(section) => section,
            Err(reason) => return malformed(chain.hook, &reason),
        };
        if section.record_count() == 0 || chain.bindings.is_empty() {
            return ChainOutcome::Unchanged;
        }
        let resolved = match self.registry.resolve(chain, &self.compiler) {
            Ok(resolved) => resolved,
            Err(Unready::Refused(error)) => return ChainOutcome::Stalled { reason: error.to_string() },
            Err(Unready::Compile(artefacts)) => {
                // Compiling can take seconds, a request may not: the client comes back.
                let waiting: Vec<String> = artefacts.iter().map(|artefact| crate::registry::label(artefact)).collect();
                artefacts.iter().for_each(|artefact| drop(self.compiler.request(artefact)));
                return ChainOutcome::Stalled {
                    reason: format!("being compiled: {}", waiting.join(", ")),
                };
            }
        };
        let (reply, outcome) = oneshot::channel();
        if self
            .workers
            .submit(Box::new(ChainRun::new(resolved, context, section, reply)))
            .is_err()
        {
            return ChainOutcome::Stalled {
                reason: "too many batches wait for plugins".to_owned(),
            };
        }
        outcome.await.unwrap_or_else(|_| ChainOutcome::Stalled {
            reason: "the plugin host is stopping".to_owned(),
        })
    }
}

impl Transform for PluginHost {
    fn inspect(&self, wasm: Bytes) -> PortFuture<'_, Result<Inspected, TransformError>> {
        Box::pin(self.inspect_wasm(wasm))
    }

    fn prepare(&self, chain: Arc<Chain>) -> PortFuture<'_, Result<(), TransformError>> {
        Box::pin(async move { self.prepare_chain(&chain).await })
    }

    fn run(&self, chain: Arc<Chain>, context: BatchContext, records: Bytes) -> PortFuture<'_, ChainOutcome> {
        Box::pin(async move { self.run_chain(&chain, context, records).await })
    }

    fn stats(&self) -> Vec<PluginStats> {
        self.registry.stats()
    }
}

fn warm_up_links(chain: &ResolvedChain) -> Result<(), TransformError> {
    for link in &chain.links {
        let plugin = format!("{}@{}", link.plugin, link.version);
        let info = link
            .pool
            .warm_up(&chain.topic, link.limits.deadline_ms)
            .map_err(|failure| match failure {
                Failure::Refused(reason) => TransformError::BadConfig {
                    plugin: plugin.clone(),
                    reason,
                },
                Failure::Crashed { .. } => TransformError::Invalid(format!("{plugin}: {}", failure.reason())),
            })?;
        if !known_hooks(&info.hooks).contains(&chain.hook) {
            return Err(TransformError::Invalid(format!(
                "{plugin} cannot be bound to {}",
                hook_name(chain.hook)
            )));
        }
    }
    Ok(())
}
