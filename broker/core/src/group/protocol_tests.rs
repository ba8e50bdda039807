//! One claim per rule of the classic protocol.

use bytes::Bytes;
use millstream_protocol::error_code::ErrorCode;

use super::{test_client::*, *};

/// How a test brings a group into a state.
fn shell_in(state: GroupState) -> (Shell, Vec<String>) {
    let mut shell = Shell::new(fast_config());
    let ids = match state {
        GroupState::Dead => Vec::new(),
        GroupState::Empty => {
            let ids = shell.stable_group(&["a"]);
            shell.leave(&[(&ids[0], None)]);
            Vec::new()
        }
        GroupState::Stable => shell.stable_group(&["a", "b"]),
        GroupState::PreparingRebalance => {
            let ids = shell.stable_group(&["a", "b"]);
            let token = shell.join(join_request("a", &ids[0]));
            assert!(shell.is_parked(token));
            ids
        }
        GroupState::CompletingRebalance => {
            let ids = shell.stable_group(&["a", "b"]);
            shell.join(join_request("a", &ids[0]));
            shell.join(join_request("b", &ids[1]));
            ids
        }
    };
    assert_eq!(shell.state(), state);
    (shell, ids)
}

#[test]
fn state_table_holds() {
    use GroupState::{CompletingRebalance, Dead, Empty, PreparingRebalance, Stable};
    type Edge = (GroupState, GroupState, fn(&mut Shell, &[String]));
    let edges: [Edge; 12] = [
        (Dead, Empty, |shell, _| {
            shell.join(JoinGroupRequest {
                requires_known_member_id: true,
                ..join_request("a", "")
            });
        }),
        (Empty, PreparingRebalance, |shell, _| {
            shell.join(join_request("a", ""));
        }),
        (Empty, Dead, |shell, _| {
            let decision = shell.coordinator.delete_groups(&[GROUP.into()]);
            assert_eq!(shell.run(decision), [(GROUP.to_owned(), ErrorCode::None)]);
        }),
        (Empty, Dead, |shell, _| {
            shell.advance(fast_config().offsets_retention_check_interval_ms)
        }),
        (PreparingRebalance, Empty, |shell, ids| {
            drop(shell.leave(&[(&ids[0], None), (&ids[1], None)]))
        }),
        (PreparingRebalance, CompletingRebalance, |shell, ids| {
            shell.join(join_request("b", &ids[1]));
        }),
        (PreparingRebalance, CompletingRebalance, |shell, ids| {
            drop(shell.leave(&[(&ids[1], None)]))
        }),
        (CompletingRebalance, PreparingRebalance, |shell, _| {
            shell.join(join_request("c", ""));
        }),
        (CompletingRebalance, PreparingRebalance, |shell, ids| {
            drop(shell.leave(&[(&ids[1], None)]))
        }),
        (CompletingRebalance, Stable, |shell, ids| {
            shell.sync(sync_request(&ids[0], 2, &[]));
        }),
        (Stable, PreparingRebalance, |shell, ids| drop(shell.leave(&[(&ids[1], None)]))),
        (Stable, PreparingRebalance, |shell, ids| {
            shell.advance(600);
            assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::None);
            shell.advance(400);
        }),
    ];
    for (index, (from, to, act)) in edges.into_iter().enumerate() {
        let (mut shell, ids) = shell_in(from);
        act(&mut shell, &ids);
        assert_eq!(shell.state(), to, "edge {index} from {from} to {to}");
        assert!(from == Dead || from.can_become(to), "edge {from} to {to} is not in the table");
    }
    let allowed = GroupState::ALL
        .iter()
        .flat_map(|from| GroupState::ALL.iter().filter(|to| from.can_become(**to)))
        .count();
    assert_eq!(allowed, 10);
}

#[test]
fn first_rebalance_gives_one_generation_to_all_who_joined() {
    let mut shell = Shell::new(GroupConfig {
        initial_rebalance_delay_ms: 3_000,
        ..fast_config()
    });
    let a = shell.join(join_request("a", ""));
    shell.advance(2_000);
    let b = shell.join(join_request("b", ""));
    shell.advance(2_999);
    assert!(
        shell.is_parked(a) && shell.is_parked(b),
        "b's join extends the delay by what is left of the rebalance timeout"
    );
    shell.advance(1);
    let (a, b) = (shell.joined(a), shell.joined(b));
    assert_eq!((a.generation_id, b.generation_id), (1, 1));
    assert_eq!(a.leader, a.member_id);
    assert_eq!((a.members.len(), b.members.len()), (2, 0));
    assert_eq!(b.protocol_name.as_deref(), Some("range"));
}

#[test]
fn initial_delay_ends_with_the_rebalance_timeout() {
    let mut shell = Shell::new(GroupConfig {
        initial_rebalance_delay_ms: 3_000,
        ..fast_config()
    });
    let first = shell.join(join_request("a", ""));
    for client in ["b", "c", "d"] {
        shell.advance(1_500);
        shell.join(join_request(client, ""));
    }
    // 3000 ms, and the 2000 ms that remain of 5000.
    shell.advance(499);
    assert!(shell.is_parked(first));
    shell.advance(1);
    assert_eq!(shell.joined(first).members.len(), 4);
}

#[test]
fn dynamic_member_of_v4_is_told_its_id_first() {
    let mut shell = Shell::new(fast_config());
    let token = shell.join(JoinGroupRequest {
        requires_known_member_id: true,
        ..join_request("a", "")
    });
    let told = shell.joined(token);
    assert_eq!(
        (told.error_code, told.member_id.as_str()),
        (ErrorCode::MemberIdRequired, id_of("a", token).as_str())
    );
    let token = shell.join(JoinGroupRequest {
        requires_known_member_id: true,
        ..join_request("a", &told.member_id)
    });
    shell.advance(0);
    let joined = shell.joined(token);
    assert_eq!((joined.error_code, joined.generation_id), (ErrorCode::None, 1));
    assert_eq!(joined.member_id, told.member_id);
}

#[test]
fn pending_member_holds_a_rebalance_up_until_its_session_ends() {
    let mut shell = Shell::new(fast_config());
    let ids = shell.stable_group(&["a"]);
    shell.join(JoinGroupRequest {
        requires_known_member_id: true,
        ..join_request("b", "")
    });
    let rejoin = shell.join(join_request("a", &ids[0]));
    shell.advance(999);
    assert!(shell.is_parked(rejoin));
    shell.advance(1);
    assert_eq!(shell.joined(rejoin).generation_id, 2);
}

#[test]
fn requests_that_fit_no_group_are_refused() {
    let mut shell = Shell::new(fast_config());
    let cases = [
        (
            JoinGroupRequest {
                group_id: String::new(),
                ..join_request("a", "")
            },
            ErrorCode::InvalidGroupId,
        ),
        (
            JoinGroupRequest {
                session_timeout_ms: 99,
                ..join_request("a", "")
            },
            ErrorCode::InvalidSessionTimeout,
        ),
        (
            JoinGroupRequest {
                session_timeout_ms: 1_800_001,
                ..join_request("a", "")
            },
            ErrorCode::InvalidSessionTimeout,
        ),
        (
            JoinGroupRequest {
                protocols: Vec::new(),
                ..join_request("a", "")
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (
            JoinGroupRequest {
                protocol_type: String::new(),
                ..join_request("a", "")
            },
            ErrorCode::InconsistentGroupProtocol,
        ),
        (join_request("a", "nobody"), ErrorCode::UnknownMemberId),
        (
            JoinGroupRequest {
                client_host: "h".repeat(32_768),
                ..join_request("a", "")
            },
            ErrorCode::InvalidRequest,
        ),
    ];
    for (request, error) in cases {
        let token = shell.join(request);
        assert_eq!(shell.joined(token).error_code, error);
    }
    assert_eq!(shell.heartbeat("nobody", 1), ErrorCode::UnknownMemberId);
    assert_eq!(shell.leave(&[("nobody", None)]), [ErrorCode::UnknownMemberId]);
    let token = shell.sync(sync_request("nobody", 1, &[]));
    assert_eq!(shell.synced(token).error_code, ErrorCode::UnknownMemberId);
    assert_eq!(shell.log, []);
}

#[test]
fn protocol_that_not_all_can_do_is_inconsistent() {
    let mut shell = Shell::new(fast_config());
    shell.stable_group(&["a"]);
    let other = JoinGroupRequest {
        protocols: vec![("sticky".into(), Bytes::new())],
        ..join_request("b", "")
    };
    let token = shell.join(other);
    assert_eq!(shell.joined(token).error_code, ErrorCode::InconsistentGroupProtocol);
    let token = shell.join(JoinGroupRequest {
        protocol_type: "connect".into(),
        ..join_request("b", "")
    });
    assert_eq!(shell.joined(token).error_code, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(shell.state(), GroupState::Stable);
}

#[test]
fn most_wanted_common_protocol_is_selected() {
    let mut shell = Shell::new(fast_config());
    let with = |names: &[&str], client| JoinGroupRequest {
        protocols: names.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect(),
        ..join_request(client, "")
    };
    shell.join(with(&["range", "sticky"], "a"));
    shell.join(with(&["own", "sticky", "range"], "b"));
    let token = shell.join(with(&["sticky", "range"], "c"));
    shell.advance(0);
    assert_eq!(shell.joined(token).protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn unchanged_follower_rejoins_stable_group_without_a_rebalance() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    let token = shell.join(join_request("b", &ids[1]));
    let joined = shell.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (1, 0));
    assert_eq!(shell.state(), GroupState::Stable);
}

#[test]
fn leader_rejoin_and_changed_metadata_start_a_rebalance() {
    let changed = |ids: &[String]| JoinGroupRequest {
        protocols: vec![("range".into(), subscription(&["u"]))],
        ..join_request("b", &ids[1])
    };
    let (mut shell, ids) = shell_in(GroupState::Stable);
    shell.join(join_request("a", &ids[0]));
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    let (mut shell, ids) = shell_in(GroupState::Stable);
    shell.join(changed(&ids));
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    let (mut shell, ids) = shell_in(GroupState::CompletingRebalance);
    let waiting = shell.sync(sync_request(&ids[1], 2, &[]));
    shell.join(changed(&ids));
    assert_eq!(shell.synced(waiting).error_code, ErrorCode::RebalanceInProgress);
}

#[test]
fn repeated_join_in_completing_rebalance_gets_the_same_generation() {
    let (mut shell, ids) = shell_in(GroupState::CompletingRebalance);
    let leader = shell.join(join_request("a", &ids[0]));
    let follower = shell.join(join_request("b", &ids[1]));
    let (leader, follower) = (shell.joined(leader), shell.joined(follower));
    assert_eq!((leader.generation_id, leader.members.len()), (2, 2));
    assert_eq!((follower.generation_id, follower.members.len()), (2, 0));
    assert_eq!(shell.state(), GroupState::CompletingRebalance);
}

#[test]
fn repeated_parked_join_answers_the_first_one() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    let first = shell.join(join_request("a", &ids[0]));
    let second = shell.join(join_request("a", &ids[0]));
    assert_eq!(shell.joined(first).error_code, ErrorCode::RebalanceInProgress);
    shell.join(join_request("b", &ids[1]));
    assert_eq!(shell.joined(second).generation_id, 2);
}

#[test]
fn heartbeat_while_preparing_keeps_the_session() {
    let (mut shell, ids) = shell_in(GroupState::PreparingRebalance);
    for _ in 0..4 {
        shell.advance(900);
        assert_eq!(shell.heartbeat(&ids[1], 1), ErrorCode::RebalanceInProgress);
    }
    assert_eq!(shell.heartbeat(&ids[1], 2), ErrorCode::IllegalGeneration);
    // The rebalance timeout ends the wait for it all the same.
    shell.advance(899);
    assert_eq!(shell.heartbeat(&ids[1], 1), ErrorCode::RebalanceInProgress);
    shell.advance(501);
    assert_eq!(shell.heartbeat(&ids[1], 2), ErrorCode::UnknownMemberId);
    assert_eq!(shell.state(), GroupState::CompletingRebalance);
}

#[test]
fn silent_member_is_removed_and_the_rest_rebalances() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    shell.advance(600);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::None);
    shell.advance(400);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::RebalanceInProgress);
    let token = shell.join(join_request("a", &ids[0]));
    let joined = shell.joined(token);
    assert_eq!((joined.generation_id, joined.members.len()), (2, 1));
}

#[test]
fn new_member_that_never_comes_back_is_dropped_after_the_join_timeout() {
    let config = GroupConfig {
        new_member_join_timeout_ms: 2_000,
        ..fast_config()
    };
    let mut shell = Shell::new(config);
    let ids = shell.stable_group(&["a"]);
    let newcomer = shell.join(join_request("b", ""));
    for _ in 0..4 {
        shell.advance(499);
        shell.heartbeat(&ids[0], 1);
    }
    assert!(shell.is_parked(newcomer));
    shell.advance(4);
    assert_eq!(shell.joined(newcomer).error_code, ErrorCode::UnknownMemberId);
}

#[test]
fn member_that_does_not_sync_in_time_is_removed() {
    let (mut shell, ids) = shell_in(GroupState::CompletingRebalance);
    let token = shell.sync(sync_request(&ids[0], 2, &[(&ids[0], "x")]));
    assert_eq!(shell.synced(token).assignment.as_ref(), b"x");
    for _ in 0..5 {
        shell.advance(999);
        for id in &ids {
            assert_eq!(shell.heartbeat(id, 2), ErrorCode::None);
        }
    }
    shell.advance(5);
    assert_eq!(shell.heartbeat(&ids[0], 2), ErrorCode::RebalanceInProgress);
    assert_eq!(shell.heartbeat(&ids[1], 2), ErrorCode::UnknownMemberId);
}

#[test]
fn sync_checks_generation_and_protocol() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    let wrong_type = SyncGroupRequest {
        protocol_type: Some("connect".into()),
        ..sync_request(&ids[0], 1, &[])
    };
    let wrong_name = SyncGroupRequest {
        protocol_name: Some("sticky".into()),
        ..sync_request(&ids[0], 1, &[])
    };
    for (request, error) in [
        (sync_request(&ids[0], 0, &[]), ErrorCode::IllegalGeneration),
        (wrong_type, ErrorCode::InconsistentGroupProtocol),
        (wrong_name, ErrorCode::InconsistentGroupProtocol),
        (sync_request(&ids[0], 1, &[]), ErrorCode::None),
    ] {
        let token = shell.sync(request);
        assert_eq!(shell.synced(token).error_code, error);
    }
}

#[test]
fn group_size_is_bounded_also_while_it_rebalances() {
    let mut shell = Shell::new(GroupConfig {
        members_max: 2,
        ..fast_config()
    });
    let ids = shell.stable_group(&["a", "b"]);
    let token = shell.join(join_request("c", ""));
    assert_eq!(shell.joined(token).error_code, ErrorCode::GroupMaxSizeReached);
    assert_eq!(shell.state(), GroupState::Stable);
    // The first two that join are in, whoever they are.
    let token = shell.join(join_request("a", &ids[0]));
    let newcomer = shell.join(join_request("c", ""));
    let late = shell.join(join_request("b", &ids[1]));
    assert_eq!(shell.joined(late).error_code, ErrorCode::GroupMaxSizeReached);
    assert_eq!((shell.joined(token).generation_id, shell.joined(newcomer).generation_id), (2, 2));
}

#[test]
fn pending_ids_are_bounded() {
    let mut shell = Shell::new(GroupConfig {
        pending_members_max: 1,
        ..fast_config()
    });
    let request = JoinGroupRequest {
        requires_known_member_id: true,
        ..join_request("a", "")
    };
    let (at_limit, over) = (shell.join(request.clone()), shell.join(request));
    assert_eq!(shell.joined(at_limit).error_code, ErrorCode::MemberIdRequired);
    assert_eq!(shell.joined(over).error_code, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn sessions_of_loaded_members_start_at_load() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    shell.advance(900);
    shell.fail_over();
    shell.advance(900);
    assert_eq!(shell.heartbeat(&ids[0], 1), ErrorCode::None);
    let token = shell.sync(sync_request(&ids[1], 1, &[]));
    assert_eq!(shell.synced(token).assignment.as_ref(), ids[1].as_bytes());
    shell.advance(999);
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    assert_eq!(shell.coordinator.describe_group(GROUP).members.len(), 1);
}

#[test]
fn loaded_group_over_the_maximum_rebalances() {
    let (mut shell, ids) = shell_in(GroupState::Stable);
    shell.coordinator.config.members_max = 1;
    shell.fail_over();
    assert_eq!(shell.heartbeat(&ids[1], 1), ErrorCode::RebalanceInProgress);
    let kept = shell.join(join_request("b", &ids[1]));
    let late = shell.join(join_request("a", &ids[0]));
    assert_eq!(shell.joined(late).error_code, ErrorCode::GroupMaxSizeReached);
    assert_eq!(shell.joined(kept).members.len(), 1);
}

#[test]
fn unload_answers_everything_parked() {
    let (mut shell, ids) = shell_in(GroupState::CompletingRebalance);
    let sync = shell.sync(sync_request(&ids[1], 2, &[]));
    shell.fail_over();
    assert_eq!(shell.synced(sync).error_code, ErrorCode::NotCoordinator);
    let (mut shell, ids) = shell_in(GroupState::Stable);
    let join = shell.join(join_request("a", &ids[0]));
    shell.fail_over();
    assert_eq!(shell.joined(join).error_code, ErrorCode::NotCoordinator);
    assert_eq!(shell.state(), GroupState::Stable);
}

#[test]
fn assignment_too_large_for_the_log_is_refused_and_all_rejoin() {
    let mut shell = Shell::new(GroupConfig {
        group_record_bytes_max: 1_024,
        ..fast_config()
    });
    let token = shell.join(join_request("a", ""));
    shell.advance(0);
    let joined = shell.joined(token);
    let token = shell.sync(sync_request(&joined.member_id, 1, &[(&joined.member_id, &"x".repeat(1_025))]));
    assert_eq!(shell.synced(token).error_code, ErrorCode::UnknownServerError);
    assert_eq!(shell.state(), GroupState::PreparingRebalance);
    let token = shell.join(join_request("a", &joined.member_id));
    assert_eq!(shell.joined(token).generation_id, 2);
}
