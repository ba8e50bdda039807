//! The plugin service: the store of pushed components, and the chains that bindings make of them.
//!
//! Components lie in the internal topic `__millstream_plugins` (`chunks`); what is registered and bound is in the cluster's
//! metadata. A push stores first and registers then, so what the metadata names is on disk; a removal goes the other way. What
//! the topic holds beyond the metadata is a push that was refused or broke off, and is not read into memory.
//!
//! Invariants: a chain is made of all its bindings or not at all (`chains`); what changes the store is done by one task at a
//! time and to its end, even if the client that asked goes away; a binding is committed only after the host has compiled its
//! whole chain and every plugin took its configuration (`bindings`).

mod bindings;
mod chains;
mod chunks;
mod versions;

pub use chains::MissingArtefact;
pub use chunks::ChunkError;
pub use versions::latest_version;

use std::{collections::BTreeMap, future::Future, sync::Arc};

use bytes::Bytes;
use millstream_core::{
    metadata::{
        ClusterImage,
        controller::{self, Context, Decision, NewPlugin, Outcome, Refusal, Wish},
        image::{PluginImage, TopicImage},
        names,
    },
    transform::{Artefact, BatchContext, Chain, ChainOutcome, PluginStats, PortFuture, Transform, TransformError},
};
use millstream_log::{AppendError, LogError};
use millstream_protocol::record::BatchHeader;
use tokio::sync::Mutex;
use uuid::Uuid;

use self::{
    chains::Chains,
    chunks::{Replay, sha256_hex, store_batches, tombstone_batches},
};
use crate::{broker::Broker, metadata::MetadataError, partition::Partition};

/// Bytes of all registered components together: they are held in memory.
const STORE_BYTES_MAX: u64 = 1 << 30;

/// Why the plugin service did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum PluginServiceError {
    /// The controller refused.
    #[error("{}", .0.message)]
    Refused(Refusal),
    /// The plugin host refused.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// The chain cannot be made.
    #[error(transparent)]
    Missing(#[from] MissingArtefact),
    /// The registry is full.
    #[error("registered plugins have {stored_bytes} bytes, {wanted_bytes} more would exceed {STORE_BYTES_MAX}: remove some first")]
    StoreFull {
        /// What is there.
        stored_bytes: u64,
        /// What was to be added.
        wanted_bytes: u64,
    },
    /// The store's partition is not on this broker, was closed, or its disk failed.
    #[error("the plugin store (topic __millstream_plugins) is not available")]
    Unavailable,
    /// Metadata.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The store's log.
    #[error("plugin store: {0}")]
    Log(#[from] LogError),
    /// An append to it.
    #[error("append to the plugin store: {0}")]
    Append(#[from] AppendError),
    /// A batch of it.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
}

impl From<Refusal> for PluginServiceError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Plugins and chains of one broker.
pub struct PluginService {
    transform: Arc<dyn Transform>,
    chains: Chains,
    /// Held by whoever changes the store.
    storing: Mutex<()>,
}

impl PluginService {
    /// A service without plugins, until it is loaded.
    pub fn new(transform: Arc<dyn Transform>) -> Self {
        Self {
            transform,
            chains: Chains::default(),
            storing: Mutex::default(),
        }
    }

    /// Reads the registered components back and has all chains compiled in the background. A component that is missing or
    /// damaged is logged; what needs it fails closed.
    pub async fn load(&self, broker: &Arc<Broker>) -> Result<(), PluginServiceError> {
        let image = broker.metadata.image();
        let wanted = image
            .plugins
            .iter()
            .map(|(id, plugin)| (id.clone(), plugin.sha256.clone()))
            .collect();
        let partition = image.topic(names::PLUGINS).and_then(|topic| broker.partition(topic, 0));
        let (artefacts, missing) = blocking(move || replay(partition.as_deref(), wanted)).await?;
        for (name, version) in missing {
            tracing::error!(
                plugin = name,
                version,
                "the component of a registered plugin is missing or damaged; push it again"
            );
        }
        self.chains.set_artefacts(artefacts);
        self.prepare_all(&image);
        Ok(())
    }

    fn prepare_all(&self, image: &ClusterImage) {
        let of_topics = image.topics.values().map(|topic| (topic.name.clone(), self.produce_chain(topic)));
        let of_views = image
            .views
            .values()
            .map(|view| (view.name.clone(), self.view_chain(image, &view.name).map(Some)));
        let chains: Vec<_> = of_topics.chain(of_views).collect();
        let transform = Arc::clone(&self.transform);
        tokio::spawn(async move {
            for (target, chain) in chains {
                let result = match chain {
                    Ok(None) => Ok(()),
                    Ok(Some(chain)) => transform.prepare(chain).await.map_err(PluginServiceError::from),
                    Err(missing) => Err(PluginServiceError::from(missing)),
                };
                if let Err(error) = result {
                    tracing::error!(target_name = target, %error, "a plugin chain is not ready");
                }
            }
        });
    }

    /// Inspects, stores and registers a plugin. Pushing the same bytes again is fine; other bytes need another version.
    pub async fn push(&self, broker: &Arc<Broker>, wasm: Bytes) -> Result<Arc<PluginImage>, PluginServiceError> {
        let inspected = self.transform.inspect(wasm).await?;
        let component = inspected.component;
        let hashed = component.clone();
        let sha256 = blocking(move || sha256_hex(&hashed)).await;
        let new = NewPlugin {
            name: inspected.name,
            version: inspected.version,
            sha256,
            size_bytes: component.len() as u64,
            hooks: inspected.hooks,
            config_schema: inspected.config_schema,
        };
        let broker = Arc::clone(broker);
        to_its_end(async move { broker.plugins.store_and_register(&broker, new, component).await }).await
    }

    async fn store_and_register(
        &self,
        broker: &Arc<Broker>,
        new: NewPlugin,
        component: Bytes,
    ) -> Result<Arc<PluginImage>, PluginServiceError> {
        let _storing = self.storing.lock().await;
        // What would be refused is not stored.
        rehearse(broker, |context| controller::register_plugin(context, &new))?.0?;
        let image = broker.metadata.image();
        if let Some(known) = image.plugin(&new.name, &new.version)
            && self.chains.artefact(&new.name, &new.version, &new.sha256).is_some()
        {
            return Ok(Arc::clone(known));
        }
        let others = image
            .plugins
            .values()
            .filter(|plugin| (&plugin.name, &plugin.version) != (&new.name, &new.version));
        let stored_bytes = others.map(|plugin| plugin.size_bytes).sum::<u64>();
        if stored_bytes.saturating_add(new.size_bytes) > STORE_BYTES_MAX {
            return Err(PluginServiceError::StoreFull {
                stored_bytes,
                wanted_bytes: new.size_bytes,
            });
        }
        let (name, version) = (new.name.clone(), new.version.clone());
        let artefact = Arc::new(Artefact {
            name: name.clone(),
            version: version.clone(),
            sha256: new.sha256.clone(),
            component,
        });
        let batches = store_batches(&artefact, broker.clock.wall_ms())?;
        append(broker, batches).await?;
        broker
            .metadata
            .decide(true, move |context| controller::register_plugin(context, &new))
            .await??;
        self.chains.insert(artefact);
        let registered = broker.metadata.image().plugin(&name, &version).cloned();
        registered.ok_or_else(|| unreachable!("{name}@{version} was registered while nobody else could remove it"))
    }

    /// Takes a plugin version that nothing is bound to out of the registry and the store.
    pub async fn remove(&self, broker: &Arc<Broker>, name: &str, version: &str) -> Result<(), PluginServiceError> {
        let (broker, name, version) = (Arc::clone(broker), name.to_owned(), version.to_owned());
        to_its_end(async move { broker.plugins.unregister_and_delete(&broker, name, version).await }).await
    }

    async fn unregister_and_delete(&self, broker: &Arc<Broker>, name: String, version: String) -> Result<(), PluginServiceError> {
        let _storing = self.storing.lock().await;
        let removed = (name.clone(), version.clone());
        broker
            .metadata
            .decide(true, move |context| controller::remove_plugin(context, &removed.0, &removed.1))
            .await??;
        match self.chains.remove(&name, &version) {
            Some(artefact) => append(broker, tombstone_batches(&artefact, broker.clock.wall_ms())?).await,
            None => Ok(()),
        }
    }

    /// What runs when records are produced to a topic; `None` if nothing is bound to it.
    pub fn produce_chain(&self, topic: &TopicImage) -> Result<Option<Arc<Chain>>, MissingArtefact> {
        self.chains.produce_chain(topic)
    }

    /// What runs when a view is read: the chains of all views on its path, the one next to the topic first.
    pub fn view_chain(&self, image: &ClusterImage, view: &str) -> Result<Arc<Chain>, MissingArtefact> {
        self.chains.view_chain(image, view)
    }

    /// Runs a chain over one batch's record section.
    pub fn run(&self, chain: Arc<Chain>, context: BatchContext, records: Bytes) -> PortFuture<'_, ChainOutcome> {
        self.transform.run(chain, context, records)
    }

    /// Counters per plugin, hook and topic.
    pub fn stats(&self) -> Vec<PluginStats> {
        self.transform.stats()
    }
}

/// What a decision would be on the current image: its reply, and the image it would make. Commits nothing.
fn rehearse<R>(
    broker: &Broker,
    decide: impl FnOnce(&Context<'_>) -> Decision<Outcome<R>>,
) -> Result<(Outcome<R>, ClusterImage), PluginServiceError> {
    let image = broker.metadata.image();
    let brokers = [broker.config.node_id];
    let context = Context {
        image: &image,
        brokers: &brokers,
        fixed_configs: broker.metadata.fixed_configs(),
        now_ms: broker.clock.wall_ms(),
        cluster_admin: true,
    };
    let Decision { records, reply } = decide(&context);
    let mut next = ClusterImage::clone(&image);
    for record in &records {
        next.apply(record).map_err(|error| MetadataError::Record {
            offset: -1,
            reason: error.to_string(),
        })?;
    }
    Ok((reply, next))
}

/// Appends batches to the store, which is created if need be, and waits until they are safe.
async fn append(broker: &Arc<Broker>, batches: Vec<(BatchHeader, Bytes)>) -> Result<(), PluginServiceError> {
    let partition = store_partition(broker).await?;
    let now_ms = broker.clock.wall_ms();
    let appender = Arc::clone(&partition);
    let end = blocking(move || {
        let mut end = 0;
        for (header, batch) in &batches {
            end = appender.append(header, batch, now_ms, None)?.log_end_offset;
        }
        Ok::<i64, PluginServiceError>(end)
    })
    .await?;
    if partition.wait_for(end).await {
        Ok(())
    } else {
        Err(PluginServiceError::Unavailable)
    }
}

async fn store_partition(broker: &Arc<Broker>) -> Result<Arc<Partition>, PluginServiceError> {
    if broker.metadata.image().topic(names::PLUGINS).is_none() {
        let wish = [Wish {
            name: names::PLUGINS.to_owned(),
            id: Uuid::new_v4(),
        }];
        let outcomes = broker
            .metadata
            .decide(true, move |context| controller::auto_create_topics(context, &wish))
            .await?;
        outcomes.into_iter().collect::<Outcome<Vec<_>>>()?;
    }
    let image = broker.metadata.image();
    image
        .topic(names::PLUGINS)
        .and_then(|topic| broker.partition(topic, 0))
        .ok_or(PluginServiceError::Unavailable)
}

type Replayed = (chunks::Artefacts, Vec<(String, String)>);

fn replay(partition: Option<&Partition>, wanted: BTreeMap<(String, String), String>) -> Result<Replayed, PluginServiceError> {
    let mut replay = Replay::new(wanted);
    if let Some(partition) = partition {
        let log = partition.log();
        log.replay(log.log_start_offset(), |header, batch| {
            Ok::<(), PluginServiceError>(replay.batch(&header, &batch)?)
        })?;
    }
    Ok(replay.finish())
}

/// Runs what blocks off the runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Runs a change to its end even if whoever waits for it stops waiting, as an HTTP request does when its client goes away.
async fn to_its_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> T {
    tokio::spawn(change)
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
