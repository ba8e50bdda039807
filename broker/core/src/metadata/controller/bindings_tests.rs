//! Claims about bindings.

use super::super::fixture::{Cluster, binding};
use super::*;

fn refusal(cluster: &mut Cluster, target: &str, new: &NewBinding) -> ErrorCode {
    cluster.run(|context| bind(context, target, new)).expect_err("a refusal").code
}

#[test]
fn open_choices_get_the_defaults_of_the_hook() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    cluster.create_view("v", "t").unwrap();
    let bound = cluster
        .run(|context| bind(context, "t", &binding("b", "both", Hook::Produce)))
        .unwrap();
    assert_eq!(
        (bound.policy, bound.limits.deadline_ms, bound.config.as_str()),
        (FailurePolicy::Reject, 50, "{}")
    );
    let bound = cluster
        .run(|context| bind(context, "v", &binding("c", "view", Hook::View)))
        .unwrap();
    assert_eq!((bound.policy, bound.limits.deadline_ms), (FailurePolicy::Stall, 200));
}

#[test]
fn security_bindings_are_never_passed_by() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    let secure = NewBinding {
        security: true,
        ..binding("b", "both", Hook::Produce)
    };
    let passing = NewBinding {
        policy: Some(FailurePolicy::Pass),
        ..secure.clone()
    };
    let open = NewBinding {
        breaker: BreakerMode::Open,
        ..secure.clone()
    };
    assert_eq!(refusal(&mut cluster, "t", &passing), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&mut cluster, "t", &open), ErrorCode::InvalidRequest);
    assert!(cluster.run(|context| bind(context, "t", &secure)).is_ok());
    let weaker = NewBinding {
        security: false,
        ..passing
    };
    assert_eq!(refusal(&mut cluster, "t", &weaker), ErrorCode::PolicyViolation);
    assert!(
        cluster.run(|context| bind(context, "t", &secure)).is_ok(),
        "another version may take its place"
    );
    cluster.run(|context| unbind(context, "t", "b")).unwrap();
    assert!(cluster.run(|context| bind(context, "t", &weaker)).is_ok());
}

#[test]
fn hooks_must_fit_the_plugin_and_the_target() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    cluster.create_view("v", "t").unwrap();
    assert_eq!(
        refusal(&mut cluster, "t", &binding("b", "view", Hook::Produce)),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        refusal(&mut cluster, "t", &binding("b", "view", Hook::View)),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        refusal(&mut cluster, "v", &binding("b", "both", Hook::Produce)),
        ErrorCode::InvalidRequest
    );
    assert_eq!(
        refusal(&mut cluster, "t", &binding("b", "missing", Hook::Produce)),
        ErrorCode::ResourceNotFound
    );
    assert_eq!(
        refusal(&mut cluster, "missing", &binding("b", "both", Hook::Produce)),
        ErrorCode::UnknownTopicOrPartition
    );
    let reject = NewBinding {
        policy: Some(FailurePolicy::Reject),
        ..binding("b", "both", Hook::View)
    };
    assert_eq!(refusal(&mut cluster, "v", &reject), ErrorCode::InvalidRequest);
}

#[test]
fn limits_hold_at_their_ends() {
    let limits = Limits::for_hook(Hook::Produce);
    for good in [
        Limits {
            deadline_ms: 1,
            memory_bytes: 1 << 20,
            crashes_per_minute: 1,
        },
        Limits {
            deadline_ms: 10_000,
            memory_bytes: 512 << 20,
            crashes_per_minute: 1_000,
        },
    ] {
        assert_eq!(check_limits(&good), Ok(()));
    }
    for bad in [
        Limits { deadline_ms: 0, ..limits },
        Limits {
            deadline_ms: 10_001,
            ..limits
        },
        Limits {
            memory_bytes: (1 << 20) - 1,
            ..limits
        },
        Limits {
            memory_bytes: (512 << 20) + 1,
            ..limits
        },
        Limits {
            crashes_per_minute: 0,
            ..limits
        },
        Limits {
            crashes_per_minute: 1_001,
            ..limits
        },
    ] {
        assert!(check_limits(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn configurations_are_json_objects_of_bounded_size() {
    for bad in [
        "[]",
        "1",
        "{",
        "null",
        &"[".repeat(1_000),
        &format!("{{}}{}", " ".repeat(CONFIG_BYTES_MAX)),
    ] {
        assert!(checked_config(bad).is_err());
    }
    assert_eq!(checked_config(r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
}

#[test]
fn dead_letters_go_to_another_topic_that_then_stays() {
    let mut cluster = Cluster::with_plugins(&["t", "dead"]);
    let divert = NewBinding {
        policy: Some(FailurePolicy::Divert),
        ..binding("b", "both", Hook::Produce)
    };
    let to = |topic: &str| NewBinding {
        dead_letter_topic: Some(topic.to_owned()),
        ..divert.clone()
    };
    assert_eq!(refusal(&mut cluster, "t", &divert), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&mut cluster, "t", &to("t")), ErrorCode::InvalidRequest);
    assert_eq!(refusal(&mut cluster, "t", &to("missing")), ErrorCode::UnknownTopicOrPartition);
    assert!(cluster.run(|context| bind(context, "t", &to("dead"))).is_ok());
    let dead = [super::super::TopicRef::Name("dead".to_owned())];
    let refused = cluster
        .run(|context| super::super::delete_topics(context, &dead))
        .remove(0)
        .unwrap_err();
    assert!(
        refused.message.contains("dead letters of binding 'b' on 't'"),
        "{}",
        refused.message
    );
}

#[test]
fn chains_are_ordered_bounded_and_versioned() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    let before = cluster.image.topic("t").unwrap().chain_version;
    for number in 0..16 {
        let new = NewBinding {
            order: -number,
            ..binding(&format!("b{number}"), "both", Hook::Produce)
        };
        cluster.run(|context| bind(context, "t", &new)).unwrap();
    }
    let topic = cluster.image.topic("t").unwrap();
    assert_eq!((topic.bindings[0].name.as_str(), topic.bindings[15].name.as_str()), ("b15", "b0"));
    assert!(topic.chain_version > before);
    assert_eq!(
        refusal(&mut cluster, "t", &binding("more", "both", Hook::Produce)),
        ErrorCode::PolicyViolation
    );
    assert!(
        cluster
            .run(|context| bind(context, "t", &binding("b3", "produce", Hook::Produce)))
            .is_ok(),
        "replacing needs no room"
    );
    assert_eq!(cluster.image.topic("t").unwrap().bindings.len(), BINDINGS_PER_TARGET_MAX);
}

#[test]
fn a_view_keeps_its_last_binding() {
    let mut cluster = Cluster::with_plugins(&["t"]);
    cluster.create_view("v", "t").unwrap();
    assert_eq!(
        cluster.run(|context| unbind(context, "v", "b")).unwrap_err().code,
        ErrorCode::PolicyViolation
    );
    cluster
        .run(|context| bind(context, "v", &binding("c", "view", Hook::View)))
        .unwrap();
    let before = cluster.image.view_chain_version("v").unwrap();
    assert_eq!(cluster.run(|context| unbind(context, "v", "b")), Ok(()));
    assert!(cluster.image.view_chain_version("v").unwrap() > before);
    assert_eq!(
        cluster.run(|context| unbind(context, "v", "b")).unwrap_err().code,
        ErrorCode::ResourceNotFound
    );
}
