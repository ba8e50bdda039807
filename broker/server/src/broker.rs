//! The broker: everything a handler may use, its start and its stop.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
};

use millstream_core::{
    metadata::{
        ClusterImage,
        controller::{self, Wish},
        image::{TopicImage, ViewImage},
    },
    transform::Transform,
};
use millstream_log::{LogDir, LogError, remote::RemoteLog};
use millstream_protocol::ErrorCode;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use crate::{
    answer_memory::AnswerMemory,
    cleaner,
    clock::Clock,
    config::{BrokerConfig, ConfigError},
    fetch_sessions::FetchSessions,
    groups::GroupService,
    housekeeping,
    log_levels::LogLevels,
    metadata::{MetadataError, MetadataService},
    metrics::Metrics,
    partition::Partition,
    partitions::Partitions,
    plugins::{PluginService, PluginServiceError},
    quotas::Quotas,
    share::ShareService,
    telemetry::Telemetry,
    transactions::TransactionService,
    views::ViewCursors,
};

/// What a broker is made of; the composition root chooses the adapters.
pub struct BrokerParts {
    /// Start configuration, already checked.
    pub config: BrokerConfig,
    /// The cluster's id.
    pub cluster_id: Uuid,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The directory of all logs.
    pub log_dir: Arc<LogDir>,
    /// The tier, if there is one.
    pub remote: Option<Arc<dyn RemoteLog>>,
    /// The plugin host.
    pub transform: Arc<dyn Transform>,
    /// Levels of the process's loggers.
    pub log_levels: Arc<LogLevels>,
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Metadata.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// Logs.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Plugins.
    #[error(transparent)]
    Plugins(#[from] PluginServiceError),
}

/// A topic or a view by its name.
#[derive(Debug, Clone)]
pub enum Named {
    /// A topic.
    Topic(Arc<TopicImage>),
    /// A view and the topic whose log it reads.
    View(Arc<ViewImage>, Arc<TopicImage>),
}

impl Named {
    /// Looks a name up.
    pub fn by_name(image: &ClusterImage, name: &str) -> Option<Self> {
        if let Some(topic) = image.topic(name) {
            return Some(Self::Topic(Arc::clone(topic)));
        }
        let view = image.view(name)?;
        let (root, _) = image.view_path(name)?;
        Some(Self::View(Arc::clone(view), Arc::clone(root)))
    }

    /// Looks an id up.
    pub fn by_id(image: &ClusterImage, id: Uuid) -> Option<Self> {
        Self::by_name(image, image.names.get(&id)?)
    }

    /// The topic in whose log the records are.
    pub fn stored_in(&self) -> &Arc<TopicImage> {
        match self {
            Self::Topic(topic) | Self::View(_, topic) => topic,
        }
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        match self {
            Self::Topic(topic) => &topic.name,
            Self::View(view, _) => &view.name,
        }
    }

    /// Its own id.
    pub fn id(&self) -> Uuid {
        match self {
            Self::Topic(topic) => topic.id,
            Self::View(view, _) => view.id,
        }
    }
}

/// A running broker.
pub struct Broker {
    /// Start configuration.
    pub config: BrokerConfig,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The cluster's metadata.
    pub metadata: Arc<MetadataService>,
    /// Consumer groups.
    pub groups: GroupService,
    /// Transactions.
    pub transactions: TransactionService,
    /// Share groups.
    pub shares: ShareService,
    /// Plugins and chains.
    pub plugins: PluginService,
    /// Counters and gauges.
    pub metrics: Metrics,
    pub(crate) log_levels: Arc<LogLevels>,
    pub(crate) answer_memory: AnswerMemory,
    /// The tier, if there is one.
    pub remote: Option<Arc<dyn RemoteLog>>,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) sessions: FetchSessions,
    pub(crate) quotas: Quotas,
    pub(crate) telemetry: Telemetry,
    pub(crate) view_cursors: ViewCursors,
    pub(crate) stopping: watch::Sender<bool>,
    producer_ids: Mutex<Range<i64>>,
    advertised: OnceLock<(String, u16)>,
    log_dir: Arc<LogDir>,
}

impl Broker {
    /// Replays what is on disk and starts the background work. It serves once a [`crate::Listener`] is given it.
    pub async fn start(parts: BrokerParts) -> Result<Arc<Self>, StartError> {
        let BrokerParts {
            config,
            cluster_id,
            clock,
            log_dir,
            remote,
            transform,
            log_levels,
        } = parts;
        config.check()?;
        config.warn_of_settings_without_effect();
        let config = config.with_identity(remote.is_some());
        let metadata = {
            let (log_dir, values, clock) = (Arc::clone(&log_dir), config.values.clone(), Arc::clone(&clock));
            let node_id = config.node_id;
            let open = move || MetadataService::open(&log_dir, cluster_id, node_id, values, clock);
            Arc::new(
                tokio::task::spawn_blocking(open)
                    .await
                    .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?,
            )
        };
        let expiration_ms = config.number("producer.id.expiration.ms");
        let partitions = Arc::new(Partitions::new(
            config.node_id,
            Arc::clone(&log_dir),
            remote.clone(),
            config.values.clone(),
            expiration_ms,
        ));
        {
            let partitions = Arc::clone(&partitions);
            metadata.set_follower(Box::new(move |image| partitions.follow(image)));
        }
        metadata.restart_broker(config.node_id).await?;
        {
            let (partitions, image) = (Arc::clone(&partitions), metadata.image());
            let follow = move || partitions.follow(&image).and_then(|()| partitions.delete_strays());
            tokio::task::spawn_blocking(follow)
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        }
        let broker = Arc::new(Self {
            groups: GroupService::new(&config, &*clock),
            transactions: TransactionService::new(&config, &*clock),
            shares: ShareService::new(&config, &*clock),
            plugins: PluginService::new(transform),
            quotas: Quotas::new(&config),
            telemetry: Telemetry::default(),
            sessions: FetchSessions::new(config.size("max.incremental.fetch.session.cache.slots")),
            view_cursors: ViewCursors::default(),
            metrics: Metrics::new(),
            log_levels,
            answer_memory: AnswerMemory::new(config.size("millstream.request.memory.bytes")),
            stopping: watch::Sender::new(false),
            producer_ids: Mutex::new(0..0),
            advertised: OnceLock::new(),
            config,
            clock,
            metadata,
            remote,
            partitions,
            log_dir,
        });
        broker.plugins.load(&broker).await?;
        broker.groups.load(&broker);
        broker.transactions.load(&broker);
        broker.shares.load(&broker);
        housekeeping::spawn(&broker);
        cleaner::spawn(&broker);
        Ok(broker)
    }

    /// Sets what clients are told to connect to. Only the first call counts.
    pub fn set_advertised(&self, host: String, port: u16) {
        // The listener is bound once.
        let _ = self.advertised.set((host, port));
    }

    /// Host and port that clients are told to connect to.
    pub fn advertised(&self) -> (String, u16) {
        self.advertised
            .get()
            .cloned()
            .unwrap_or_else(|| (self.config.kafka_address.ip().to_string(), self.config.kafka_address.port()))
    }

    /// A partition of a topic by its number, whoever asks for it by name or through a view.
    pub fn partition(&self, topic: &TopicImage, number: i32) -> Option<Arc<Partition>> {
        self.partitions.get(topic.id, number)
    }

    /// All partitions on this broker.
    pub fn all_partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.all()
    }

    /// Whether the data directory failed.
    pub fn is_offline(&self) -> bool {
        self.log_dir.is_offline()
    }

    /// The directory of all logs.
    pub fn log_dir(&self) -> &Arc<LogDir> {
        &self.log_dir
    }

    /// An internal topic, if it was created.
    pub fn internal_topic(&self, name: &str) -> Option<Arc<TopicImage>> {
        self.metadata.image().topic(name).cloned()
    }

    /// Creates topics as a client's mention of them may; results in the order of the names.
    pub async fn auto_create(&self, names: Vec<String>) -> Result<Vec<Result<Arc<TopicImage>, ErrorCode>>, MetadataError> {
        let wishes: Vec<Wish> = names.into_iter().map(|name| Wish { name, id: Uuid::new_v4() }).collect();
        let outcomes = self
            .metadata
            .decide(true, move |context| controller::auto_create_topics(context, &wishes))
            .await?;
        Ok(outcomes
            .into_iter()
            .map(|outcome| outcome.map(Arc::new).map_err(|refusal| refusal.code))
            .collect())
    }

    /// A producer id that was never given out.
    pub async fn next_producer_id(&self) -> Result<i64, MetadataError> {
        let mut block = self.producer_ids.lock().await;
        if block.is_empty() {
            let outcome = self.metadata.decide(true, controller::allocate_producer_ids).await?;
            *block = outcome.map_err(|refusal| MetadataError::Record {
                offset: -1,
                reason: refusal.message,
            })?;
        }
        let id = block.start;
        block.start += 1;
        Ok(id)
    }

    /// Resolves once the broker is stopping.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as the broker, so this only ends with `true`.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Stops background work and closes all logs cleanly. Connections see their requests fail or end.
    pub async fn shutdown(self: &Arc<Self>) -> Result<(), LogError> {
        self.stopping.send_replace(true);
        self.transactions.stop().await;
        self.shares.stop().await;
        self.groups.stop().await;
        let broker = Arc::clone(self);
        let close = move || {
            let mut logs: Vec<_> = broker
                .partitions
                .all()
                .iter()
                .map(|partition| Arc::clone(partition.log()))
                .collect();
            logs.push(Arc::clone(broker.metadata.log()));
            broker.log_dir.close(&logs)
        };
        tokio::task::spawn_blocking(close)
            .await
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}
