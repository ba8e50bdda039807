//! From bindings in the metadata to chains that the host can run, cached by id and version.
//!
//! A chain holds every binding or it does not exist: if the bytes of one plugin are missing, there is an error and no chain.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use millstream_core::{
    metadata::{
        ClusterImage,
        image::{BindingImage, TopicImage},
    },
    transform::{Artefact, Binding, Chain, Hook},
};
use uuid::Uuid;

use super::chunks::Artefacts;

/// Chains that are kept; above it the cache starts anew, which costs a few microseconds per chain.
const CHAINS_MAX: usize = 4_096;

/// Why there is no chain. Nothing may go through where one is wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MissingArtefact {
    /// The component of a binding is not in the store.
    #[error("binding '{binding}' of '{target}' needs plugin {plugin}@{version}, whose component is missing: push it again")]
    Component {
        /// The topic or view that asked.
        target: String,
        /// The binding's name.
        binding: String,
        /// The plugin.
        plugin: String,
        /// Its version.
        version: String,
    },
    /// The view was deleted.
    #[error("there is no view '{view}'")]
    View {
        /// Its name.
        view: String,
    },
}

/// The components in memory and the chains made of them.
#[derive(Default)]
pub(super) struct Chains {
    artefacts: RwLock<Artefacts>,
    cache: RwLock<HashMap<Uuid, Arc<Chain>>>,
}

impl Chains {
    /// Replaces all components.
    pub fn set_artefacts(&self, artefacts: Artefacts) {
        *self.artefacts.write().unwrap_or_else(PoisonError::into_inner) = artefacts;
        self.forget_chains();
    }

    /// Adds a component.
    pub fn insert(&self, artefact: Arc<Artefact>) {
        let id = (artefact.name.clone(), artefact.version.clone());
        self.artefacts.write().unwrap_or_else(PoisonError::into_inner).insert(id, artefact);
    }

    /// Takes a component out, and with it every cached chain, as stale ones may hold it.
    pub fn remove(&self, name: &str, version: &str) -> Option<Arc<Artefact>> {
        let removed = self
            .artefacts
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(name.to_owned(), version.to_owned()));
        self.forget_chains();
        removed
    }

    /// A component by name, version and hash.
    pub fn artefact(&self, name: &str, version: &str, sha256: &str) -> Option<Arc<Artefact>> {
        let artefacts = self.artefacts.read().unwrap_or_else(PoisonError::into_inner);
        artefacts
            .get(&(name.to_owned(), version.to_owned()))
            .filter(|artefact| artefact.sha256 == sha256)
            .cloned()
    }

    fn forget_chains(&self) {
        self.cache.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// What runs when records are produced to a topic; `None` if nothing is bound to it.
    pub fn produce_chain(&self, topic: &TopicImage) -> Result<Option<Arc<Chain>>, MissingArtefact> {
        if topic.bindings.is_empty() {
            return Ok(None);
        }
        self.cached(topic.id, topic.chain_version, || self.build_produce_chain(topic))
            .map(Some)
    }

    /// What runs when a view is read: the chains of all views on its path, the one next to the topic first.
    pub fn view_chain(&self, image: &ClusterImage, view: &str) -> Result<Arc<Chain>, MissingArtefact> {
        let (Some(found), Some(version)) = (image.view(view), image.view_chain_version(view)) else {
            return Err(MissingArtefact::View { view: view.to_owned() });
        };
        self.cached(found.id, version, || self.build_view_chain(image, view))
    }

    /// As [`Self::produce_chain`], for a topic that is bound, past the cache.
    pub fn build_produce_chain(&self, topic: &TopicImage) -> Result<Chain, MissingArtefact> {
        let bindings = self.bindings(&topic.name, topic.bindings.iter())?;
        Ok(Chain {
            hook: Hook::Produce,
            topic: topic.name.clone(),
            view: None,
            version: topic.chain_version,
            bindings,
        })
    }

    /// As [`Self::view_chain`], past the cache.
    pub fn build_view_chain(&self, image: &ClusterImage, view: &str) -> Result<Chain, MissingArtefact> {
        let (Some((topic, path)), Some(version)) = (image.view_path(view), image.view_chain_version(view)) else {
            return Err(MissingArtefact::View { view: view.to_owned() });
        };
        let bindings = self.bindings(view, path.into_iter().flat_map(|view| &view.bindings))?;
        Ok(Chain {
            hook: Hook::View,
            topic: topic.name.clone(),
            view: Some(view.to_owned()),
            version,
            bindings,
        })
    }

    fn bindings<'a>(&self, target: &str, images: impl Iterator<Item = &'a BindingImage>) -> Result<Vec<Binding>, MissingArtefact> {
        images
            .map(|image| {
                let missing = || MissingArtefact::Component {
                    target: target.to_owned(),
                    binding: image.name.clone(),
                    plugin: image.plugin.clone(),
                    version: image.version.clone(),
                };
                Ok(Binding {
                    artefact: self.artefact(&image.plugin, &image.version, &image.sha256).ok_or_else(missing)?,
                    config: image.config.clone(),
                    policy: image.policy,
                    breaker: image.breaker,
                    limits: image.limits,
                    dead_letter_topic: image.dead_letter_topic.clone(),
                })
            })
            .collect()
    }

    fn cached(
        &self,
        id: Uuid,
        version: u64,
        build: impl FnOnce() -> Result<Chain, MissingArtefact>,
    ) -> Result<Arc<Chain>, MissingArtefact> {
        {
            let cache = self.cache.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(chain) = cache.get(&id).filter(|chain| chain.version == version) {
                return Ok(Arc::clone(chain));
            }
        }
        let chain = Arc::new(build()?);
        let mut cache = self.cache.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CHAINS_MAX {
            cache.clear();
        }
        // Whoever still works on an older image must not take the newer chain away from the others.
        if cache.get(&id).is_none_or(|known| known.version < version) {
            cache.insert(id, Arc::clone(&chain));
        }
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millstream_core::{
        metadata::image::ViewImage,
        transform::{BreakerMode, FailurePolicy, Limits},
    };

    use super::*;

    fn binding(name: &str, plugin: &str, hook: Hook) -> BindingImage {
        BindingImage {
            name: name.to_owned(),
            hook,
            order: 0,
            plugin: plugin.to_owned(),
            version: "1.0.0".to_owned(),
            sha256: "a".to_owned(),
            config: "{}".to_owned(),
            policy: FailurePolicy::Stall,
            breaker: BreakerMode::Closed,
            limits: Limits::for_hook(hook),
            dead_letter_topic: None,
            security: false,
        }
    }

    fn topic(bindings: Vec<BindingImage>, chain_version: u64) -> TopicImage {
        TopicImage {
            name: "t".to_owned(),
            id: Uuid::from_u128(10),
            partitions: Vec::new(),
            configs: Default::default(),
            internal: false,
            created_ms: 0,
            bindings,
            chain_version,
        }
    }

    fn view(name: &str, id: u128, source: &str, plugin: &str, chain_version: u64) -> (String, Arc<ViewImage>) {
        let view = ViewImage {
            name: name.to_owned(),
            id: Uuid::from_u128(id),
            source: source.to_owned(),
            bindings: vec![binding("b", plugin, Hook::View)],
            configs: Default::default(),
            created_ms: 0,
            chain_version,
        };
        (name.to_owned(), Arc::new(view))
    }

    fn chains(plugins: &[&str]) -> Chains {
        let chains = Chains::default();
        for plugin in plugins {
            let (name, version) = ((*plugin).to_owned(), "1.0.0".to_owned());
            chains.insert(Arc::new(Artefact {
                name,
                version,
                sha256: "a".to_owned(),
                component: Bytes::new(),
            }));
        }
        chains
    }

    fn plugins(chain: &Chain) -> Vec<&str> {
        chain.bindings.iter().map(|binding| binding.artefact.name.as_str()).collect()
    }

    #[test]
    fn a_topic_without_bindings_has_no_chain() {
        assert!(chains(&[]).produce_chain(&topic(Vec::new(), 3)).unwrap().is_none());
    }

    #[test]
    fn a_missing_component_fails_the_whole_chain() {
        let chains = chains(&["p"]);
        let both = topic(vec![binding("a", "p", Hook::Produce), binding("b", "q", Hook::Produce)], 1);
        let error = chains.produce_chain(&both).unwrap_err();
        assert!(error.to_string().contains("q@1.0.0"), "{error}");
        let other_bytes = BindingImage {
            sha256: "b".to_owned(),
            ..binding("a", "p", Hook::Produce)
        };
        assert!(
            chains.produce_chain(&topic(vec![other_bytes], 2)).is_err(),
            "the hash is part of the name"
        );
    }

    #[test]
    fn a_chain_is_cached_until_its_version_changes() {
        let chains = chains(&["p", "q"]);
        let first = chains
            .produce_chain(&topic(vec![binding("a", "p", Hook::Produce)], 1))
            .unwrap()
            .unwrap();
        let again = chains
            .produce_chain(&topic(vec![binding("a", "p", Hook::Produce)], 1))
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let newer = chains
            .produce_chain(&topic(vec![binding("a", "q", Hook::Produce)], 2))
            .unwrap()
            .unwrap();
        assert_eq!((newer.version, plugins(&newer)), (2, vec!["q"]));
        let late = chains
            .produce_chain(&topic(vec![binding("a", "p", Hook::Produce)], 1))
            .unwrap()
            .unwrap();
        assert_eq!(plugins(&late), ["p"], "an older image gets its own chain");
        let kept = chains
            .produce_chain(&topic(vec![binding("a", "q", Hook::Produce)], 2))
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&newer, &kept));
    }

    #[test]
    fn a_removed_component_is_not_served_from_the_cache() {
        let chains = chains(&["p"]);
        let bound = topic(vec![binding("a", "p", Hook::Produce)], 1);
        assert!(chains.produce_chain(&bound).is_ok());
        assert!(chains.remove("p", "1.0.0").is_some());
        assert!(chains.produce_chain(&bound).is_err());
    }

    #[test]
    fn a_view_runs_the_chains_on_its_path_from_the_topic_on() {
        let chains = chains(&["p", "q"]);
        let mut image = ClusterImage::empty(Uuid::nil());
        image.topics.insert("t".to_owned(), Arc::new(topic(Vec::new(), 0)));
        image.views.extend([view("v", 11, "t", "p", 7), view("w", 12, "v", "q", 5)]);
        let chain = chains.view_chain(&image, "w").unwrap();
        assert_eq!(
            (plugins(&chain), chain.topic.as_str(), chain.view.as_deref(), chain.version),
            (vec!["p", "q"], "t", Some("w"), 7)
        );
        assert_eq!(
            chains.view_chain(&image, "x").unwrap_err(),
            MissingArtefact::View { view: "x".to_owned() }
        );
    }
}
