//! The host against real guests, good and hostile. Guests are core modules in text form; they take the way that every guest takes:
//! component type embedded, made into a component by `inspect`, pushed, bound, run.

mod guests;
mod hostile;
mod inspect;
mod run;

use std::sync::Arc;

use bytes::Bytes;
use millstream_abi::{HeaderRef, RecordReader, append_record};
use millstream_core::transform::{
    Artefact, BatchContext, Binding, BreakerMode, Chain, ChainOutcome, FailurePolicy, Hook, Limits, PluginStats, Transform, TransformError,
};

use crate::{HostOptions, PluginHost, compile::sha256_hex};

/// Long enough for a good guest on a busy machine.
const PATIENT_MS: u32 = 5_000;

fn host() -> Arc<PluginHost> {
    host_with(HostOptions::default())
}

fn host_with(options: HostOptions) -> Arc<PluginHost> {
    PluginHost::new(HostOptions {
        instances_max: 32,
        ..options
    })
    .unwrap()
}

/// Pushes a core module under a name.
async fn push(host: &PluginHost, name: &str, module: Vec<u8>) -> Arc<Artefact> {
    let inspected = host.inspect(module.into()).await.unwrap();
    artefact(name, inspected.component)
}

fn artefact(name: &str, component: Bytes) -> Arc<Artefact> {
    Arc::new(Artefact {
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        sha256: sha256_hex(&component),
        component,
    })
}

fn binding(artefact: Arc<Artefact>, policy: FailurePolicy) -> Binding {
    Binding {
        artefact,
        config: String::new(),
        policy,
        breaker: BreakerMode::Closed,
        limits: Limits {
            deadline_ms: PATIENT_MS,
            memory_bytes: 8 << 20,
            crashes_per_minute: 10,
        },
        dead_letter_topic: None,
    }
}

fn chain(hook: Hook, bindings: Vec<Binding>) -> Arc<Chain> {
    let view = (hook == Hook::View).then(|| "cheap-orders".to_owned());
    Arc::new(Chain {
        hook,
        topic: "orders".to_owned(),
        view,
        version: 1,
        bindings,
    })
}

/// A host with one plugin on the produce hook, prepared.
async fn bound(module: Vec<u8>, policy: FailurePolicy, change: impl FnOnce(&mut Binding)) -> (Arc<PluginHost>, Arc<Chain>) {
    let host = host();
    let chain = bind(&host, module, Hook::Produce, policy, change).await;
    (host, chain)
}

async fn bind(host: &PluginHost, module: Vec<u8>, hook: Hook, policy: FailurePolicy, change: impl FnOnce(&mut Binding)) -> Arc<Chain> {
    let mut binding = binding(push(host, "guest", module).await, policy);
    change(&mut binding);
    let chain = chain(hook, vec![binding]);
    host.prepare(chain.clone()).await.unwrap();
    chain
}

/// A section with these values; record `i` has key `k{i}`, offset delta `i`, timestamp delta `10 * i` and one header.
fn section(values: &[&str]) -> Bytes {
    let mut section = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let delta = i32::try_from(index).unwrap();
        let headers = [HeaderRef {
            key: "h",
            value: Some(b"x"),
        }];
        let key = format!("k{index}");
        append_record(
            &mut section,
            i64::from(delta) * 10,
            delta,
            Some(key.as_bytes()),
            Some(value.as_bytes()),
            &headers,
        )
        .unwrap();
    }
    section.into()
}

async fn run(host: &PluginHost, chain: &Arc<Chain>, values: &[&str]) -> ChainOutcome {
    let context = BatchContext {
        record_count: i32::try_from(values.len()).unwrap(),
        base_offset: -1,
        leader_epoch: -1,
        ..Default::default()
    };
    host.run(chain.clone(), context, section(values)).await
}

/// What survived: offset delta and value of each record, after checking that deltas, key and headers are those handed in.
fn survivors(outcome: &ChainOutcome) -> Vec<(i32, String)> {
    let ChainOutcome::Changed { records, record_count, .. } = outcome else {
        panic!("not changed: {outcome:?}")
    };
    let record = |record: Result<millstream_abi::RawRecord<'_>, _>| {
        let record = record.unwrap();
        assert_eq!(record.timestamp_delta, i64::from(record.offset_delta) * 10);
        assert_eq!(record.headers.map(|header| header.key).collect::<Vec<_>>(), [b"h"]);
        assert_eq!(record.key, Some(format!("k{}", record.offset_delta).as_bytes()));
        (record.offset_delta, String::from_utf8_lossy(record.value.unwrap()).into_owned())
    };
    RecordReader::new(records, *record_count).map(record).collect()
}

fn survivor_values(outcome: &ChainOutcome) -> Vec<String> {
    survivors(outcome).into_iter().map(|(_, value)| value).collect()
}

fn stall_reason(outcome: &ChainOutcome) -> &str {
    let ChainOutcome::Stalled { reason } = outcome else {
        panic!("not stalled: {outcome:?}")
    };
    reason
}

fn rejected(outcome: &ChainOutcome) -> Vec<(i32, &str)> {
    let ChainOutcome::Changed { rejected, .. } = outcome else {
        panic!("not changed: {outcome:?}")
    };
    rejected.iter().map(|rejected| (rejected.index, rejected.reason.as_str())).collect()
}

fn only_stats(host: &PluginHost) -> PluginStats {
    let mut stats = host.stats();
    assert_eq!(stats.len(), 1, "{stats:?}");
    stats.remove(0)
}
