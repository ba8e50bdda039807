//! Names of objects in the bucket.
//!
//! ```text
//! <prefix>/millstream.json
//! <prefix>/t/<topic_uuid>/topic.json
//! <prefix>/t/<topic_uuid>/<partition:06>/head                                     (or head/<seq:020>, see `head_store`)
//! <prefix>/t/<topic_uuid>/<partition:06>/seg/<base:020>-<next:020>-e<epoch:010>-<ulid>.mseg
//! <prefix>/t/<topic_uuid>/<partition:06>/page/<base:020>-<next:020>-e<epoch:010>-<ulid>.page
//! ```
//! A topic appears by its UUID only, so that delete-and-recreate is safe and a hostile topic name cannot reach a path.
//! `next` is the exclusive end. Names of data objects are never reused: each holds the writer's epoch and a fresh ULID (I2).

use millstream_log::remote::TopicIdPartition;
use object_store::path::Path;
use ulid::Ulid;
use uuid::Uuid;

/// Where the tier's objects are in its bucket.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    prefix: String,
}

/// What kind of immutable object a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ObjectKind {
    /// A segment object.
    Segment,
    /// A page of segment references that were spilled out of the head.
    Page,
}

impl ObjectKind {
    fn folder(self) -> &'static str {
        match self {
            ObjectKind::Segment => "seg",
            ObjectKind::Page => "page",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            ObjectKind::Segment => "mseg",
            ObjectKind::Page => "page",
        }
    }
}

/// The name of an immutable object: what it holds, who wrote it, and a ULID that makes it unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ObjectName {
    /// What it is.
    pub kind: ObjectKind,
    /// First offset.
    pub base: i64,
    /// First offset after it.
    pub next: i64,
    /// Leader epoch of the writer.
    pub epoch: i32,
    /// Unique part.
    pub id: Ulid,
}

impl Layout {
    /// A layout below `prefix`, which may be empty.
    pub fn new(prefix: &str) -> Layout {
        Layout {
            prefix: prefix.trim_matches('/').to_owned(),
        }
    }

    fn key(&self, rest: &str) -> Path {
        if self.prefix.is_empty() {
            Path::from(rest)
        } else {
            Path::from(format!("{}/{rest}", self.prefix))
        }
    }

    /// The marker that says which format the bucket holds.
    pub fn marker(&self) -> Path {
        self.key("millstream.json")
    }

    /// A name for the start-up probe.
    pub fn probe(&self, id: Ulid) -> Path {
        self.key(&format!("probe/{id}"))
    }

    /// The folder of all topics.
    pub fn topics(&self) -> Path {
        self.key("t")
    }

    /// The folder of a topic.
    pub fn topic(&self, topic_id: Uuid) -> Path {
        self.key(&format!("t/{topic_id}"))
    }

    /// The description of a topic.
    pub fn topic_json(&self, topic_id: Uuid) -> Path {
        self.key(&format!("t/{topic_id}/topic.json"))
    }

    /// The folder of a partition.
    pub fn partition(&self, partition: TopicIdPartition) -> Path {
        self.key(&format!("t/{}/{:06}", partition.topic_id, partition.partition))
    }

    /// The head of a partition.
    pub fn head(&self, partition: TopicIdPartition) -> Path {
        self.key(&format!("t/{}/{:06}/head", partition.topic_id, partition.partition))
    }

    /// The folder of a partition's objects of one kind.
    pub fn folder(&self, partition: TopicIdPartition, kind: ObjectKind) -> Path {
        self.key(&format!("t/{}/{:06}/{}", partition.topic_id, partition.partition, kind.folder()))
    }

    /// The key of an immutable object.
    pub fn object(&self, partition: TopicIdPartition, name: &ObjectName) -> Path {
        let ObjectName {
            kind,
            base,
            next,
            epoch,
            id,
        } = name;
        let (topic, number, folder, extension) = (partition.topic_id, partition.partition, kind.folder(), kind.extension());
        self.key(&format!(
            "t/{topic}/{number:06}/{folder}/{base:020}-{next:020}-e{epoch:010}-{id}.{extension}"
        ))
    }
}

impl ObjectName {
    /// Reads back the last part of a key; `None` for anything that this tier would not have written.
    pub fn parse(kind: ObjectKind, file_name: &str) -> Option<ObjectName> {
        let stem = file_name.strip_suffix(kind.extension())?.strip_suffix('.')?;
        let mut parts = stem.split('-');
        let base = fixed_number(parts.next()?, 20)?;
        let next = fixed_number(parts.next()?, 20)?;
        let epoch = i32::try_from(fixed_number(parts.next()?.strip_prefix('e')?, 10)?).ok()?;
        let id = Ulid::from_string(parts.next()?).ok()?;
        (parts.next().is_none() && base <= next).then_some(ObjectName {
            kind,
            base,
            next,
            epoch,
            id,
        })
    }
}

fn fixed_number(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_holds_the_topic_id_and_the_fixed_width_range() {
        let partition = TopicIdPartition {
            topic_id: Uuid::nil(),
            partition: 3,
        };
        let name = ObjectName {
            kind: ObjectKind::Segment,
            base: 7,
            next: 12,
            epoch: 4,
            id: Ulid::from_parts(1, 2),
        };
        let key = Layout::new("/a/b/").object(partition, &name);
        let expected = "a/b/t/00000000-0000-0000-0000-000000000000/000003/seg/\
                        00000000000000000007-00000000000000000012-e0000000004-00000000010000000000000002.mseg";
        assert_eq!(key.as_ref(), expected);
        assert_eq!(ObjectName::parse(ObjectKind::Segment, key.filename().unwrap()), Some(name));
        assert_eq!(ObjectName::parse(ObjectKind::Page, key.filename().unwrap()), None);
    }

    proptest! {
        #[test]
        fn random_names_never_panic(name in ".{0,120}") {
            let _ = ObjectName::parse(ObjectKind::Segment, &name);
        }

        #[test]
        fn names_round_trip(base in 0_i64..i64::MAX, length in 0_i64..1000, epoch in 0_i32..i32::MAX, time in 0_u64..1 << 48, random: u128) {
            let name = ObjectName { kind: ObjectKind::Page, base, next: base.saturating_add(length), epoch, id: Ulid::from_parts(time, random) };
            let partition = TopicIdPartition { topic_id: Uuid::nil(), partition: 0 };
            let key = Layout::new("").object(partition, &name);
            prop_assert_eq!(ObjectName::parse(ObjectKind::Page, key.filename().unwrap()), Some(name));
        }
    }
}
