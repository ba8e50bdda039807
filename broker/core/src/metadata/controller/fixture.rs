//! A cluster for tests: three brokers, an image, and ids that count up.

use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{Context, Decision, NewBinding, NewPlugin, NewTopic, NewView, Outcome, create_topics, create_view, register_plugin};
use crate::{
    metadata::{
        configs::Overrides,
        image::{ClusterImage, ViewImage},
    },
    transform::{BreakerMode, Hook},
};

pub(super) const BROKERS: [i32; 3] = [1, 2, 3];

pub(super) struct Cluster {
    pub(super) image: ClusterImage,
    pub(super) fixed: Overrides,
    pub(super) cluster_admin: bool,
    next_id: u128,
}

impl Cluster {
    pub(super) fn with_topics(names: &[&str]) -> Self {
        let mut cluster = Self {
            image: ClusterImage::empty(Uuid::from_u128(7)),
            fixed: Overrides::from([("remote.log.storage.system.enable".to_owned(), "true".to_owned())]),
            cluster_admin: false,
            next_id: 100,
        };
        for name in names {
            let topic = cluster.topic(name);
            cluster.run(|context| create_topics(context, &[topic], false)).remove(0).unwrap();
        }
        cluster
    }

    /// With the plugins `both`, `produce` and `view`, named after their hooks.
    pub(super) fn with_plugins(names: &[&str]) -> Self {
        let mut cluster = Self::with_topics(names);
        for (name, hooks) in [
            ("both", &[Hook::Produce, Hook::View][..]),
            ("produce", &[Hook::Produce]),
            ("view", &[Hook::View]),
        ] {
            cluster.run(|context| register_plugin(context, &plugin(name, hooks))).unwrap();
        }
        cluster
    }

    pub(super) fn context(&self) -> Context<'_> {
        Context {
            image: &self.image,
            brokers: &BROKERS,
            fixed_configs: &self.fixed,
            now_ms: 1_000,
            cluster_admin: self.cluster_admin,
        }
    }

    /// Decides and applies.
    pub(super) fn run<R>(&mut self, decide: impl FnOnce(&Context<'_>) -> Decision<R>) -> R {
        let Decision { records, reply } = decide(&self.context());
        for record in records {
            self.image.apply(&record).expect("a decided record applies");
        }
        reply
    }

    pub(super) fn id(&mut self) -> Uuid {
        self.next_id += 1;
        Uuid::from_u128(self.next_id)
    }

    pub(super) fn topic(&mut self, name: &str) -> NewTopic {
        let id = self.id();
        NewTopic {
            name: name.to_owned(),
            id,
            num_partitions: -1,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }

    pub(super) fn create_view(&mut self, name: &str, source: &str) -> Outcome<ViewImage> {
        let id = self.id();
        self.run(|context| create_view(context, &view(name, source, id.as_u128()), false))
    }
}

pub(super) fn plugin(name: &str, hooks: &[Hook]) -> NewPlugin {
    NewPlugin {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        sha256: "a".repeat(64),
        size_bytes: 1,
        hooks: hooks.to_vec(),
        config_schema: String::new(),
    }
}

pub(super) fn binding(name: &str, plugin: &str, hook: Hook) -> NewBinding {
    NewBinding {
        name: name.to_owned(),
        hook,
        order: 0,
        plugin: plugin.to_owned(),
        version: "1.0.0".to_owned(),
        config: String::new(),
        policy: None,
        breaker: BreakerMode::Closed,
        limits: None,
        dead_letter_topic: None,
        security: false,
    }
}

pub(super) fn view(name: &str, source: &str, id: u128) -> NewView {
    let bindings = vec![binding("b", "both", Hook::View)];
    NewView {
        name: name.to_owned(),
        id: Uuid::from_u128(id),
        source: source.to_owned(),
        bindings,
        configs: Vec::new(),
    }
}

/// The codes of a reply, `None` where an item went through.
pub(super) fn codes<T>(reply: &[Outcome<T>]) -> Vec<ErrorCode> {
    reply
        .iter()
        .map(|outcome| outcome.as_ref().err().map_or(ErrorCode::None, |refusal| refusal.code))
        .collect()
}
