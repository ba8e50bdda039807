//! What hostile and broken plugins cannot do.

use std::time::{Duration, Instant};

use super::*;

const SPIN: &str = "(loop $forever (br $forever)) unreachable";

/// Record 5 of 9 carries the mark.
const VALUES: [&str; 9] = ["a", "b", "c", "d", "e", "\u{7}", "g", "h", "i"];

fn quick(binding: &mut Binding) {
    binding.limits.deadline_ms = 20;
}

#[tokio::test]
async fn trap_is_traced_to_its_record_and_each_policy_applies_to_it_alone() {
    let others = ["a", "b", "c", "d", "e", "g", "h", "i"];
    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Drop, |_| ()).await;
    assert_eq!(survivor_values(&run(&host, &chain, &VALUES).await), others);
    let stats = only_stats(&host);
    assert_eq!((stats.dropped, stats.records_out, stats.breaker_tripped), (1, 8, false));
    assert!(stats.crashes > 1 && stats.crashes == stats.recycles, "{stats:?}");

    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Pass, |_| ()).await;
    assert!(matches!(run(&host, &chain, &VALUES).await, ChainOutcome::Unchanged));

    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Reject, |_| ()).await;
    let outcome = run(&host, &chain, &VALUES).await;
    let [(5, reason)] = rejected(&outcome)[..] else {
        panic!("{outcome:?}")
    };
    assert!(reason.starts_with("guest@1.0.0: trap: "), "{reason}");

    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Stall, |_| ()).await;
    assert!(stall_reason(&run(&host, &chain, &VALUES).await).starts_with("guest@1.0.0: trap: "));

    let divert = |binding: &mut Binding| binding.dead_letter_topic = Some("dead".to_owned());
    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Divert, divert).await;
    let outcome = run(&host, &chain, &VALUES).await;
    assert_eq!(survivor_values(&outcome), others);
    let ChainOutcome::Changed { diverted, .. } = outcome else {
        unreachable!()
    };
    assert_eq!(
        diverted.iter().map(|diverted| (diverted.index, diverted.kind)).collect::<Vec<_>>(),
        [(5, "crash")]
    );
}

#[tokio::test]
async fn instance_that_crashed_is_never_used_again() {
    // A guest that counts in memory: after a crash the count starts anew, so it never sees a second batch after the mark.
    let harm = "(if (i32.load (i32.const 512)) (then unreachable)) (i32.store (i32.const 512) (i32.const 1)) unreachable";
    let (host, chain) = bound(guests::on_marker(harm), FailurePolicy::Drop, |_| ()).await;
    for _ in 0..2 {
        let outcome = run(&host, &chain, &["a", "\u{7}"]).await;
        assert_eq!(survivor_values(&outcome), ["a"]);
        assert!(matches!(run(&host, &chain, &["b"]).await, ChainOutcome::Unchanged));
    }
    let stats = only_stats(&host);
    assert_eq!((stats.crashes, stats.recycles), (4, 4));
}

#[tokio::test]
async fn crashed_instances_give_their_memory_back() {
    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Drop, |binding| {
        binding.limits.crashes_per_minute = 1000;
    })
    .await;
    // More crashes than the pool has slots (32).
    for _ in 0..100 {
        assert_eq!(survivor_values(&run(&host, &chain, &["a", "\u{7}"]).await), ["a"]);
    }
    assert!(only_stats(&host).recycles >= 200);
    assert!(host.live_instances() <= 2, "{} instances for two workers", host.live_instances());
}

#[tokio::test]
async fn storm_of_host_calls_ends_at_the_deadline_and_its_log_lines_are_dropped() {
    let storm = "(loop $forever (call $log (i32.const 1) (i32.const 0) (i32.const 4096)) (br $forever))";
    let (host, chain) = bound(guests::on_marker(storm), FailurePolicy::Reject, |binding| {
        binding.limits.deadline_ms = 200
    })
    .await;
    let outcome = run(&host, &chain, &["\u{7}"]).await;
    assert_eq!(rejected(&outcome), [(0, "guest@1.0.0: timeout: the deadline passed")]);
    assert!(host.log_lines_dropped() > 0);
}

#[tokio::test]
async fn infinite_loop_ends_at_the_deadline_and_only_its_record_goes() {
    let (host, chain) = bound(guests::on_marker(SPIN), FailurePolicy::Drop, |binding| {
        binding.limits.deadline_ms = 200
    })
    .await;
    let outcome = run(&host, &chain, &VALUES).await;
    assert_eq!(survivors(&outcome).len(), 8, "{outcome:?}");
}

#[tokio::test]
async fn memory_bomb_stack_overflow_and_wild_pointers_are_crashes_of_their_record() {
    let recursion = "(call $deeper (i32.const 0))";
    let deeper = "(func $deeper (param i32) (result i32) (i32.add (call $deeper (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))";
    let cases = [
        (
            "memory bomb",
            guests::on_marker("(loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable"),
            "out of memory",
        ),
        ("stack overflow", with_function(deeper, &format!("(drop {recursion})")), "trap: "),
        ("wild load", guests::on_marker("(drop (i32.load (i32.const -8)))"), "trap: "),
        (
            "wild reply",
            guests::on_marker(
                "(i32.store (i32.const 164) (i32.const -16)) (i32.store (i32.const 168) (i32.const 64)) (return (i32.const 160))",
            ),
            "bad reply: ",
        ),
        (
            "wild pointer to the reply",
            guests::on_marker("(return (i32.const -8))"),
            "bad reply: ",
        ),
        (
            "bad discriminant",
            guests::on_marker("(i32.store8 (i32.const 160) (i32.const 9)) (return (i32.const 160))"),
            "bad reply: ",
        ),
        (
            "wild log line",
            guests::on_marker("(call $log (i32.const 0) (i32.const -16) (i32.const 1000))"),
            "bad reply: ",
        ),
        (
            "unknown log level",
            guests::on_marker("(call $log (i32.const 77) (i32.const 0) (i32.const 0))"),
            "bad reply: ",
        ),
    ];
    for (name, module, expected) in cases {
        let (host, chain) = bound(module, FailurePolicy::Reject, |_| ()).await;
        let outcome = run(&host, &chain, &VALUES).await;
        let [(5, reason)] = rejected(&outcome)[..] else {
            panic!("{name}: {outcome:?}")
        };
        assert!(reason.contains(expected), "{name}: {reason}");
    }
}

fn with_function(function: &str, harm: &str) -> Vec<u8> {
    let process = format!(
        "(if (call $has_mark (local.get $p)) (then {harm})) (i32.store16 (i32.const 4096) (i32.const 1)) (i32.store (i32.const 164) (i32.const 4096)) (i32.store (i32.const 168) (i32.const 2)) (i32.const 160)"
    );
    let has_mark = "(func $has_mark (param $p i32) (result i32) (local $i i32)
        (loop $next (result i32)
          (if (i32.ge_u (local.get $i) (i32.load offset=84 (local.get $p))) (then (return (i32.const 0))))
          (if (i32.eq (i32.load8_u (i32.add (i32.load offset=80 (local.get $p)) (local.get $i))) (i32.const 7)) (then (return (i32.const 1))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))";
    guests::module("batch", &format!("{function} {has_mark}"), &process)
}

#[tokio::test]
async fn garbage_replies_never_let_a_record_through() {
    let cases: [(&str, Vec<u8>); 8] = [
        ("empty", guests::reply(b"")),
        ("unknown version", guests::reply(b"\x09\0")),
        ("unknown kind", guests::reply(b"\x01\x09")),
        ("bytes behind keep-all", guests::reply(b"\x01\0\0")),
        ("too few verdicts", guests::reply(b"\x01\x01\x01\0\0\0\0")),
        ("verdicts that end early", guests::reply(b"\x01\x01\x02\0\0\0\0")),
        ("a count that lies", guests::reply(b"\x01\x01\xff\xff\xff\xff\0\0")),
        ("a gibibyte", guests::reply_at(0, 1 << 30)),
    ];
    for (name, module) in cases {
        let (host, chain) = bound(module, FailurePolicy::Drop, |_| ()).await;
        let outcome = run(&host, &chain, &["a", "b"]).await;
        // A count of one is right for a single record: such a guest loses none on the second try.
        let expected = if name == "too few verdicts" { 2 } else { 0 };
        match outcome {
            ChainOutcome::Unchanged => assert_eq!(expected, 2, "{name}"),
            outcome => assert_eq!(survivors(&outcome).len(), expected, "{name}: {outcome:?}"),
        }
        assert!(only_stats(&host).crashes > 0, "{name}");
    }
}

#[tokio::test]
async fn reply_beyond_the_hostcall_allowance_is_refused_quickly() {
    let grown = "(drop (memory.grow (i32.const 4096))) (i32.store (i32.const 164) (i32.const 0)) (i32.store (i32.const 168) (i32.const 200000000)) (i32.const 160)";
    let (host, chain) = bound(guests::batch(grown), FailurePolicy::Reject, |binding| {
        binding.limits.memory_bytes = 300 << 20
    })
    .await;
    let outcome = run(&host, &chain, &["a"]).await;
    assert!(rejected(&outcome)[0].1.contains("bad reply"), "{outcome:?}");
}

#[tokio::test]
async fn too_large_output_and_too_large_records_are_bad_replies() {
    // Replaces the value by 60,000 bytes: one fits the floor of 64 KiB for small batches, two do not.
    let big = "(i32.store16 (local.get $at) (i32.const 0x0202)) (i32.store offset=2 (local.get $at) (i32.const 30000)) (local.set $at (i32.add (local.get $at) (i32.const 30006)))";
    let (host, chain) = bound(guests::per_record(big), FailurePolicy::Drop, |_| ()).await;
    assert_eq!(survivors(&run(&host, &chain, &["a", "b"]).await).len(), 2);
    assert_eq!(
        survivors(&run(&host, &chain, &["a", "b", "c"]).await).len(),
        2,
        "the third would pass the limit"
    );

    let host = host_with(HostOptions {
        record_bytes_max: 1000,
        ..HostOptions::default()
    });
    let chain = bind(&host, guests::per_record(big), Hook::Produce, FailurePolicy::Reject, |_| ()).await;
    assert!(rejected(&run(&host, &chain, &["a"]).await)[0].1.contains("the maximum is 1000"));
}

#[tokio::test]
async fn guest_that_always_errs_is_asked_for_each_record_and_trips_no_breaker() {
    let (host, chain) = bound(guests::err(), FailurePolicy::Drop, |_| ()).await;
    let outcome = run(&host, &chain, &["a"; 40]).await;
    assert!(matches!(outcome, ChainOutcome::Changed { record_count: 0, .. }), "{outcome:?}");
    let stats = only_stats(&host);
    assert_eq!((stats.crashes, stats.breaker_tripped), (0, false));
}

#[tokio::test]
async fn breaker_trips_stalls_and_heals() {
    let host = host_with(HostOptions {
        breaker_retry: Duration::from_millis(1),
        ..HostOptions::default()
    });
    let module = guests::on_marker("unreachable");
    let chain = bind(&host, module, Hook::Produce, FailurePolicy::Drop, |binding| {
        binding.limits.crashes_per_minute = 2
    })
    .await;
    for _ in 0..2 {
        assert!(matches!(
            run(&host, &chain, &["\u{7}"]).await,
            ChainOutcome::Changed { record_count: 0, .. }
        ));
    }
    assert!(stall_reason(&run(&host, &chain, &["\u{7}"]).await).contains("breaker"));
    assert!(only_stats(&host).breaker_tripped);
    // The retry time passes; one good batch heals it.
    let started = Instant::now();
    while !matches!(run(&host, &chain, &["a"]).await, ChainOutcome::Unchanged) {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
    assert!(!only_stats(&host).breaker_tripped);
}

#[tokio::test]
async fn tripped_breaker_that_is_open_passes_batches_unfiltered() {
    let (host, chain) = bound(guests::on_marker("unreachable"), FailurePolicy::Drop, |binding| {
        binding.limits.crashes_per_minute = 1;
        binding.breaker = BreakerMode::Open;
    })
    .await;
    assert!(matches!(run(&host, &chain, &["\u{7}"]).await, ChainOutcome::Changed { .. }));
    for _ in 0..2 {
        assert!(matches!(run(&host, &chain, &["\u{7}", "a"]).await, ChainOutcome::Unchanged));
    }
    assert!(only_stats(&host).breaker_tripped);
}

#[tokio::test]
async fn guest_that_spins_on_everything_trips_its_breaker_instead_of_being_searched_for_ever() {
    let (host, chain) = bound(guests::batch(SPIN), FailurePolicy::Drop, quick).await;
    assert!(stall_reason(&run(&host, &chain, &["a"; 100]).await).starts_with("guest@1.0.0: "));
    assert!(only_stats(&host).breaker_tripped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_plugin_leaves_the_others_their_turn() {
    let host = host();
    let spinner = bind(&host, guests::batch(SPIN), Hook::View, FailurePolicy::Drop, |binding| {
        quick(binding);
        binding.limits.crashes_per_minute = 1000;
    })
    .await;
    let good = bind(&host, guests::odd(&[1]), Hook::Produce, FailurePolicy::Reject, |_| ()).await;
    let spinning: Vec<_> = (0..4)
        .map(|_| {
            let (host, spinner) = (host.clone(), spinner.clone());
            tokio::spawn(async move { run(&host, &spinner, &["a"; 8]).await })
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(survivor_values(&run(&host, &good, &["a", "b", "c"]).await), ["a", "c"]);
    }
    for task in spinning {
        // All eight records spin: dropped, or the search took too long.
        assert!(matches!(
            task.await.unwrap(),
            ChainOutcome::Changed { record_count: 0, .. } | ChainOutcome::Stalled { .. }
        ));
    }
}

#[tokio::test]
async fn caller_that_goes_away_leaves_a_working_host() {
    let host = host();
    let spinner = bind(&host, guests::batch(SPIN), Hook::View, FailurePolicy::Drop, quick).await;
    for _ in 0..8 {
        let gone = tokio::time::timeout(Duration::from_millis(1), run(&host, &spinner, &["a"; 100])).await;
        assert!(gone.is_err() || matches!(gone, Ok(ChainOutcome::Stalled { .. })));
    }
    let good = bind(&host, guests::keep_all(), Hook::Produce, FailurePolicy::Reject, |_| ()).await;
    assert!(matches!(run(&host, &good, &["a"]).await, ChainOutcome::Unchanged));
}

#[tokio::test]
async fn init_that_traps_or_spins_is_refused_at_prepare() {
    for init in ["unreachable", "(loop $forever (br $forever)) (i32.const 0)"] {
        let host = host();
        let artefact = push(&host, "guest", guests::module_with_init("batch", "", init, "unreachable")).await;
        let mut binding = binding(artefact, FailurePolicy::Reject);
        quick(&mut binding);
        let refused = host.prepare(chain(Hook::Produce, vec![binding])).await;
        assert!(
            matches!(&refused, Err(TransformError::Invalid(reason)) if reason.starts_with("guest@1.0.0: ")),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn full_queue_stalls() {
    let host = host_with(HostOptions {
        workers: 1,
        queue_batches_max: 1,
        ..HostOptions::default()
    });
    let spinner = bind(&host, guests::batch(SPIN), Hook::View, FailurePolicy::Drop, |binding| {
        binding.limits.deadline_ms = 100
    })
    .await;
    let all = (0..8).map(|_| {
        let (host, spinner) = (host.clone(), spinner.clone());
        tokio::spawn(async move { run(&host, &spinner, &["a"]).await })
    });
    let mut full = 0;
    for task in all.collect::<Vec<_>>() {
        full += u32::from(matches!(task.await.unwrap(), ChainOutcome::Stalled { reason } if reason.contains("too many batches")));
    }
    assert!(full >= 5, "{full}");
}

#[tokio::test]
async fn artefact_whose_bytes_are_not_those_of_its_hash_is_refused() {
    let host = host();
    let genuine = push(&host, "guest", guests::keep_all()).await;
    let forged = Arc::new(Artefact {
        sha256: "00".repeat(32),
        ..(*genuine).clone()
    });
    let refused = host
        .prepare(chain(Hook::Produce, vec![binding(forged, FailurePolicy::Reject)]))
        .await;
    assert!(
        matches!(&refused, Err(TransformError::Invalid(reason)) if reason.contains("sha256")),
        "{refused:?}"
    );
}
