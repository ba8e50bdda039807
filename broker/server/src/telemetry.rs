//! Client metrics (KIP-714): who is asked for which, and what was pushed, exported with the broker's own.
//!
//! A client's subscription is all client metrics resources that match it; its id is a hash of what they ask for, so that a change of them
//! makes the client ask again. Pushed metrics are OTLP; the last value of each is kept, for as many series as are allowed, until the client
//! ends or falls silent.

mod otlp;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use millstream_core::metadata::{
    ClusterImage,
    configs::{
        BrokerLayers, ClientFacts, ClientMatch, Scope, effective_value,
        groups::{METRICS_INTERVAL_MS, METRICS_MATCH, METRICS_NAMES},
    },
};
use millstream_protocol::{ErrorCode, compression::Compression};
use uuid::Uuid;

/// Interval for clients that nobody wants metrics of.
const DEFAULT_INTERVAL_MS: i32 = 300_000;
/// Series that are kept of one client.
const SERIES_MAX: usize = 1_000;
/// Clients that are known at a time.
const CLIENTS_MAX: usize = 10_000;
/// Intervals of silence after which a client is forgotten.
const SILENT_INTERVALS: i64 = 3;

/// What a client is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub subscription_id: i32,
    pub interval_ms: i32,
    /// Prefixes of metrics; the empty one is all.
    pub names: Vec<String>,
}

#[derive(Debug)]
struct Client {
    client_id: String,
    interval_ms: i32,
    /// When it asked, or pushed, last.
    heard_ms: i64,
    pushed_ms: i64,
    ended: bool,
    series: BTreeMap<String, f64>,
}

/// The clients that push.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    clients: Mutex<BTreeMap<Uuid, Client>>,
}

/// What the metadata wants of a client.
pub(crate) fn wanted(image: &ClusterImage, client: &ClientFacts) -> Wanted {
    let layers = BrokerLayers::none();
    let mut names: Vec<String> = Vec::new();
    let mut interval_ms = DEFAULT_INTERVAL_MS;
    for configs in image.client_metrics.values() {
        let text = |name: &str| effective_value(Scope::ClientMetrics, name, configs, &layers).unwrap_or_default();
        if !ClientMatch::parse(&text(METRICS_MATCH)).is_ok_and(|pattern| pattern.matches(client)) {
            continue;
        }
        let listed = text(METRICS_NAMES);
        let listed = listed.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.extend(listed.map(|name| if name == "*" { String::new() } else { name.to_owned() }));
        interval_ms = interval_ms.min(text(METRICS_INTERVAL_MS).parse().unwrap_or(DEFAULT_INTERVAL_MS));
    }
    names.sort();
    names.dedup();
    if names.first().is_some_and(String::is_empty) {
        names.truncate(1);
    }
    let text = format!("{interval_ms}:{}", names.join(","));
    Wanted {
        subscription_id: crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text.as_bytes()) as u32 as i32,
        interval_ms,
        names,
    }
}

impl Telemetry {
    /// A client asks what it shall push; an id for one that has none.
    pub fn ask(&self, id: Uuid, client_id: &str, wanted: &Wanted, now_ms: i64) -> Result<Uuid, ErrorCode> {
        let id = if id.is_nil() { Uuid::new_v4() } else { id };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        forget_silent(&mut clients, now_ms);
        if clients.len() >= CLIENTS_MAX && !clients.contains_key(&id) {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        let client = clients.entry(id).or_insert_with(|| Client {
            client_id: client_id.to_owned(),
            interval_ms: wanted.interval_ms,
            heard_ms: now_ms,
            pushed_ms: i64::MIN,
            ended: false,
            series: BTreeMap::new(),
        });
        client.interval_ms = wanted.interval_ms;
        client.heard_ms = now_ms;
        Ok(id)
    }

    /// A client pushes metrics.
    pub fn push(&self, push: &Push<'_>, wanted: &Wanted, now_ms: i64) -> Result<(), ErrorCode> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.get_mut(&push.id).ok_or(ErrorCode::UnknownSubscriptionId)?;
        if client.ended {
            return Err(ErrorCode::InvalidRequest);
        }
        if push.subscription_id != wanted.subscription_id {
            return Err(ErrorCode::UnknownSubscriptionId);
        }
        // Half the interval is early but bearable: clients vary it. The last push of a client comes when it comes.
        let is_early = now_ms.saturating_sub(client.pushed_ms) < i64::from(client.interval_ms) / 2;
        if is_early && !push.terminating {
            return Err(ErrorCode::ThrottlingQuotaExceeded);
        }
        client.heard_ms = now_ms;
        client.pushed_ms = now_ms;
        client.ended = push.terminating;
        if push.bytes.len() > push.bytes_max {
            return Err(ErrorCode::TelemetryTooLarge);
        }
        let codec = Compression::ALL.into_iter().nth(usize::try_from(push.codec).unwrap_or(usize::MAX));
        let codec = codec.ok_or(ErrorCode::UnsupportedCompressionType)?;
        let bytes = bytes::Bytes::copy_from_slice(push.bytes);
        let plain = codec.decompress(&bytes, push.bytes_max).map_err(|_| ErrorCode::TelemetryTooLarge)?;
        let points = otlp::points(&plain).ok_or(ErrorCode::InvalidRecord)?;
        for (name, value) in points {
            let is_known = client.series.contains_key(&name);
            if is_known || client.series.len() < SERIES_MAX {
                client.series.insert(name, value);
            }
        }
        Ok(())
    }

    /// The last values in OpenMetrics.
    pub fn render(&self, out: &mut String, now_ms: i64) {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        forget_silent(&mut clients, now_ms);
        if clients.values().all(|client| client.series.is_empty()) {
            return;
        }
        out.push_str("# HELP millstream_client_metric Metrics that clients pushed (KIP-714).\n# TYPE millstream_client_metric unknown\n");
        for (id, client) in clients.iter() {
            let client_id = escaped(&client.client_id);
            for (name, value) in &client.series {
                let name = escaped(name);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    out,
                    "millstream_client_metric{{client_instance_id=\"{id}\",client_id=\"{client_id}\",metric=\"{name}\"}} {value}"
                );
            }
        }
    }
}

fn forget_silent(clients: &mut BTreeMap<Uuid, Client>, now_ms: i64) {
    clients.retain(|_, client| now_ms.saturating_sub(client.heard_ms) <= SILENT_INTERVALS * i64::from(client.interval_ms));
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// PushTelemetry.
#[derive(Debug)]
pub(crate) struct Push<'a> {
    pub id: Uuid,
    pub subscription_id: i32,
    pub terminating: bool,
    pub codec: i8,
    pub bytes: &'a [u8],
    /// `telemetry.max.bytes`
    pub bytes_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(pattern: &str, names: &str) -> ClusterImage {
        let mut image = ClusterImage::empty(Uuid::nil());
        let configs = [(METRICS_MATCH, pattern), (METRICS_NAMES, names), (METRICS_INTERVAL_MS, "1000")];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        image.client_metrics.insert("m".to_owned(), configs.into());
        image
    }

    #[test]
    fn a_client_is_asked_for_what_matching_subscriptions_want() {
        let client = ClientFacts {
            client_id: "app".to_owned(),
            ..ClientFacts::default()
        };
        let found = wanted(&image("client_id=app", "org.a, org.b"), &client);
        assert_eq!((found.interval_ms, found.names.join("|")), (1_000, "org.a|org.b".to_owned()));
        assert_eq!(wanted(&image("client_id=app", "*,org.a"), &client).names, [""]);
        let other = wanted(&image("client_id=other", "*"), &client);
        assert_eq!((other.interval_ms, other.names.len()), (DEFAULT_INTERVAL_MS, 0));
        assert_ne!(found.subscription_id, other.subscription_id);
    }

    #[test]
    fn pushes_are_kept_bounded_and_in_time() {
        let telemetry = Telemetry::default();
        let wanted = wanted(&image("", "*"), &ClientFacts::default());
        let id = telemetry.ask(Uuid::nil(), "app", &wanted, 0).unwrap();
        let bytes = otlp::sample("connections", 3.0);
        let push = |subscription_id, terminating, now_ms| {
            let push = Push {
                id,
                subscription_id,
                terminating,
                codec: 0,
                bytes: &bytes,
                bytes_max: 1_000,
            };
            telemetry.push(&push, &wanted, now_ms)
        };
        assert_eq!(push(wanted.subscription_id + 1, false, 0), Err(ErrorCode::UnknownSubscriptionId));
        assert_eq!(push(wanted.subscription_id, false, 0), Ok(()));
        assert_eq!(push(wanted.subscription_id, false, 10), Err(ErrorCode::ThrottlingQuotaExceeded));
        let mut out = String::new();
        telemetry.render(&mut out, 20);
        assert!(out.contains("metric=\"connections\"} 3"), "{out}");
        assert_eq!(push(wanted.subscription_id, true, 30), Ok(()));
        assert_eq!(push(wanted.subscription_id, false, 2_000), Err(ErrorCode::InvalidRequest));
        out.clear();
        telemetry.render(&mut out, 100_000);
        assert_eq!(out, "", "silent clients are forgotten");
    }
}
