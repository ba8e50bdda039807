//! Binding and unbinding, views and their end: rehearse, compile, commit.
//!
//! A change is first decided on the current image without being committed; the chain that would come of it is compiled and
//! initialised; only then is it decided again and committed. A dead-letter topic that is missing is part of the same decision.

use std::sync::Arc;

use millstream_core::metadata::{
    ClusterImage,
    controller::{self, Context, Decision, NewBinding, NewTopic, NewView, Outcome},
    image::{BindingImage, ViewImage},
};
use uuid::Uuid;

use super::{PluginService, PluginServiceError, rehearse};
use crate::broker::Broker;

impl PluginService {
    /// Binds a plugin to a topic or into a view's chain, or replaces the binding of that name.
    pub async fn bind(&self, broker: &Arc<Broker>, target: &str, new: NewBinding) -> Result<BindingImage, PluginServiceError> {
        let id = Uuid::new_v4();
        let (outcome, image) = rehearse(broker, |context| decide_binding(context, target, &new, id))?;
        outcome?;
        self.prepare(&image, target).await?;
        let target = target.to_owned();
        Ok(broker
            .metadata
            .decide(true, move |context| decide_binding(context, &target, &new, id))
            .await??)
    }

    /// Takes a binding away.
    pub async fn unbind(&self, broker: &Arc<Broker>, target: &str, name: &str) -> Result<(), PluginServiceError> {
        let (target, name) = (target.to_owned(), name.to_owned());
        Ok(broker
            .metadata
            .decide(true, move |context| controller::unbind(context, &target, &name))
            .await??)
    }

    /// Creates a view.
    pub async fn create_view(&self, broker: &Arc<Broker>, new: NewView) -> Result<ViewImage, PluginServiceError> {
        let ids: Vec<Uuid> = new.bindings.iter().map(|_| Uuid::new_v4()).collect();
        let (outcome, image) = rehearse(broker, |context| decide_view(context, &new, &ids))?;
        outcome?;
        self.prepare(&image, &new.name).await?;
        Ok(broker
            .metadata
            .decide(true, move |context| decide_view(context, &new, &ids))
            .await??)
    }

    /// Deletes a view that no other view reads.
    pub async fn delete_view(&self, broker: &Arc<Broker>, name: &str) -> Result<(), PluginServiceError> {
        let name = name.to_owned();
        Ok(broker
            .metadata
            .decide(true, move |context| controller::delete_view(context, &name))
            .await??)
    }

    /// Has the host compile and initialise the chain that a rehearsed image gives a topic or view. Past the cache: the image may
    /// never come true.
    async fn prepare(&self, image: &ClusterImage, target: &str) -> Result<(), PluginServiceError> {
        let chain = match image.topic(target) {
            Some(topic) => self.chains.build_produce_chain(topic)?,
            None => self.chains.build_view_chain(image, target)?,
        };
        Ok(self.transform.prepare(Arc::new(chain)).await?)
    }
}

fn decide_binding(context: &Context<'_>, target: &str, new: &NewBinding, id: Uuid) -> Decision<Outcome<BindingImage>> {
    with_dead_letter_topics(context, target, &[(new.dead_letter_topic.as_deref(), id)], |context| {
        controller::bind(context, target, new)
    })
}

fn decide_view(context: &Context<'_>, new: &NewView, ids: &[Uuid]) -> Decision<Outcome<ViewImage>> {
    let dead_letters: Vec<_> = new
        .bindings
        .iter()
        .map(|binding| binding.dead_letter_topic.as_deref())
        .zip(ids.iter().copied())
        .collect();
    with_dead_letter_topics(context, &new.source, &dead_letters, |context| {
        controller::create_view(context, new, false)
    })
}

/// Decides on an image in which the dead-letter topics exist, with as many partitions as the topic that `near` is or reads.
/// Either everything is committed or nothing.
fn with_dead_letter_topics<R>(
    context: &Context<'_>,
    near: &str,
    dead_letters: &[(Option<&str>, Uuid)],
    decide: impl FnOnce(&Context<'_>) -> Decision<Outcome<R>>,
) -> Decision<Outcome<R>> {
    let root = context
        .image
        .topic(near)
        .or_else(|| context.image.view_path(near).map(|(topic, _)| topic));
    // Without a topic there is nothing to bind to, which the decision itself says best.
    let Some(num_partitions) = root.and_then(|topic| i32::try_from(topic.partitions.len()).ok()) else {
        return decide(context);
    };
    let mut image = context.image.clone();
    let mut records = Vec::new();
    for (name, id) in dead_letters {
        let Some(name) = name.filter(|name| image.topic(name).is_none()) else {
            continue;
        };
        let new = NewTopic {
            name: name.to_owned(),
            id: *id,
            num_partitions,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let created = controller::create_topics(&Context { image: &image, ..*context }, &[new], false);
        if let Some(refusal) = created.reply.into_iter().find_map(Result::err) {
            return Decision {
                records: Vec::new(),
                reply: Err(refusal),
            };
        }
        for record in created.records {
            if let Err(error) = image.apply(&record) {
                return Decision {
                    records: Vec::new(),
                    reply: Err(error.into()),
                };
            }
            records.push(record);
        }
    }
    let decided = decide(&Context { image: &image, ..*context });
    match decided.reply {
        Ok(reply) => {
            records.extend(decided.records);
            Decision { records, reply: Ok(reply) }
        }
        Err(refusal) => Decision {
            records: Vec::new(),
            reply: Err(refusal),
        },
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::{
        metadata::{configs::Overrides, controller::NewPlugin},
        transform::{BreakerMode, FailurePolicy, Hook},
    };

    use super::*;

    /// An image in which topic `t` has three partitions and plugin `p@1.0.0` is registered.
    fn image() -> ClusterImage {
        let mut image = ClusterImage::empty(Uuid::from_u128(1));
        let topic = NewTopic {
            name: "t".to_owned(),
            id: Uuid::from_u128(10),
            num_partitions: 3,
            replication_factor: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let plugin = NewPlugin {
            name: "p".to_owned(),
            version: "1.0.0".to_owned(),
            sha256: "a".repeat(64),
            size_bytes: 1,
            hooks: vec![Hook::Produce, Hook::View],
            config_schema: String::new(),
        };
        let fixed = Overrides::new();
        let records = [
            controller::create_topics(&context(&image, &fixed), &[topic], false).records,
            controller::register_plugin(&context(&image, &fixed), &plugin).records,
        ];
        for record in records.iter().flatten() {
            image.apply(record).unwrap();
        }
        image
    }

    fn context<'a>(image: &'a ClusterImage, fixed_configs: &'a Overrides) -> Context<'a> {
        Context {
            image,
            brokers: &[1],
            fixed_configs,
            now_ms: 0,
            cluster_admin: true,
        }
    }

    fn binding(hook: Hook, dead_letter_topic: &str) -> NewBinding {
        NewBinding {
            name: "b".to_owned(),
            hook,
            order: 0,
            plugin: "p".to_owned(),
            version: "1.0.0".to_owned(),
            config: String::new(),
            policy: Some(FailurePolicy::Divert),
            breaker: BreakerMode::Closed,
            limits: None,
            dead_letter_topic: Some(dead_letter_topic.to_owned()),
            security: false,
        }
    }

    fn apply<R>(image: &mut ClusterImage, decision: &Decision<R>) {
        for record in &decision.records {
            image.apply(record).unwrap();
        }
    }

    #[test]
    fn a_missing_dead_letter_topic_comes_with_the_binding() {
        let (mut image, fixed) = (image(), Overrides::new());
        let decision = decide_binding(&context(&image, &fixed), "t", &binding(Hook::Produce, "t.dlq"), Uuid::from_u128(20));
        assert!(decision.reply.is_ok(), "{:?}", decision.reply);
        apply(&mut image, &decision);
        assert_eq!(image.topic("t.dlq").unwrap().partitions.len(), 3);
        assert_eq!(image.topic("t").unwrap().bindings.len(), 1);
        let again = decide_binding(&context(&image, &fixed), "t", &binding(Hook::Produce, "t.dlq"), Uuid::from_u128(21));
        assert_eq!(again.records.len(), 1, "it is there now");
    }

    #[test]
    fn a_refused_binding_leaves_no_dead_letter_topic() {
        let (image, fixed) = (image(), Overrides::new());
        let unknown_plugin = NewBinding {
            plugin: "q".to_owned(),
            ..binding(Hook::Produce, "t.dlq")
        };
        for (target, new) in [
            ("t", unknown_plugin),
            ("t", binding(Hook::Produce, "t_dlq/")),
            ("t", binding(Hook::Produce, "__millstream_plugins")),
            ("nowhere", binding(Hook::Produce, "t.dlq")),
        ] {
            let decision = decide_binding(&context(&image, &fixed), target, &new, Uuid::from_u128(20));
            assert!(decision.reply.is_err() && decision.records.is_empty(), "{target} {new:?}");
        }
    }

    #[test]
    fn a_view_over_a_view_gets_dead_letters_like_its_topic() {
        let (mut image, fixed) = (image(), Overrides::new());
        for (number, (name, source)) in (30u128..).zip([("v", "t"), ("w", "v")]) {
            let (id, bindings) = (Uuid::from_u128(number), vec![binding(Hook::View, &format!("{name}.dlq"))]);
            let new = NewView {
                name: name.to_owned(),
                id,
                source: source.to_owned(),
                bindings,
                configs: Vec::new(),
            };
            let decision = decide_view(&context(&image, &fixed), &new, &[Uuid::from_u128(number + 10)]);
            assert!(decision.reply.is_ok(), "{:?}", decision.reply);
            apply(&mut image, &decision);
        }
        assert_eq!(image.topic("w.dlq").unwrap().partitions.len(), 3);
    }
}
