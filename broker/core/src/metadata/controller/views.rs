//! Creating and deleting views.

use std::collections::BTreeSet;

use millstream_protocol::error_code::ErrorCode;
use uuid::Uuid;

use super::{
    Context, Decision, Draft, Outcome, Refusal,
    bindings::{BINDINGS_PER_TARGET_MAX, NewBinding, checked},
    topics::{check_new_name, collision},
};
use crate::{
    metadata::{
        configs::{Scope, replace},
        image::{ClusterImage, ViewImage},
        names,
        records::{Deleted, MetadataRecord, ViewCreated},
    },
    transform::Hook,
};

/// Most views between a reader and the topic.
pub const VIEW_DEPTH_MAX: usize = 4;

/// A view to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewView {
    /// Name.
    pub name: String,
    /// A fresh random id.
    pub id: Uuid,
    /// The topic or view it reads.
    pub source: String,
    /// Its chain, one binding at least.
    pub bindings: Vec<NewBinding>,
    /// Values to set.
    pub configs: Vec<(String, Option<String>)>,
}

/// Creates a view. Its source exists before it and never changes, so views cannot form a cycle.
pub fn create_view(context: &Context<'_>, view: &NewView, validate_only: bool) -> Decision<Outcome<ViewImage>> {
    let mut draft = Draft::new(context);
    let reply = create(context, &mut draft, view);
    draft.finish(validate_only, reply)
}

/// Deletes a view that no other view reads.
pub fn delete_view(context: &Context<'_>, name: &str) -> Decision<Outcome<()>> {
    let mut draft = Draft::new(context);
    let reply = delete(&mut draft, name);
    draft.finish(false, reply)
}

fn create(context: &Context<'_>, draft: &mut Draft, new: &NewView) -> Outcome<ViewImage> {
    let image = &draft.image;
    check_new_name(image, &new.name, new.id)?;
    if names::is_reserved(&new.name) {
        let message = format!("View name is invalid: '{}' is reserved for the broker", new.name);
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    let key = names::collision_key(&new.name);
    if let Some(other) = image
        .topics
        .keys()
        .chain(image.views.keys())
        .find(|other| names::collision_key(other) == key)
    {
        return Err(collision(&new.name, other));
    }
    let root = root_of(image, new)?.to_owned();
    if new.bindings.is_empty() || new.bindings.len() > BINDINGS_PER_TARGET_MAX {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("A view has 1 to {BINDINGS_PER_TARGET_MAX} bindings."),
        ));
    }
    let mut seen = BTreeSet::new();
    let mut bindings = Vec::with_capacity(new.bindings.len());
    for binding in &new.bindings {
        if binding.hook != Hook::View || !seen.insert(&binding.name) {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "The bindings of a view are on the view hook and each has its own name.",
            ));
        }
        bindings.push(checked(image, &root, binding)?);
    }
    let configs = replace(Scope::View, &new.configs).map_err(|message| Refusal::new(ErrorCode::InvalidConfig, message))?;
    let (name, source) = (new.name.clone(), new.source.clone());
    let record = ViewCreated {
        name,
        id: new.id,
        source,
        bindings,
        configs,
        created_ms: context.now_ms,
    };
    draft.push(MetadataRecord::ViewCreated(record))?;
    let created = draft.image.view(&new.name).map(|view| ViewImage::clone(view));
    created.ok_or_else(|| Refusal::new(ErrorCode::UnknownServerError, "the created view is not in the image"))
}

/// The topic in which a new view's records are stored.
fn root_of<'a>(image: &'a ClusterImage, new: &NewView) -> Outcome<&'a str> {
    let source = &new.source;
    let (root, depth) = match (image.topic(source), image.view_path(source)) {
        (Some(topic), _) => (topic, 1),
        (None, Some((topic, path))) => (topic, path.len() + 1),
        (None, None) => {
            return Err(Refusal::new(
                ErrorCode::UnknownTopicOrPartition,
                format!("The source '{source}' does not exist."),
            ));
        }
    };
    if root.internal {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            format!("Topic '{source}' is internal: views cannot show it."),
        ));
    }
    if depth > VIEW_DEPTH_MAX {
        let message = format!(
            "'{}' would be the {depth}th view over topic '{}': at most {VIEW_DEPTH_MAX} may be stacked.",
            new.name, root.name
        );
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    Ok(&root.name)
}

fn delete(draft: &mut Draft, name: &str) -> Outcome<()> {
    let Some(view) = draft.image.view(name) else {
        return Err(Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("There is no view '{name}'."),
        ));
    };
    let id = view.id;
    if let Some(reader) = draft.image.views.values().find(|view| view.source == name) {
        let message = format!("View '{name}' is the source of view '{}': delete that first.", reader.name);
        return Err(Refusal::new(ErrorCode::PolicyViolation, message));
    }
    draft.push(MetadataRecord::ViewDeleted(Deleted { id }))
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{Cluster, binding, view};
    use super::super::{TopicRef, delete_topics};
    use super::*;

    #[test]
    fn views_stack_to_the_limit() {
        let mut cluster = Cluster::with_plugins(&["t"]);
        let mut source = "t".to_owned();
        for depth in 1..=VIEW_DEPTH_MAX {
            let name = format!("v{depth}");
            cluster.create_view(&name, &source).unwrap();
            source = name;
        }
        assert_eq!(cluster.create_view("v5", &source).unwrap_err().code, ErrorCode::PolicyViolation);
        let (root, path) = cluster.image.view_path("v4").unwrap();
        assert_eq!(root.name, "t");
        assert_eq!(
            path.iter().map(|view| view.name.as_str()).collect::<Vec<_>>(),
            ["v1", "v2", "v3", "v4"]
        );
    }

    #[test]
    fn a_view_needs_a_source_a_free_name_and_a_binding() {
        let mut cluster = Cluster::with_plugins(&["t", "a.b"]);
        assert_eq!(
            cluster.create_view("v", "v").unwrap_err().code,
            ErrorCode::UnknownTopicOrPartition,
            "not even itself"
        );
        assert_eq!(cluster.create_view("t", "t").unwrap_err().code, ErrorCode::TopicAlreadyExists);
        assert_eq!(cluster.create_view("a_b", "t").unwrap_err().code, ErrorCode::InvalidTopicException);
        assert_eq!(
            cluster.create_view("__millstream_x", "t").unwrap_err().code,
            ErrorCode::InvalidTopicException
        );
        let none = NewView {
            bindings: Vec::new(),
            ..view("v", "t", 99)
        };
        assert_eq!(
            cluster.run(|context| create_view(context, &none, false)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
        let twice = NewView {
            bindings: vec![binding("b", "both", Hook::View); 2],
            ..view("v", "t", 99)
        };
        assert_eq!(
            cluster.run(|context| create_view(context, &twice, false)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
        let produce = NewView {
            bindings: vec![binding("b", "both", Hook::Produce)],
            ..view("v", "t", 99)
        };
        assert_eq!(
            cluster.run(|context| create_view(context, &produce, false)).unwrap_err().code,
            ErrorCode::InvalidRequest
        );
    }

    #[test]
    fn what_is_read_cannot_be_deleted() {
        let mut cluster = Cluster::with_plugins(&["t"]);
        cluster.create_view("v", "t").unwrap();
        cluster.create_view("w", "v").unwrap();
        assert_eq!(
            cluster.run(|context| delete_view(context, "v")).unwrap_err().code,
            ErrorCode::PolicyViolation
        );
        let topic = [TopicRef::Name("t".to_owned())];
        let refused = cluster.run(|context| delete_topics(context, &topic)).remove(0).unwrap_err();
        assert!(refused.message.contains("source of 1 view(s), such as 'v'"), "{}", refused.message);
        for name in ["w", "v"] {
            assert_eq!(cluster.run(|context| delete_view(context, name)), Ok(()));
        }
        assert!(cluster.run(|context| delete_topics(context, &topic)).remove(0).is_ok());
        assert!(cluster.image.names.is_empty());
    }
}
