//! Claims about creating and deleting topics.

use super::super::fixture::{Cluster, codes};
use super::*;

fn create_one(cluster: &mut Cluster, topic: NewTopic) -> Outcome<TopicImage> {
    cluster.run(|context| create_topics(context, &[topic], false)).remove(0)
}

#[test]
fn defaults_are_the_brokers() {
    let mut cluster = Cluster::with_topics(&[]);
    cluster.fixed = [
        (NUM_PARTITIONS.to_owned(), "4".to_owned()),
        (DEFAULT_REPLICATION_FACTOR.to_owned(), "2".to_owned()),
    ]
    .into();
    let topic = cluster.topic("t");
    let created = create_one(&mut cluster, topic).unwrap();
    assert_eq!((created.partitions.len(), created.created_ms, created.internal), (4, 1_000, false));
    assert!(
        created
            .partitions
            .iter()
            .all(|partition| partition.replicas.len() == 2 && partition.leader_epoch == 0)
    );
    assert_eq!(cluster.image.topic_by_id(created.id).unwrap().name, "t");
}

#[test]
fn validation_creates_nothing() {
    let mut cluster = Cluster::with_topics(&[]);
    let topic = cluster.topic("t");
    let decision = create_topics(&cluster.context(), &[topic], true);
    assert!(decision.records.is_empty() && decision.reply[0].is_ok());
}

#[test]
fn each_item_of_a_request_stands_alone() {
    let mut cluster = Cluster::with_topics(&["old"]);
    let (new, old, twice, bad) = (
        cluster.topic("new"),
        cluster.topic("old"),
        cluster.topic("twice"),
        cluster.topic("a/b"),
    );
    let reply = cluster.run(|context| create_topics(context, &[new, old, twice.clone(), bad, twice], false));
    let expected = [
        ErrorCode::None,
        ErrorCode::TopicAlreadyExists,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidTopicException,
        ErrorCode::InvalidRequest,
    ];
    assert_eq!(codes(&reply), expected);
    assert_eq!(cluster.image.topics.keys().collect::<Vec<_>>(), ["new", "old"]);
}

#[test]
fn names_that_differ_in_dots_only_collide() {
    let mut cluster = Cluster::with_topics(&["a.b"]);
    let topic = cluster.topic("a_b");
    let refused = create_one(&mut cluster, topic).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ErrorCode::InvalidTopicException, "Topic 'a_b' collides with existing topic: a.b")
    );
    let both = [cluster.topic("x.y"), cluster.topic("x_y")];
    let reply = cluster.run(|context| create_topics(context, &both, false));
    assert_eq!(
        codes(&reply),
        [ErrorCode::None, ErrorCode::InvalidTopicException],
        "within one request too"
    );
}

#[test]
fn numbers_that_make_no_topic_are_refused() {
    let mut cluster = Cluster::with_topics(&[]);
    for (num_partitions, replication_factor, code) in [
        (0, 1, ErrorCode::InvalidPartitions),
        (-2, 1, ErrorCode::InvalidPartitions),
        (1, 0, ErrorCode::InvalidReplicationFactor),
        (1, -2, ErrorCode::InvalidReplicationFactor),
        (1, 4, ErrorCode::InvalidReplicationFactor),
        (10_001, 1, ErrorCode::PolicyViolation),
        (i32::MAX, 1, ErrorCode::PolicyViolation),
    ] {
        let topic = NewTopic {
            num_partitions,
            replication_factor,
            ..cluster.topic("t")
        };
        assert_eq!(
            create_one(&mut cluster, topic).unwrap_err().code,
            code,
            "{num_partitions} {replication_factor}"
        );
    }
    let many = [
        NewTopic {
            num_partitions: 6_000,
            ..cluster.topic("a")
        },
        NewTopic {
            num_partitions: 6_000,
            ..cluster.topic("b")
        },
    ];
    let reply = cluster.run(|context| create_topics(context, &many, true));
    assert_eq!(codes(&reply), [ErrorCode::None, ErrorCode::PolicyViolation]);
}

#[test]
fn manual_assignments_are_taken_as_they_are() {
    let mut cluster = Cluster::with_topics(&[]);
    let topic = NewTopic {
        assignments: vec![(1, vec![3, 1]), (0, vec![2, 3])],
        ..cluster.topic("t")
    };
    let created = create_one(&mut cluster, topic.clone()).unwrap();
    assert_eq!(
        created
            .partitions
            .iter()
            .map(|partition| partition.replicas.clone())
            .collect::<Vec<_>>(),
        [[2, 3], [3, 1]]
    );
    let mut refused = |topic: NewTopic| {
        let id = cluster.id();
        create_one(
            &mut cluster,
            NewTopic {
                name: "u".to_owned(),
                id,
                ..topic
            },
        )
        .unwrap_err()
        .code
    };
    assert_eq!(
        refused(NewTopic {
            num_partitions: 2,
            ..topic.clone()
        }),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        refused(NewTopic {
            replication_factor: 2,
            ..topic.clone()
        }),
        ErrorCode::InvalidRequest
    );
    for assignments in [
        vec![(1, vec![1])],
        vec![(0, vec![1]), (0, vec![2])],
        vec![(0, vec![1]), (2, vec![1])],
        vec![(0, vec![9])],
        vec![(-1, vec![1])],
    ] {
        assert_eq!(
            refused(NewTopic {
                assignments,
                ..topic.clone()
            }),
            ErrorCode::InvalidReplicaAssignment
        );
    }
}

#[test]
fn bad_configs_create_nothing() {
    let mut cluster = Cluster::with_topics(&[]);
    let set = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned())))
            .collect::<Vec<_>>()
    };
    for configs in [
        set(&[("retention.ms", "soon")]),
        set(&[("no.such.config", "1")]),
        set(&[("remote.storage.enable", "true"), ("cleanup.policy", "compact")]),
        vec![("retention.ms".to_owned(), None)],
    ] {
        let topic = NewTopic {
            configs,
            ..cluster.topic("t")
        };
        assert_eq!(create_one(&mut cluster, topic).unwrap_err().code, ErrorCode::InvalidConfig);
    }
    assert!(cluster.image.topics.is_empty());
}

#[test]
fn clients_cannot_create_the_brokers_own_topics() {
    let mut cluster = Cluster::with_topics(&[]);
    for name in [names::CONSUMER_OFFSETS, names::CLUSTER_METADATA, "__millstream_mine"] {
        let topic = cluster.topic(name);
        assert_eq!(create_one(&mut cluster, topic).unwrap_err().code, ErrorCode::InvalidTopicException);
    }
}

#[test]
fn ids_are_not_given_twice() {
    let mut cluster = Cluster::with_topics(&["t"]);
    let taken = cluster.image.topic("t").unwrap().id;
    for id in [taken, Uuid::nil(), Uuid::from_u128(1)] {
        let topic = NewTopic { id, ..cluster.topic("u") };
        assert!(create_one(&mut cluster, topic).is_err());
    }
}

#[test]
fn the_brokers_own_topics_are_created_when_asked_for() {
    let mut cluster = Cluster::with_topics(&[]);
    cluster.fixed = [(AUTO_CREATE_TOPICS_ENABLE.to_owned(), "false".to_owned())].into();
    let mut create = |name: &str| {
        let wish = Wish {
            name: name.to_owned(),
            id: cluster.id(),
        };
        cluster
            .run(|context| auto_create_topics(context, std::slice::from_ref(&wish)))
            .remove(0)
    };
    let offsets = create(names::CONSUMER_OFFSETS).unwrap();
    assert_eq!(
        (
            offsets.partitions.len(),
            offsets.internal,
            offsets.configs["cleanup.policy"].as_str()
        ),
        (50, true, "compact")
    );
    let transactions = create(names::TRANSACTION_STATE).unwrap();
    assert_eq!(
        (
            transactions.partitions[0].replicas.len(),
            transactions.configs["min.insync.replicas"].as_str()
        ),
        (3, "2")
    );
    assert!(create(names::PLUGINS).is_ok() && create(names::PLUGIN_LOGS).is_ok());
    assert_eq!(create("mine").unwrap_err().code, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(
        create(names::CLUSTER_METADATA).unwrap_err().code,
        ErrorCode::UnknownTopicOrPartition
    );
}

#[test]
fn internal_topics_fit_a_single_broker() {
    let cluster = Cluster::with_topics(&[]);
    let context = Context {
        brokers: &[1],
        ..cluster.context()
    };
    let wish = Wish {
        name: names::TRANSACTION_STATE.to_owned(),
        id: Uuid::from_u128(50),
    };
    let created = auto_create_topics(&context, &[wish]).reply.remove(0).unwrap();
    assert_eq!(
        (
            created.partitions[0].replicas.as_slice(),
            created.configs["min.insync.replicas"].as_str()
        ),
        (&[1][..], "1")
    );
}

#[test]
fn a_wish_creates_a_users_topic_with_defaults() {
    let mut cluster = Cluster::with_topics(&["t"]);
    cluster.fixed.insert("num.partitions".to_owned(), "4".to_owned());
    let wishes = [
        Wish {
            name: "u".to_owned(),
            id: cluster.id(),
        },
        Wish {
            name: "t".to_owned(),
            id: cluster.id(),
        },
    ];
    let reply = cluster.run(|context| auto_create_topics(context, &wishes));
    assert_eq!(codes(&reply), [ErrorCode::None, ErrorCode::TopicAlreadyExists]);
    assert_eq!(cluster.image.topic("u").unwrap().partitions.len(), 4);
}

#[test]
fn topics_are_deleted_by_name_or_id() {
    let mut cluster = Cluster::with_topics(&["a", "b"]);
    let id = cluster.image.topic("b").unwrap().id;
    let topics = [
        TopicRef::Name("a".to_owned()),
        TopicRef::Id(id),
        TopicRef::Name("a".to_owned()),
        TopicRef::Id(id),
    ];
    let reply = cluster.run(|context| delete_topics(context, &topics));
    assert_eq!(
        codes(&reply),
        [
            ErrorCode::None,
            ErrorCode::None,
            ErrorCode::UnknownTopicOrPartition,
            ErrorCode::UnknownTopicId
        ]
    );
    assert!(cluster.image.topics.is_empty() && cluster.image.names.is_empty());
}

#[test]
fn internal_topics_and_views_are_not_deleted_as_topics() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    cluster.create_view("v", "t").unwrap();
    let wish = Wish {
        name: names::CONSUMER_OFFSETS.to_owned(),
        id: cluster.id(),
    };
    cluster.run(|context| auto_create_topics(context, &[wish]));
    for name in [names::CONSUMER_OFFSETS, "v"] {
        let reply = cluster.run(|context| delete_topics(context, &[TopicRef::Name(name.to_owned())]));
        assert_eq!(codes(&reply), [ErrorCode::InvalidRequest], "{name}");
    }
}

#[test]
fn deletion_can_be_switched_off() {
    let mut cluster = Cluster::with_topics(&["t"]);
    cluster.fixed = [(DELETE_TOPIC_ENABLE.to_owned(), "false".to_owned())].into();
    let reply = cluster.run(|context| delete_topics(context, &[TopicRef::Name("t".to_owned())]));
    assert_eq!(codes(&reply), [ErrorCode::TopicDeletionDisabled]);
}
