//! What good plugins do to batches.

use super::*;

#[tokio::test]
async fn batch_that_is_kept_whole_is_unchanged() {
    let (host, chain) = bound(guests::keep_all(), FailurePolicy::Reject, |_| ()).await;
    assert!(matches!(run(&host, &chain, &["a", "b", "c"]).await, ChainOutcome::Unchanged));
    let stats = only_stats(&host);
    assert_eq!((stats.batches, stats.records_in, stats.records_out, stats.recycles), (1, 3, 3, 0));
    assert_eq!(
        (stats.plugin.as_str(), stats.hook.as_str(), stats.topic.as_str()),
        ("guest", "produce", "orders")
    );
    assert!(stats.seconds > 0.0);
}

#[tokio::test]
async fn dropped_records_leave_holes_and_the_rest_untouched() {
    let (host, chain) = bound(guests::odd(&[1]), FailurePolicy::Reject, |_| ()).await;
    let outcome = run(&host, &chain, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(survivors(&outcome), [(0, "a".to_owned()), (2, "c".to_owned()), (4, "e".to_owned())]);
    assert_eq!(only_stats(&host).dropped, 2);
}

#[tokio::test]
async fn replaced_value_keeps_key_headers_and_deltas() {
    let (host, chain) = bound(guests::odd(b"\x02\x02\x03\0\0\0new"), FailurePolicy::Reject, |_| ()).await;
    let outcome = run(&host, &chain, &["a", "b", "c"]).await;
    assert_eq!(
        survivors(&outcome),
        [(0, "a".to_owned()), (1, "new".to_owned()), (2, "c".to_owned())]
    );
    assert_eq!(only_stats(&host).replaced, 1);
}

#[tokio::test]
async fn each_link_sees_what_the_one_before_left_and_indexes_stay_those_of_the_batch() {
    let host = host();
    let dropper = push(&host, "dropper", guests::odd(&[1])).await;
    let diverter = push(&host, "diverter", guests::odd(b"\x04\x03\0\0\0bad")).await;
    let mut diverting = binding(diverter, FailurePolicy::Reject);
    diverting.dead_letter_topic = Some("dead".to_owned());
    let chain = chain(Hook::Produce, vec![binding(dropper, FailurePolicy::Reject), diverting]);
    host.prepare(chain.clone()).await.unwrap();

    // The first leaves 0, 2 and 4; the second diverts the odd one of those: 2.
    let values = ["a", "b", "c", "d", "e"];
    let outcome = run(&host, &chain, &values).await;
    assert_eq!(survivors(&outcome), [(0, "a".to_owned()), (4, "e".to_owned())]);
    let ChainOutcome::Changed { diverted, .. } = &outcome else {
        unreachable!()
    };
    let [diverted] = diverted.as_slice() else { panic!("{diverted:?}") };
    assert_eq!(
        (diverted.index, diverted.dead_letter_topic.as_str(), diverted.kind),
        (2, "dead", "verdict")
    );
    assert_eq!(
        (diverted.plugin.as_str(), diverted.version.as_str(), diverted.reason.as_str()),
        ("diverter", "1.0.0", "bad")
    );
    let original = RecordReader::new(&diverted.original, 1).next().unwrap().unwrap();
    assert_eq!((original.offset_delta, original.value), (2, Some(&b"c"[..])));
}

#[tokio::test]
async fn rejected_records_are_named_and_nothing_is_diverted_beside_them() {
    let host = host();
    let diverter = push(&host, "diverter", guests::odd(b"\x04\x03\0\0\0bad")).await;
    let rejecter = push(&host, "rejecter", guests::odd(b"\x03\x04\0\0\0no\x1b!")).await;
    let mut diverting = binding(diverter, FailurePolicy::Reject);
    diverting.dead_letter_topic = Some("dead".to_owned());
    let chain = chain(Hook::Produce, vec![diverting, binding(rejecter, FailurePolicy::Reject)]);
    host.prepare(chain.clone()).await.unwrap();
    let outcome = run(&host, &chain, &["a", "b", "c", "d", "e"]).await;
    assert_eq!(rejected(&outcome), [(2, "rejecter@1.0.0: no\\u{1b}!")]);
    assert!(matches!(&outcome, ChainOutcome::Changed { diverted, .. } if diverted.is_empty()));
}

#[tokio::test]
async fn divert_without_a_dead_letter_topic_rejects() {
    let (host, chain) = bound(guests::odd(b"\x04\x03\0\0\0bad"), FailurePolicy::Drop, |_| ()).await;
    assert_eq!(rejected(&run(&host, &chain, &["a", "b"]).await), [(1, "guest@1.0.0: bad")]);
}

#[tokio::test]
async fn views_drop_what_a_verdict_rejects_or_diverts() {
    for verdict in [b"\x03\x03\0\0\0bad", b"\x04\x03\0\0\0bad"] {
        let host = host();
        let chain = bind(&host, guests::odd(verdict), Hook::View, FailurePolicy::Stall, |binding| {
            binding.dead_letter_topic = Some("dead".to_owned());
        });
        let outcome = run(&host, &chain.await, &["a", "b", "c"]).await;
        assert_eq!(survivor_values(&outcome), ["a", "c"]);
        assert!(matches!(&outcome, ChainOutcome::Changed { rejected, diverted, .. } if rejected.is_empty() && diverted.is_empty()));
        assert_eq!(only_stats(&host).topic, "cheap-orders");
    }
}

#[tokio::test]
async fn error_verdicts_follow_the_policy() {
    let error = b"\x06\x03\0\0\0bad";
    let cases = [(FailurePolicy::Drop, vec!["a", "c"]), (FailurePolicy::Pass, vec!["a", "b", "c"])];
    for (policy, expected) in cases {
        let (host, chain) = bound(guests::odd(error), policy, |_| ()).await;
        match run(&host, &chain, &["a", "b", "c"]).await {
            ChainOutcome::Unchanged => assert_eq!(expected, ["a", "b", "c"]),
            outcome => assert_eq!(survivor_values(&outcome), expected),
        }
        let stats = only_stats(&host);
        assert_eq!((stats.errors, stats.crashes), (1, 0));
    }
    let (host, chain) = bound(guests::odd(error), FailurePolicy::Stall, |_| ()).await;
    assert_eq!(stall_reason(&run(&host, &chain, &["a", "b"]).await), "guest@1.0.0: bad");
    let (host, chain) = bound(guests::odd(error), FailurePolicy::Reject, |_| ()).await;
    assert_eq!(rejected(&run(&host, &chain, &["a", "b"]).await), [(1, "guest@1.0.0: bad")]);
}

#[tokio::test]
async fn all_records_can_go_and_later_links_are_not_asked() {
    let host = host();
    let chain = chain(
        Hook::Produce,
        vec![
            binding(
                push(
                    &host,
                    "drop",
                    guests::per_record(
                        "(i32.store8 (local.get $at) (i32.const 1)) (local.set $at (i32.add (local.get $at) (i32.const 1)))",
                    ),
                )
                .await,
                FailurePolicy::Reject,
            ),
            binding(push(&host, "trap", guests::batch("unreachable")).await, FailurePolicy::Reject),
        ],
    );
    host.prepare(chain.clone()).await.unwrap();
    assert!(matches!(run(&host, &chain, &["a", "b"]).await, ChainOutcome::Changed { record_count: 0, records, .. } if records.is_empty()));
}

#[tokio::test]
async fn records_interface_keeps_drops_and_replaces() {
    let (host, chain) = bound(guests::records(), FailurePolicy::Reject, |_| ()).await;
    let outcome = run(&host, &chain, &["a", "b", "c", "d"]).await;
    let ChainOutcome::Changed { records, record_count, .. } = &outcome else {
        panic!("{outcome:?}")
    };
    let records: Vec<_> = RecordReader::new(records, *record_count).map(Result::unwrap).collect();
    let values: Vec<_> = records.iter().map(|record| (record.offset_delta, record.value.unwrap())).collect();
    assert_eq!(values, [(0, &b"a"[..]), (2, b"new"), (3, b"d")]);
    assert_eq!(
        (records[1].key, records[1].headers.count(), records[1].timestamp_delta),
        (None, 0, 20)
    );
}

#[tokio::test]
async fn unprepared_chain_stalls_while_it_is_compiled_and_then_runs() {
    let host = host();
    let artefact = push(&host, "guest", guests::keep_all()).await;
    let chain = chain(Hook::Produce, vec![binding(artefact, FailurePolicy::Reject)]);
    assert!(stall_reason(&run(&host, &chain, &["a"]).await).contains("guest@1.0.0"));
    host.prepare(chain.clone()).await.unwrap();
    assert!(matches!(run(&host, &chain, &["a"]).await, ChainOutcome::Unchanged));
}

#[tokio::test]
async fn instance_is_replaced_after_its_share_of_batches() {
    let host = host_with(HostOptions {
        instance_batches_max: 3,
        ..HostOptions::default()
    });
    let chain = bind(&host, guests::keep_all(), Hook::Produce, FailurePolicy::Reject, |_| ()).await;
    for _ in 0..7 {
        assert!(matches!(run(&host, &chain, &["a"]).await, ChainOutcome::Unchanged));
    }
    assert_eq!(only_stats(&host).recycles, 2);
}

#[tokio::test]
async fn config_reaches_init_and_its_refusal_reaches_the_operator() {
    // Refuses every configuration that is longer than two bytes.
    let init = "(if (result i32) (i32.gt_u (local.get $length) (i32.const 2))
        (then (i32.store8 (i32.const 144) (i32.const 1)) (i32.store (i32.const 148) (i32.const 200)) (i32.store (i32.const 152) (i32.const 7)) (i32.const 144))
        (else (i32.const 128)))";
    let host = host();
    let artefact = push(&host, "picky", guests::module_with_init("batch", "", init, "unreachable")).await;
    let with_config = |config: &str| {
        let mut binding = binding(artefact.clone(), FailurePolicy::Reject);
        binding.config = config.to_owned();
        chain(Hook::Produce, vec![binding])
    };
    assert!(host.prepare(with_config("{}")).await.is_ok());
    let refused = host.prepare(with_config("{\"a\":1}")).await;
    assert!(
        matches!(&refused, Err(TransformError::BadConfig { plugin, reason }) if plugin == "picky@1.0.0" && reason == "no good"),
        "{refused:?}"
    );
    let broken = host.prepare(with_config("[]")).await;
    assert!(matches!(&broken, Err(TransformError::BadConfig { .. })), "{broken:?}");
}

#[tokio::test]
async fn memory_budget_admits_what_fits_and_takes_back_what_nobody_holds() {
    let host = host_with(HostOptions {
        memory_budget_bytes: 20 << 20,
        ..HostOptions::default()
    });
    let artefact = push(&host, "guest", guests::keep_all()).await;
    let with_memory = |memory_bytes: u64| {
        let mut binding = binding(artefact.clone(), FailurePolicy::Reject);
        binding.limits.memory_bytes = memory_bytes;
        chain(Hook::Produce, vec![binding])
    };
    let first = with_memory(8 << 20);
    host.prepare(first.clone()).await.unwrap();
    let second = with_memory(7 << 20);
    let refused = host.prepare(second.clone()).await;
    assert!(
        matches!(&refused, Err(TransformError::NoMemory { free_bytes, .. }) if *free_bytes == 4 << 20),
        "{refused:?}"
    );
    drop(first);
    host.prepare(second).await.unwrap();
}

#[tokio::test]
async fn section_with_more_records_than_its_count_says_reaches_no_plugin() {
    let (host, chain) = bound(guests::keep_all(), FailurePolicy::Reject, |_| ()).await;
    for record_count in [-1, 0, 1, 3] {
        let context = BatchContext {
            record_count,
            ..BatchContext::default()
        };
        let outcome = host.run(chain.clone(), context, section(&["a", "b"])).await;
        assert_eq!(rejected(&outcome).len(), 1, "{record_count}: {outcome:?}");
    }
    assert_eq!(only_stats(&host).batches, 0);
}

#[tokio::test]
async fn compiled_code_is_found_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let options = HostOptions {
        cache_dir: Some(dir.path().join("cwasm")),
        ..HostOptions::default()
    };
    for restart in 0..2 {
        let host = host_with(options.clone());
        let chain = bind(&host, guests::keep_all(), Hook::Produce, FailurePolicy::Reject, |_| ()).await;
        assert!(
            matches!(run(&host, &chain, &["a"]).await, ChainOutcome::Unchanged),
            "start {restart}"
        );
        assert_eq!(std::fs::read_dir(dir.path().join("cwasm")).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn custom_counters_are_exported() {
    let count = "(call $counter_add (i32.const 209) (i32.const 2) (i64.const 5))";
    let (host, chain) = bound(guests::on_marker(count), FailurePolicy::Reject, |_| ()).await;
    run(&host, &chain, &["\u{7}", "\u{7}"]).await;
    let [metric] = host.custom_metrics().try_into().unwrap();
    assert_eq!(
        (metric.plugin.as_str(), metric.name.as_str(), metric.value),
        ("guest", "ew", crate::CustomValue::Counter(10))
    );
}
