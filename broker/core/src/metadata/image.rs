//! The whole metadata of the cluster at one moment.
//!
//! Shared as `Arc<ClusterImage>`. Topics, views and plugins sit behind their own `Arc`, so a copy costs pointers, and whoever holds
//! an old image keeps a consistent one. Everything is in ordered maps: two images with the same records are equal and list
//! alike on every broker.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    configs::{BrokerLayers, Overrides, TopicConfig},
    id,
};
use crate::quota::{QuotaEntity, QuotaValues};
use crate::transform::{BreakerMode, FailurePolicy, Hook, Limits};

/// A partition's replicas and leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionImage {
    /// Brokers that hold it, the preferred leader first.
    pub replicas: Vec<i32>,
    /// Those that are in sync.
    pub isr: Vec<i32>,
    /// The leader, -1 if there is none.
    pub leader: i32,
    /// Grows with every change of leadership.
    pub leader_epoch: i32,
}

/// A plugin bound to a topic's produce hook, or a link of a view's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingImage {
    /// Name, unique on its topic or view.
    pub name: String,
    /// Where it runs.
    pub hook: Hook,
    /// Place in the chain, smallest first; equal ones go by name.
    pub order: i32,
    /// The plugin.
    pub plugin: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of its component, lower-case hexadecimal.
    pub sha256: String,
    /// Its configuration, a JSON object as text.
    pub config: String,
    /// What to do with a record on which it fails.
    pub policy: FailurePolicy,
    /// What to do once it crashed too often.
    pub breaker: BreakerMode,
    /// Its limits.
    pub limits: Limits,
    /// Where diverted records go.
    pub dead_letter_topic: Option<String>,
    /// Whether it protects something: it can then never be passed by.
    pub security: bool,
}

/// A topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Name.
    pub name: String,
    /// Id; survives everything but deletion and is never given twice.
    pub id: Uuid,
    /// Partitions by number, dense from 0.
    pub partitions: Vec<PartitionImage>,
    /// Values set on the topic.
    pub configs: Overrides,
    /// Whether it is the broker's own.
    pub internal: bool,
    /// Creation time.
    pub created_ms: i64,
    /// Its produce chain, in order.
    pub bindings: Vec<BindingImage>,
    /// The image's epoch when the chain last changed; part of every cache key.
    pub chain_version: u64,
}

/// A read-only topic over another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ViewImage {
    /// Name.
    pub name: String,
    /// Id, from the same space as topic ids.
    pub id: Uuid,
    /// The topic or view it reads.
    pub source: String,
    /// Its chain, in order; never empty.
    pub bindings: Vec<BindingImage>,
    /// Values set on the view.
    pub configs: Overrides,
    /// Creation time.
    pub created_ms: i64,
    /// The image's epoch when the chain last changed.
    pub chain_version: u64,
}

/// A pushed plugin, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PluginImage {
    /// Name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// SHA-256 of its component, lower-case hexadecimal.
    pub sha256: String,
    /// Size of its component in bytes.
    pub size_bytes: u64,
    /// Hooks it can be bound to.
    pub hooks: Vec<Hook>,
    /// JSON Schema of its configuration, empty if it takes none.
    pub config_schema: String,
    /// When it was pushed.
    pub pushed_ms: i64,
}

/// The image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterImage {
    /// The cluster's id; never changes.
    pub cluster_id: Uuid,
    /// How many records made this image; grows with every batch that is applied.
    pub epoch: u64,
    /// Topics by name.
    pub topics: BTreeMap<String, Arc<TopicImage>>,
    /// Views by name.
    pub views: BTreeMap<String, Arc<ViewImage>>,
    /// Names of topics and views by id.
    pub names: BTreeMap<Uuid, String>,
    /// Plugins by name and version.
    pub plugins: BTreeMap<(String, String), Arc<PluginImage>>,
    /// Values altered for all brokers.
    pub broker_default_configs: Overrides,
    /// Values altered for one broker.
    pub broker_configs: BTreeMap<i32, Overrides>,
    /// Values set on groups.
    pub group_configs: BTreeMap<String, Overrides>,
    /// Client metrics subscriptions.
    pub client_metrics: BTreeMap<String, Overrides>,
    /// Client quotas.
    pub client_quotas: BTreeMap<QuotaEntity, QuotaValues>,
    /// Levels of features that are not at their highest.
    pub feature_levels: BTreeMap<String, i16>,
    /// First producer id that no block holds yet.
    pub next_producer_id: i64,
}

impl ClusterImage {
    /// The image of a cluster in which nothing has happened.
    pub fn empty(cluster_id: Uuid) -> Self {
        Self {
            cluster_id,
            epoch: 0,
            topics: BTreeMap::new(),
            views: BTreeMap::new(),
            names: BTreeMap::new(),
            plugins: BTreeMap::new(),
            broker_default_configs: Overrides::new(),
            broker_configs: BTreeMap::new(),
            group_configs: BTreeMap::new(),
            client_metrics: BTreeMap::new(),
            client_quotas: BTreeMap::new(),
            feature_levels: BTreeMap::new(),
            next_producer_id: 0,
        }
    }

    /// The cluster id as clients see it.
    pub fn cluster_id_text(&self) -> String {
        id::render(self.cluster_id)
    }

    /// A topic by name.
    pub fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    /// A topic by id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// A view by name.
    pub fn view(&self, name: &str) -> Option<&Arc<ViewImage>> {
        self.views.get(name)
    }

    /// A view by id.
    pub fn view_by_id(&self, id: Uuid) -> Option<&Arc<ViewImage>> {
        self.views.get(self.names.get(&id)?)
    }

    /// A plugin by name and version.
    pub fn plugin(&self, name: &str, version: &str) -> Option<&Arc<PluginImage>> {
        self.plugins.get(&(name.to_owned(), version.to_owned()))
    }

    /// A view's chain of views, the one next to the topic first and the named one last, and the topic at its root. The chains
    /// run in this order. `None` if the name is no view.
    pub fn view_path(&self, name: &str) -> Option<(&Arc<TopicImage>, Vec<&Arc<ViewImage>>)> {
        let mut path = vec![self.views.get(name)?];
        // Sources exist before their views and never change, so this ends; the bound only says so to a reader.
        for _ in 0..=self.views.len() {
            let source = &path.last()?.source;
            if let Some(topic) = self.topics.get(source) {
                path.reverse();
                return Some((topic, path));
            }
            path.push(self.views.get(source)?);
        }
        None
    }

    /// The version of everything a view runs: it grows whenever any chain on its path changes.
    pub fn view_chain_version(&self, name: &str) -> Option<u64> {
        let (_, path) = self.view_path(name)?;
        path.iter().map(|view| view.chain_version).max()
    }

    /// What is set on a broker, its configuration file included; `None` asks for what holds for all brokers.
    pub fn broker_layers<'a>(&'a self, broker_id: Option<i32>, fixed: &'a Overrides) -> BrokerLayers<'a> {
        let dynamic = broker_id
            .and_then(|id| self.broker_configs.get(&id))
            .unwrap_or_else(|| super::configs::nothing());
        BrokerLayers {
            dynamic,
            dynamic_default: &self.broker_default_configs,
            fixed,
        }
    }

    /// A topic's configuration on a broker.
    pub fn topic_config(&self, topic: &TopicImage, broker_id: i32, fixed: &Overrides) -> TopicConfig {
        TopicConfig::resolve(&topic.configs, &self.broker_layers(Some(broker_id), fixed))
    }

    /// Every binding with the name of the topic or view that carries it.
    pub fn bindings(&self) -> impl Iterator<Item = (&str, &BindingImage)> {
        let of_topics = self
            .topics
            .values()
            .flat_map(|topic| topic.bindings.iter().map(|binding| (topic.name.as_str(), binding)));
        let of_views = self
            .views
            .values()
            .flat_map(|view| view.bindings.iter().map(|binding| (view.name.as_str(), binding)));
        of_topics.chain(of_views)
    }
}
