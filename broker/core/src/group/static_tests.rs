//! Static membership (KIP-345, KIP-814): one claim per rule.

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;

use super::{test_client::*, *};

#[test]
fn restarted_static_leader_keeps_generation_and_skips_assignment() {
    let mut shell = Shell::new(fast_config());
    let tokens = [shell.join(static_request("i1", "")), shell.join(static_request("i2", ""))];
    shell.advance(0);
    let ids = shell.settle(&tokens);
    let token = shell.join(static_request("i1", ""));
    let joined = shell.joined(token);
    assert_eq!((joined.generation_id, joined.skip_assignment, joined.members.len()), (1, true, 2));
    assert_eq!(joined.leader, joined.member_id);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::UnknownMemberId);
    let token = shell.sync(sync_request(&joined.member_id, 1, &[]));
    assert_eq!(
        shell.synced(token).assignment.as_ref(),
        ids[0].as_bytes(),
        "the old assignment is kept"
    );

    // Before v9 it is told the old leader's id, so that it does not assign.
    let token = shell.join(JoinGroupRequest {
        supports_skipping_assignment: false,
        ..static_request("i1", "")
    });
    let joined_v8 = shell.joined(token);
    assert_eq!(
        (joined_v8.leader.as_str(), joined_v8.skip_assignment),
        (joined.member_id.as_str(), false)
    );
    shell.fail_over();
    assert_eq!(shell.heartbeat(&joined_v8.member_id, 1), ErrorCode::None, "the new id is durable");
}

#[test]
fn replaced_static_member_is_fenced() {
    let mut shell = Shell::new(fast_config());
    let first = shell.join(static_request("i1", ""));
    let second = shell.join(static_request("i1", ""));
    assert_eq!(shell.joined(first).error_code, ErrorCode::FencedInstanceId);
    shell.advance(0);
    let ids = shell.settle(&[second]);
    let token = shell.join(static_request("i1", &id_of("i1", first)));
    assert_eq!(shell.joined(token).error_code, ErrorCode::FencedInstanceId);
    let token = shell.join(static_request("i9", &ids[0]));
    assert_eq!(shell.joined(token).error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn static_restart_with_other_protocol_or_in_completing_rebalances() {
    let both = vec![("range".to_owned(), Bytes::new()), ("sticky".to_owned(), Bytes::new())];
    let mut shell = Shell::new(fast_config());
    let token = shell.join(JoinGroupRequest {
        protocols: both.clone(),
        ..static_request("i1", "")
    });
    shell.advance(0);
    assert_eq!(shell.joined(token).protocol_name.as_deref(), Some("range"));
    // In CompletingRebalance: a rebalance, which the lone member completes at once.
    let reversed: Vec<_> = both.iter().rev().cloned().collect();
    let token = shell.join(JoinGroupRequest {
        protocols: reversed.clone(),
        ..static_request("i1", "")
    });
    let joined = shell.joined(token);
    assert_eq!((joined.generation_id, joined.protocol_name.as_deref()), (2, Some("sticky")));
    let token = shell.sync(sync_request(&joined.member_id, 2, &[]));
    shell.synced(token);
    let token = shell.join(JoinGroupRequest {
        protocols: both,
        ..static_request("i1", "")
    });
    assert_eq!(shell.joined(token).generation_id, 3, "the selected protocol changes");
}

#[test]
fn static_member_survives_a_rebalance_that_it_misses_until_its_session_ends() {
    let mut shell = Shell::new(fast_config());
    let tokens = [
        shell.join(JoinGroupRequest {
            session_timeout_ms: 60_000,
            ..static_request("i1", "")
        }),
        shell.join(join_request("z", "")),
    ];
    shell.advance(0);
    let ids = shell.settle(&tokens);
    let token = shell.join(JoinGroupRequest {
        protocols: vec![("range".into(), Bytes::new())],
        ..join_request("z", &ids[1])
    });
    shell.advance(5_000);
    let joined = shell.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 2));
    assert_eq!(joined.leader, ids[1], "a member that joined leads");
}

#[test]
fn rebalance_timeout_of_zero_does_not_stall_the_clock() {
    let mut shell = Shell::new(fast_config());
    let restless = |instance| JoinGroupRequest {
        rebalance_timeout_ms: 0,
        session_timeout_ms: 100,
        ..static_request(instance, "")
    };
    let tokens = [shell.join(restless("i1")), shell.join(restless("i2"))];
    shell.advance(0);
    let ids = shell.settle(&tokens);
    shell.leave(&[(&ids[0], Some("i1"))]);
    // The other one never rejoins: the join phase is tried again each millisecond, until its session ends.
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    let decision = shell.coordinator.tick(50);
    assert_eq!(decision, Decision::default());
    shell.now_ms = 50;
    shell.advance(50);
    assert_eq!(shell.state(), GroupState::Empty);
}

#[test]
fn batched_leave_answers_each_and_rebalances_once() {
    let mut shell = Shell::new(fast_config());
    let tokens = [
        shell.join(static_request("i1", "")),
        shell.join(join_request("m", "")),
        shell.join(join_request("z", "")),
    ];
    shell.advance(0);
    let ids = shell.settle(&tokens);
    let outcomes = shell.leave(&[
        ("", Some("i1")),
        (&ids[1], None),
        ("", Some("i7")),
        ("", None),
        (&ids[2], Some("i1")),
        ("x", None),
    ]);
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(outcomes, [ErrorCode::None, ErrorCode::None, unknown, unknown, unknown, unknown]);
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    let token = shell.join(join_request("z", &ids[2]));
    assert_eq!(shell.joined(token).generation_id, 2);
}
