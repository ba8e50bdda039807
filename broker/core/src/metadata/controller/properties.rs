//! Any sequence of requests: what must hold of the image afterwards, and that its records alone make the same image.

use std::collections::BTreeSet;

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    AlterConfigs, Alteration, ConfigResource, Decision, GrowTopic, NewBinding, TopicRef, VIEW_DEPTH_MAX, Wish, allocate_producer_ids,
    alter_configs, auto_create_topics, bind, create_partitions, create_topics, create_view, delete_topics, delete_view,
    fixture::{Cluster, binding, plugin, view},
    register_plugin, remove_plugin, restart_broker, unbind,
};
use crate::{
    metadata::{configs::ConfigChange, image::ClusterImage, names, records::MetadataRecord},
    transform::Hook,
};

const NAMES: [&str; 8] = ["a", "b", "c.d", "c_d", "v", "w", "x", "__consumer_offsets"];
const PLUGINS: [&str; 3] = ["p", "q", "r"];
const CONFIGS: [(&str, &str); 5] = [
    ("retention.ms", "5"),
    ("cleanup.policy", "compact"),
    ("remote.storage.enable", "true"),
    ("log.retention.ms", "7"),
    ("bad", "1"),
];

#[derive(Debug, Clone)]
struct Step {
    kind: usize,
    name: &'static str,
    other: &'static str,
    plugin: &'static str,
    config: (&'static str, &'static str),
    number: i32,
}

fn step() -> impl Strategy<Value = Step> {
    let choices = (
        0..12_usize,
        prop::sample::select(&NAMES[..]),
        prop::sample::select(&NAMES[..]),
        prop::sample::select(&PLUGINS[..]),
    );
    (choices, prop::sample::select(&CONFIGS[..]), -1..6_i32).prop_map(|((kind, name, other, plugin), config, number)| Step {
        kind,
        name,
        other,
        plugin,
        config,
        number,
    })
}

/// Decides and applies one step; answers its records.
fn take(cluster: &mut Cluster, step: &Step) -> Vec<MetadataRecord> {
    fn records<R>(decision: Decision<R>) -> Vec<MetadataRecord> {
        decision.records
    }
    let id = cluster.id();
    let topic = cluster.topic(step.name);
    let context = cluster.context();
    let Step { name, other, number, .. } = *step;
    let hook = if context.image.view(name).is_some() {
        Hook::View
    } else {
        Hook::Produce
    };
    let decided = match step.kind {
        0 => records(create_topics(
            &context,
            &[super::NewTopic {
                num_partitions: number,
                ..topic
            }],
            false,
        )),
        1 => records(auto_create_topics(&context, &[Wish { name: name.to_owned(), id }])),
        2 => records(delete_topics(&context, &[TopicRef::Name(name.to_owned())])),
        3 => records(create_partitions(
            &context,
            &[GrowTopic {
                name: name.to_owned(),
                count: number,
                assignments: Vec::new(),
            }],
            false,
        )),
        4 => {
            let resource = if number == 0 {
                ConfigResource::AllBrokers
            } else {
                ConfigResource::Topic(name.to_owned())
            };
            let alteration = Alteration::Changes(vec![ConfigChange::set(step.config.0, step.config.1)]);
            records(alter_configs(&context, &[AlterConfigs { resource, alteration }], false))
        }
        5 => {
            let bindings = vec![binding("b", step.plugin, Hook::View)];
            records(create_view(
                &context,
                &super::NewView {
                    bindings,
                    ..view(name, other, id.as_u128())
                },
                false,
            ))
        }
        6 => records(delete_view(&context, name)),
        7 => records(register_plugin(&context, &plugin(step.plugin, &[Hook::Produce, Hook::View]))),
        8 => records(remove_plugin(&context, step.plugin, "1.0.0")),
        9 => {
            let dead_letter_topic = (number > 2).then(|| other.to_owned());
            records(bind(
                &context,
                name,
                &NewBinding {
                    dead_letter_topic,
                    ..binding("c", step.plugin, hook)
                },
            ))
        }
        10 => records(unbind(&context, name, "c")),
        _ => [records(allocate_producer_ids(&context)), records(restart_broker(&context, 1))].concat(),
    };
    for record in &decided {
        cluster.image.apply(record).expect("a decided record applies");
    }
    decided
}

/// What no record can break, whatever the order.
fn check_references(image: &ClusterImage) {
    for (name, topic) in &image.topics {
        assert!(name == &topic.name && image.names.get(&topic.id) == Some(name) && !image.views.contains_key(name));
    }
    for (name, view) in &image.views {
        assert!(name == &view.name && image.names.get(&view.id) == Some(name));
        assert!(image.view_path(name).is_some(), "a view leads to a topic");
    }
    assert_eq!(image.names.len(), image.topics.len() + image.views.len());
    for (_, binding) in image.bindings() {
        assert!(
            image.plugin(&binding.plugin, &binding.version).is_some(),
            "a bound plugin is in the registry"
        );
        assert!(
            binding
                .dead_letter_topic
                .as_ref()
                .is_none_or(|topic| image.topics.contains_key(topic)),
            "dead letters have a topic"
        );
    }
}

/// What the controller sees to as well.
fn check(image: &ClusterImage) {
    check_references(image);
    for (name, topic) in &image.topics {
        assert!(!topic.partitions.is_empty() && topic.internal == names::is_reserved(name));
        for partition in &topic.partitions {
            assert!(
                partition.isr.iter().all(|broker| partition.replicas.contains(broker)),
                "in-sync replicas are replicas"
            );
        }
    }
    for (name, view) in &image.views {
        assert!(!view.bindings.is_empty() && image.view_path(name).is_some_and(|(_, path)| path.len() <= VIEW_DEPTH_MAX));
    }
    let keys: BTreeSet<_> = image.names.values().map(|name| names::collision_key(name)).collect();
    assert_eq!(keys.len(), image.names.len(), "names differ in more than dots");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn records_alone_make_the_same_image(steps in prop::collection::vec(step(), 1..60)) {
        let mut cluster = Cluster::with_topics(&[]);
        let mut replayed = ClusterImage::empty(cluster.image.cluster_id);
        let mut ids: BTreeSet<Uuid> = BTreeSet::new();
        for step in &steps {
            let epoch = cluster.image.epoch;
            let records = take(&mut cluster, step);
            prop_assert_eq!(cluster.image.epoch > epoch, !records.is_empty());
            for record in records {
                match &record {
                    MetadataRecord::TopicCreated(created) => prop_assert!(ids.insert(created.id)),
                    MetadataRecord::ViewCreated(created) => prop_assert!(ids.insert(created.id)),
                    _ => {}
                }
                let bytes = record.encode().unwrap();
                replayed.apply(&MetadataRecord::decode(&bytes).unwrap()).unwrap();
            }
            check(&cluster.image);
        }
        prop_assert_eq!(replayed, cluster.image);
    }

    #[test]
    fn records_that_do_not_fit_change_nothing(steps in prop::collection::vec(step(), 1..20), shuffle in prop::collection::vec(any::<prop::sample::Index>(), 0..30)) {
        let mut cluster = Cluster::with_topics(&[]);
        let records: Vec<_> = steps.iter().flat_map(|step| take(&mut cluster, step)).collect();
        let mut image = ClusterImage::empty(cluster.image.cluster_id);
        for index in shuffle.iter().filter(|_| !records.is_empty()) {
            let before = image.clone();
            if image.apply(index.get(&records)).is_err() {
                prop_assert_eq!(&image, &before);
            }
            check_references(&image);
        }
    }
}
