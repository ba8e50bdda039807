//! The only mutator of the image: what a committed record does to it, live and on replay.
//!
//! A record that contradicts the image is refused and changes nothing. The controller never decides such a record, so the shell
//! treats the error as damage of the metadata log and stops.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use super::{
    configs::Overrides,
    image::{BindingImage, ClusterImage, PluginImage, TopicImage, ViewImage},
    records::{ConfigTarget, ConfigsReplaced, MetadataRecord, PartitionChanged, PartitionsAdded, TopicCreated, ViewCreated},
};

/// Why a record does not fit the image.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// A topic or view of that name or id is there already.
    #[error("metadata record creates {name}, which exists")]
    Exists {
        /// The name.
        name: String,
    },
    /// No topic or view has that id.
    #[error("metadata record names {id}, which does not exist")]
    UnknownId {
        /// The id.
        id: Uuid,
    },
    /// Something the record names is missing.
    #[error("metadata record names {name}, which does not exist")]
    UnknownName {
        /// What it names.
        name: String,
    },
    /// Something that others still name would go away.
    #[error("metadata record takes {name} away, which is in use")]
    InUse {
        /// What it names.
        name: String,
    },
    /// Partition numbers would have a gap or an overlap.
    #[error("metadata record changes partition {number} of {topic}, which has {count}")]
    PartitionNumber {
        /// The topic.
        topic: String,
        /// The number in the record.
        number: u32,
        /// How many partitions there are.
        count: usize,
    },
    /// Producer ids would be given twice.
    #[error("metadata record moves the next producer id from {current} to {next}")]
    ProducerIds {
        /// The id in the image.
        current: i64,
        /// The id in the record.
        next: i64,
    },
}

impl ClusterImage {
    /// Applies one record.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::TopicCreated(record) => self.create_topic(record),
            MetadataRecord::TopicDeleted(record) => self.delete_topic(record.id),
            MetadataRecord::PartitionsAdded(record) => self.add_partitions(record),
            MetadataRecord::PartitionChanged(record) => self.change_partition(record),
            MetadataRecord::ConfigsReplaced(record) => self.replace_configs(record),
            MetadataRecord::ViewCreated(record) => self.create_view(record),
            MetadataRecord::ViewDeleted(record) => self.delete_view(record.id),
            MetadataRecord::PluginRegistered(plugin) => self.register_plugin(plugin),
            MetadataRecord::PluginRemoved(record) => self.remove_plugin(&record.name, &record.version),
            MetadataRecord::PluginBound(record) => {
                self.check_binding(&record.binding)?;
                self.change_chain(record.id, &record.binding.name, Some(&record.binding))
            }
            MetadataRecord::PluginUnbound(record) => self.change_chain(record.id, &record.name, None),
            MetadataRecord::ProducerIdsAllocated(record) => {
                let (current, next) = (self.next_producer_id, record.next_producer_id);
                if next < current {
                    return Err(ApplyError::ProducerIds { current, next });
                }
                self.next_producer_id = next;
                Ok(())
            }
            MetadataRecord::QuotasReplaced(record) => {
                if record.values.is_empty() {
                    self.client_quotas.remove(&record.entity);
                } else {
                    self.client_quotas.insert(record.entity.clone(), record.values.clone());
                }
                Ok(())
            }
            MetadataRecord::FeatureLevelSet(record) => {
                self.feature_levels.insert(record.feature.clone(), record.level);
                Ok(())
            }
        }?;
        self.epoch += 1;
        Ok(())
    }

    fn create_topic(&mut self, record: &TopicCreated) -> Result<(), ApplyError> {
        self.claim(&record.name, record.id)?;
        let topic = TopicImage {
            name: record.name.clone(),
            id: record.id,
            partitions: record.partitions.clone(),
            configs: record.configs.clone(),
            internal: record.internal,
            created_ms: record.created_ms,
            bindings: Vec::new(),
            chain_version: self.epoch + 1,
        };
        self.topics.insert(record.name.clone(), Arc::new(topic));
        Ok(())
    }

    fn create_view(&mut self, record: &ViewCreated) -> Result<(), ApplyError> {
        if !self.topics.contains_key(&record.source) && !self.views.contains_key(&record.source) {
            return Err(ApplyError::UnknownName {
                name: record.source.clone(),
            });
        }
        record.bindings.iter().try_for_each(|binding| self.check_binding(binding))?;
        self.claim(&record.name, record.id)?;
        let mut bindings = record.bindings.clone();
        sort(&mut bindings);
        let view = ViewImage {
            name: record.name.clone(),
            id: record.id,
            source: record.source.clone(),
            bindings,
            configs: record.configs.clone(),
            created_ms: record.created_ms,
            chain_version: self.epoch + 1,
        };
        self.views.insert(record.name.clone(), Arc::new(view));
        Ok(())
    }

    fn delete_topic(&mut self, id: Uuid) -> Result<(), ApplyError> {
        let name = self.topic_by_id(id).ok_or(ApplyError::UnknownId { id })?.name.clone();
        let takes_dead_letters =
            |(target, binding): (&str, &BindingImage)| target != name && binding.dead_letter_topic.as_ref() == Some(&name);
        if self.is_source(&name) || self.bindings().any(takes_dead_letters) {
            return Err(ApplyError::InUse { name });
        }
        self.names.remove(&id);
        self.topics.remove(&name);
        Ok(())
    }

    fn delete_view(&mut self, id: Uuid) -> Result<(), ApplyError> {
        let name = self.view_by_id(id).ok_or(ApplyError::UnknownId { id })?.name.clone();
        if self.is_source(&name) {
            return Err(ApplyError::InUse { name });
        }
        self.names.remove(&id);
        self.views.remove(&name);
        Ok(())
    }

    fn is_source(&self, name: &str) -> bool {
        self.views.values().any(|view| view.source == name)
    }

    fn register_plugin(&mut self, plugin: &PluginImage) -> Result<(), ApplyError> {
        let key = (plugin.name.clone(), plugin.version.clone());
        if self.plugins.contains_key(&key) {
            return Err(ApplyError::Exists {
                name: format!("{}@{}", plugin.name, plugin.version),
            });
        }
        self.plugins.insert(key, Arc::new(plugin.clone()));
        Ok(())
    }

    fn remove_plugin(&mut self, name: &str, version: &str) -> Result<(), ApplyError> {
        let shown = || format!("{name}@{version}");
        if self
            .bindings()
            .any(|(_, binding)| binding.plugin == name && binding.version == version)
        {
            return Err(ApplyError::InUse { name: shown() });
        }
        let removed = self.plugins.remove(&(name.to_owned(), version.to_owned()));
        removed.map(|_| ()).ok_or_else(|| ApplyError::UnknownName { name: shown() })
    }

    /// A binding names a registered plugin, and a topic for its dead letters.
    fn check_binding(&self, binding: &BindingImage) -> Result<(), ApplyError> {
        if self.plugin(&binding.plugin, &binding.version).is_none() {
            return Err(ApplyError::UnknownName {
                name: format!("{}@{}", binding.plugin, binding.version),
            });
        }
        match &binding.dead_letter_topic {
            Some(name) if self.topic(name).is_none() => Err(ApplyError::UnknownName { name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// Takes a name and an id for a new topic or view.
    fn claim(&mut self, name: &str, id: Uuid) -> Result<(), ApplyError> {
        if self.topics.contains_key(name) || self.views.contains_key(name) || self.names.contains_key(&id) {
            return Err(ApplyError::Exists { name: name.to_owned() });
        }
        self.names.insert(id, name.to_owned());
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut TopicImage, ApplyError> {
        let topic = self.names.get(&id).and_then(|name| self.topics.get_mut(name));
        topic.map(Arc::make_mut).ok_or(ApplyError::UnknownId { id })
    }

    fn add_partitions(&mut self, record: &PartitionsAdded) -> Result<(), ApplyError> {
        let topic = self.topic_mut(record.topic_id)?;
        let count = topic.partitions.len();
        if u32::try_from(count) != Ok(record.first) {
            return Err(ApplyError::PartitionNumber {
                topic: topic.name.clone(),
                number: record.first,
                count,
            });
        }
        topic.partitions.extend(record.partitions.iter().cloned());
        Ok(())
    }

    fn change_partition(&mut self, record: &PartitionChanged) -> Result<(), ApplyError> {
        let topic = self.topic_mut(record.topic_id)?;
        let count = topic.partitions.len();
        let name = topic.name.clone();
        let partition = usize::try_from(record.number)
            .ok()
            .and_then(|number| topic.partitions.get_mut(number));
        *partition.ok_or(ApplyError::PartitionNumber {
            topic: name,
            number: record.number,
            count,
        })? = record.partition.clone();
        Ok(())
    }

    fn replace_configs(&mut self, record: &ConfigsReplaced) -> Result<(), ApplyError> {
        let configs = record.configs.clone();
        match &record.target {
            ConfigTarget::AllBrokers => self.broker_default_configs = configs,
            ConfigTarget::Broker { id } if configs.is_empty() => drop(self.broker_configs.remove(id)),
            ConfigTarget::Broker { id } => drop(self.broker_configs.insert(*id, configs)),
            ConfigTarget::Group { name } => replace_named(&mut self.group_configs, name, configs),
            ConfigTarget::ClientMetrics { name } => replace_named(&mut self.client_metrics, name, configs),
            ConfigTarget::Topic { id } => {
                let name = self.names.get(id).ok_or(ApplyError::UnknownId { id: *id })?;
                if let Some(view) = self.views.get_mut(name) {
                    Arc::make_mut(view).configs = configs;
                } else {
                    self.topic_mut(*id)?.configs = configs;
                }
            }
        }
        Ok(())
    }

    /// Takes a binding away, and puts another one in its place if there is one.
    fn change_chain(&mut self, id: Uuid, name: &str, new: Option<&BindingImage>) -> Result<(), ApplyError> {
        let epoch = self.epoch + 1;
        let target = self.names.get(&id).ok_or(ApplyError::UnknownId { id })?;
        let (bindings, chain_version) = if let Some(view) = self.views.get_mut(target) {
            let view = Arc::make_mut(view);
            (&mut view.bindings, &mut view.chain_version)
        } else {
            let topic = self.topic_mut(id)?;
            (&mut topic.bindings, &mut topic.chain_version)
        };
        if new.is_none() && !bindings.iter().any(|binding| binding.name == name) {
            return Err(ApplyError::UnknownName { name: name.to_owned() });
        }
        bindings.retain(|binding| binding.name != name);
        bindings.extend(new.cloned());
        sort(bindings);
        *chain_version = epoch;
        Ok(())
    }
}

fn sort(bindings: &mut [BindingImage]) {
    bindings.sort_by(|a, b| (a.order, &a.name).cmp(&(b.order, &b.name)));
}
fn replace_named(all: &mut BTreeMap<String, Overrides>, name: &str, configs: Overrides) {
    if configs.is_empty() {
        all.remove(name);
    } else {
        all.insert(name.to_owned(), configs);
    }
}
