//! Members that subscribe to patterns: one claim per rule. `model_tests` has the interleavings.

use std::collections::BTreeSet;

use millstream_protocol::ErrorCode;
use uuid::Uuid;

use super::{
    ModernHeartbeat, ModernHeartbeatResponse, ModernRefusal,
    migration_tests::{beat, heartbeat},
    model_tests::{TOPIC_ID, image},
};
use crate::group::test_client::{GROUP, Shell, fast_config, put_topic};

fn shell() -> Shell {
    let mut shell = Shell::new(fast_config());
    shell.image = image(2, 1);
    shell
}

/// A member that says everything and owns nothing.
fn with_pattern(member_id: &str, epoch: i32, pattern: &str) -> ModernHeartbeat {
    ModernHeartbeat {
        topics: Some(Vec::new()),
        regex: Some(pattern.into()),
        ..heartbeat(member_id, epoch, &BTreeSet::new())
    }
}

fn say(shell: &mut Shell, member_id: &str, epoch: i32, pattern: &str) -> Result<ModernHeartbeatResponse, ModernRefusal> {
    beat(shell, &with_pattern(member_id, epoch, pattern))
}

/// Epoch, and topics of the assignment.
fn heard(answer: Result<ModernHeartbeatResponse, ModernRefusal>) -> (i32, Vec<Uuid>) {
    let answer = answer.unwrap();
    (answer.member_epoch, answer.assignment.unwrap().into_keys().collect())
}

/// A group whose one member `a` has what its pattern means.
fn settled(pattern: &str) -> Shell {
    let mut shell = shell();
    assert_eq!(heard(say(&mut shell, "a", 0, pattern)), (1, vec![]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 1, pattern)), (2, vec![TOPIC_ID]));
    shell
}

fn add_topic(shell: &mut Shell, name: &str, id: Uuid) {
    put_topic(&mut shell.image, name, id, 2);
    shell.image.epoch += 1;
}

fn epoch(shell: &Shell) -> i32 {
    shell.coordinator.hard_state().modern(GROUP).unwrap().epoch
}

fn known_patterns(shell: &Shell) -> Vec<&String> {
    let group = shell.coordinator.hard_state().modern(GROUP).unwrap();
    group.regexes.keys().collect()
}

#[test]
fn a_pattern_gets_nothing_until_it_is_resolved() {
    let mut shell = shell();
    assert_eq!(heard(say(&mut shell, "a", 0, "t.*")), (1, vec![]));
    assert_eq!(heard(say(&mut shell, "a", 1, "t.*")), (1, vec![]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 1, "t.*")), (2, vec![TOPIC_ID]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 2, "t.*")), (2, vec![TOPIC_ID]));
}

#[test]
fn a_pattern_that_matches_nothing_makes_no_epoch() {
    let mut shell = shell();
    assert_eq!(heard(say(&mut shell, "a", 0, "none")), (1, vec![]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 1, "none")), (1, vec![]));
    assert_eq!(known_patterns(&shell), ["none"]);
}

#[test]
fn a_topic_that_comes_later_is_matched_and_one_that_goes_makes_one_epoch() {
    let mut shell = settled("t.*");
    let id = Uuid::from_u128(8);
    add_topic(&mut shell, "t2", id);
    assert_eq!(heard(say(&mut shell, "a", 2, "t.*")), (2, vec![TOPIC_ID]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 2, "t.*")), (3, vec![TOPIC_ID, id]));
    shell.image.topics.remove("t2");
    shell.image.names.remove(&id);
    shell.image.epoch += 1;
    assert_eq!(heard(say(&mut shell, "a", 3, "t.*")), (4, vec![TOPIC_ID]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 4, "t.*")), (4, vec![TOPIC_ID]));
}

#[test]
fn another_coordinator_knows_what_patterns_mean() {
    let mut shell = settled("t.*");
    shell.fail_over();
    assert_eq!(heard(say(&mut shell, "a", 2, "t.*")), (2, vec![TOPIC_ID]));
    // One that it did not write down yet is found again.
    assert_eq!(heard(say(&mut shell, "a", 2, "[st]")), (2, vec![]));
    shell.fail_over();
    let (epoch, none) = heard(say(&mut shell, "a", 2, "[st]"));
    assert!(none.is_empty());
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", epoch, "[st]")), (epoch + 1, vec![TOPIC_ID]));
}

#[test]
fn a_pattern_that_another_has_is_known_at_once() {
    let mut shell = settled("t.*");
    assert_eq!(say(&mut shell, "b", 0, "t.*").unwrap().member_epoch, 3);
}

#[test]
fn patterns_that_nobody_has_any_more_are_forgotten() {
    let mut shell = settled("t.*");
    say(&mut shell, "b", 0, "[t]").unwrap();
    shell.advance(0);
    assert_eq!(known_patterns(&shell), ["[t]", "t.*"]);
    say(&mut shell, "b", -1, "").unwrap();
    assert_eq!(known_patterns(&shell), ["t.*"]);
    say(&mut shell, "a", 2, "").unwrap();
    assert!(known_patterns(&shell).is_empty());
    shell.fail_over();
}

#[test]
fn what_a_member_leaves_before_its_pattern_is_resolved_is_left_alone() {
    let mut shell = shell();
    say(&mut shell, "a", 0, "t.*").unwrap();
    say(&mut shell, "a", -1, "").unwrap();
    shell.advance(0);
    assert!(known_patterns(&shell).is_empty());
    shell.fail_over();
}

#[test]
fn another_topic_in_the_metadata_changes_nothing_for_one_who_goes_to_another_pattern() {
    let mut shell = settled("t.*");
    add_topic(&mut shell, "other", Uuid::from_u128(8));
    assert_eq!(heard(say(&mut shell, "a", 2, "[st]")), (2, vec![]));
    shell.advance(0);
    assert_eq!(heard(say(&mut shell, "a", 2, "[st]")), (3, vec![TOPIC_ID]));
}

#[test]
fn an_epoch_that_came_in_between_is_enough() {
    let mut shell = settled("t.*");
    // What the target still gives it would be nobody's, but it leaves, which makes an epoch.
    assert_eq!(heard(say(&mut shell, "a", 2, "[st]")), (2, vec![]));
    say(&mut shell, "a", -1, "").unwrap();
    shell.advance(0);
    assert_eq!(epoch(&shell), 3);
    let mut shell = settled("t.*");
    assert_eq!(heard(say(&mut shell, "a", 2, "[st]")), (2, vec![]));
    let named = ModernHeartbeat {
        regex: Some(String::new()),
        ..heartbeat("a", 2, &BTreeSet::new())
    };
    assert_eq!(heard(beat(&mut shell, &named)), (3, vec![TOPIC_ID]));
    shell.advance(0);
    assert_eq!(epoch(&shell), 3);
}

fn add_many_topics(shell: &mut Shell) {
    for number in 0..200 {
        add_topic(shell, &format!("topic-{number}"), Uuid::from_u128(100 + number));
    }
}

#[test]
fn a_pattern_that_means_more_than_a_record_holds_is_refused() {
    let mut shell = shell();
    shell.coordinator.config.group_record_bytes_max = 1_000;
    add_many_topics(&mut shell);
    assert_eq!(say(&mut shell, "a", 0, "t.*").unwrap_err().code, ErrorCode::InvalidRequest);
    assert!(shell.coordinator.hard_state().modern(GROUP).is_none());
}

#[test]
fn a_pattern_that_comes_to_mean_more_than_a_record_holds_keeps_what_it_meant() {
    let mut shell = settled("t.*");
    shell.coordinator.config.group_record_bytes_max = 1_000;
    add_many_topics(&mut shell);
    let quiet = ModernHeartbeat {
        topics: None,
        owned: None,
        ..heartbeat("a", 2, &BTreeSet::new())
    };
    assert_eq!(beat(&mut shell, &quiet).unwrap().member_epoch, 2);
    shell.advance(0);
    assert_eq!(epoch(&shell), 2);
    assert_eq!(
        heard(beat(&mut shell, &heartbeat("b", 0, &BTreeSet::new()))).0,
        3,
        "others are not held up"
    );
    assert_eq!(
        say(&mut shell, "c", 0, "t.*").unwrap().member_epoch,
        4,
        "nor those who come with the pattern"
    );
}
