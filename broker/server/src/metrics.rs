//! What the broker counts, in OpenMetrics.
//!
//! Counters that requests touch live here; everything that can be looked up (offsets, sizes, plugins, the tier) is read when
//! somebody scrapes. A request finds its topic's counters by name under a read lock, without an allocation.
//!
//! Labels are names of topics and views that exist: a scrape drops the series of those that do not any more, so there are never
//! more than topics and views existed since the last one. Units are in the names: bytes, seconds; counters end in `_total`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock, atomic::AtomicU64},
};

use millstream_core::transform::PluginStats;
use millstream_log::remote::TierStatus;
use millstream_protocol::ApiKey;
use prometheus_client::{
    encoding::text::{encode_eof, encode_registry},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{broker::Broker, partition::Partition};

/// Start of every name.
const PREFIX: &str = "millstream";

type Labels = Vec<(&'static str, String)>;

/// Name and help of a metric, and how to read it.
type Column<S, N> = (&'static str, &'static str, fn(&S) -> N);

/// The counters of this broker.
pub struct Metrics {
    registry: Registry,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
    connections: Gauge,
    connections_opened: Counter,
    uncleanable: Gauge,
    topics: Series<4>,
    views: Series<2>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that start at 0.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests = Family::default();
        registry.register("requests", "Kafka requests by API", requests.clone());
        let connections = Gauge::default();
        registry.register("connections", "Open Kafka connections", connections.clone());
        let connections_opened = Counter::default();
        registry.register(
            "connections_opened",
            "Kafka connections since the start",
            connections_opened.clone(),
        );
        let uncleanable = Gauge::default();
        registry.register(
            "log_cleaner_uncleanable_partitions",
            "Partitions that are not compacted any more, as their logs are damaged",
            uncleanable.clone(),
        );
        let topics = [
            ("produced_records", "Records appended for producers"),
            ("produced_bytes", "Bytes of batches appended for producers"),
            ("fetched_bytes", "Bytes of batches sent to consumers"),
            ("compacted_bytes", "Bytes that compaction freed"),
        ];
        let views = [
            ("view_scanned_bytes", "Bytes of batches that fetches of the view read"),
            ("view_returned_bytes", "Bytes of batches that fetches of the view returned"),
        ];
        let topics = Series::new("topic", topics, &mut registry);
        let views = Series::new("view", views, &mut registry);
        Self {
            registry,
            requests,
            connections,
            connections_opened,
            uncleanable,
            topics,
            views,
        }
    }

    /// A request came in.
    pub fn request(&self, key: ApiKey) {
        self.requests.get_or_create(&[("api", key.name())]).inc();
    }

    /// A producer's batch was appended to an existing topic.
    pub fn produced(&self, topic: &str, records: u64, bytes: u64) {
        self.topics.add(topic, [records, bytes, 0, 0]);
    }

    /// Batches of an existing topic were sent to a consumer.
    pub fn fetched(&self, topic: &str, bytes: u64) {
        self.topics.add(topic, [0, 0, bytes, 0]);
    }

    /// Compaction made an existing topic this much smaller.
    pub fn compacted(&self, topic: &str, bytes: u64) {
        self.topics.add(topic, [0, 0, 0, bytes]);
    }

    /// So many partitions cannot be compacted.
    pub fn uncleanable(&self, partitions: usize) {
        self.uncleanable.set(i64::try_from(partitions).unwrap_or(i64::MAX));
    }

    /// A fetch of an existing view read and returned this much.
    pub fn view_scanned(&self, view: &str, scanned_bytes: u64, returned_bytes: u64) {
        self.views.add(view, [scanned_bytes, returned_bytes]);
    }

    /// A client connected.
    pub fn connection_opened(&self) {
        self.connections.inc();
        self.connections_opened.inc();
    }

    /// A client's connection ended.
    pub fn connection_closed(&self) {
        self.connections.dec();
    }

    /// Everything there is to say of a broker now, as OpenMetrics text.
    pub fn encode(&self, broker: &Broker) -> String {
        let image = broker.metadata.image();
        self.topics.retain(|topic| image.topic(topic).is_some());
        self.views.retain(|view| image.view(view).is_some());
        let mut scraped = Registry::with_prefix(PREFIX);
        let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
        gauges(&mut scraped, "build_info", "What is running", [(version, 1)]);
        let offline = Gauge::<i64>::default();
        offline.set(i64::from(broker.is_offline()));
        scraped.register("offline", "1 once the data directory failed", offline);
        register_partitions(&mut scraped, &broker.all_partitions());
        register_plugins(&mut scraped, &broker.plugins.stats());
        if let Some(remote) = &broker.remote {
            register_tier(&mut scraped, &remote.status());
        }
        self.encode_with(&scraped, |text| broker.telemetry.render(text, broker.clock.wall_ms()))
    }

    fn encode_with(&self, scraped: &Registry, more: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        let written = encode_registry(&mut text, &self.registry).and_then(|()| encode_registry(&mut text, scraped));
        more(&mut text);
        let written = written.and_then(|()| encode_eof(&mut text));
        assert!(written.is_ok(), "writing metrics to a string failed");
        text
    }
}

/// Counters with one label, found by its value.
struct Series<const N: usize> {
    label: &'static str,
    families: [Family<Labels, Counter>; N],
    by_value: RwLock<HashMap<String, [Counter; N]>>,
}

impl<const N: usize> Series<N> {
    fn new(label: &'static str, metrics: [(&'static str, &'static str); N], registry: &mut Registry) -> Self {
        let families = metrics.map(|(name, help)| {
            let family = Family::<Labels, Counter>::default();
            registry.register(name, help, family.clone());
            family
        });
        Self {
            label,
            families,
            by_value: RwLock::default(),
        }
    }

    fn add(&self, value: &str, amounts: [u64; N]) {
        {
            let by_value = self.by_value.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(counters) = by_value.get(value) {
                return increase(counters, amounts);
            }
        }
        let mut by_value = self.by_value.write().unwrap_or_else(PoisonError::into_inner);
        let labels = vec![(self.label, value.to_owned())];
        let create = || self.families.each_ref().map(|family| family.get_or_create_owned(&labels));
        increase(by_value.entry(value.to_owned()).or_insert_with(create), amounts);
    }

    fn retain(&self, exists: impl Fn(&str) -> bool) {
        let mut by_value = self.by_value.write().unwrap_or_else(PoisonError::into_inner);
        by_value.retain(|value, _| {
            let keep = exists(value);
            if !keep {
                for family in &self.families {
                    family.remove(&vec![(self.label, value.clone())]);
                }
            }
            keep
        });
    }
}

fn increase<const N: usize>(counters: &[Counter; N], amounts: [u64; N]) {
    for (counter, amount) in counters.iter().zip(amounts) {
        if amount > 0 {
            counter.inc_by(amount);
        }
    }
}

fn gauges(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
    let family = Family::<Labels, Gauge>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).set(value);
    }
    registry.register(name, help, family);
}

fn counters(registry: &mut Registry, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
    let family = Family::<Labels, Counter>::default();
    for (labels, value) in values {
        family.get_or_create(&labels).inc_by(value);
    }
    registry.register(name, help, family);
}

/// A number as a gauge holds it.
fn level(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[derive(Default)]
struct TopicSums {
    partitions: i64,
    log_start_offset: i64,
    log_end_offset: i64,
    local_bytes: u64,
}

fn register_partitions(registry: &mut Registry, partitions: &[Arc<Partition>]) {
    let mut sums = BTreeMap::<&str, TopicSums>::new();
    for partition in partitions {
        let sum = sums.entry(&partition.topic).or_default();
        sum.partitions += 1;
        sum.log_start_offset = sum.log_start_offset.saturating_add(partition.log().log_start_offset());
        sum.log_end_offset = sum.log_end_offset.saturating_add(partition.log().log_end_offset());
        sum.local_bytes = sum.local_bytes.saturating_add(partition.log().local_bytes());
    }
    let columns: [Column<TopicSums, i64>; 4] = [
        ("topic_partitions", "Partitions of the topic on this broker", |sum| sum.partitions),
        (
            "topic_log_start_offset",
            "Sum of the log start offsets of the topic's partitions",
            |sum| sum.log_start_offset,
        ),
        (
            "topic_log_end_offset",
            "Sum of the log end offsets of the topic's partitions",
            |sum| sum.log_end_offset,
        ),
        ("topic_local_bytes", "Bytes of the topic's logs in the data directory", |sum| {
            level(sum.local_bytes)
        }),
    ];
    for (name, help, read) in columns {
        gauges(
            registry,
            name,
            help,
            sums.iter().map(|(topic, sum)| (vec![("topic", (*topic).to_owned())], read(sum))),
        );
    }
}

fn register_plugins(registry: &mut Registry, stats: &[PluginStats]) {
    let labels = |stats: &PluginStats| -> Labels {
        let PluginStats {
            plugin,
            version,
            hook,
            topic,
            ..
        } = stats;
        vec![
            ("plugin", plugin.clone()),
            ("version", version.clone()),
            ("hook", hook.clone()),
            ("topic", topic.clone()),
        ]
    };
    let columns: [Column<PluginStats, u64>; 10] = [
        ("plugin_batches", "Batches handed to the plugin", |stats| stats.batches),
        ("plugin_records_in", "Records handed to the plugin", |stats| stats.records_in),
        ("plugin_records_out", "Records that went on, changed or not", |stats| {
            stats.records_out
        }),
        ("plugin_replaced", "Records that the plugin replaced", |stats| stats.replaced),
        ("plugin_dropped", "Records that the plugin dropped", |stats| stats.dropped),
        ("plugin_rejected", "Records that the plugin rejected", |stats| stats.rejected),
        ("plugin_diverted", "Records that the plugin diverted", |stats| stats.diverted),
        ("plugin_errors", "Errors that the plugin returned", |stats| stats.errors),
        ("plugin_crashes", "Traps, timeouts, memory and bad replies", |stats| stats.crashes),
        ("plugin_recycles", "Instances replaced", |stats| stats.recycles),
    ];
    for (name, help, read) in columns {
        counters(registry, name, help, stats.iter().map(|stats| (labels(stats), read(stats))));
    }
    let seconds = Family::<Labels, Counter<f64, AtomicU64>>::default();
    for stats in stats {
        seconds.get_or_create(&labels(stats)).inc_by(stats.seconds);
    }
    registry.register("plugin_seconds", "Seconds spent inside the plugin", seconds);
    let tripped = stats.iter().map(|stats| (labels(stats), i64::from(stats.breaker_tripped)));
    gauges(
        registry,
        "plugin_breaker_tripped",
        "1 while the plugin's breaker is tripped",
        tripped,
    );
}

#[derive(Default)]
struct TierSums {
    segments: u64,
    remote_bytes: u64,
    pending_bytes: u64,
    failing: u64,
}

fn register_tier(registry: &mut Registry, status: &[TierStatus]) {
    let mut sums = BTreeMap::<&str, TierSums>::new();
    for status in status {
        let sum = sums.entry(&status.topic).or_default();
        sum.segments = sum.segments.saturating_add(status.remote_segments as u64);
        sum.remote_bytes = sum.remote_bytes.saturating_add(status.remote_bytes);
        sum.pending_bytes = sum.pending_bytes.saturating_add(status.pending_bytes);
        sum.failing += u64::from(status.last_error.is_some());
    }
    let columns: [Column<TierSums, u64>; 4] = [
        ("tier_segments", "Objects of the topic in the bucket", |sum| sum.segments),
        ("tier_remote_bytes", "Bytes of the topic in the bucket", |sum| sum.remote_bytes),
        (
            "tier_pending_bytes",
            "Sealed bytes of the topic that are not in the bucket yet",
            |sum| sum.pending_bytes,
        ),
        (
            "tier_failing_partitions",
            "Partitions of the topic whose last tier task failed",
            |sum| sum.failing,
        ),
    ];
    for (name, help, read) in columns {
        gauges(
            registry,
            name,
            help,
            sums.iter()
                .map(|(topic, sum)| (vec![("topic", (*topic).to_owned())], level(read(sum)))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Metrics) -> String {
        metrics.encode_with(&Registry::default(), |_| {})
    }

    #[test]
    fn counters_add_up_under_their_labels() {
        let metrics = Metrics::new();
        metrics.request(ApiKey::Fetch);
        metrics.request(ApiKey::Fetch);
        metrics.produced("orders", 2, 100);
        metrics.produced("orders", 3, 50);
        metrics.fetched("orders", 7);
        metrics.view_scanned("eu", 1000, 10);
        metrics.connection_opened();
        metrics.connection_opened();
        metrics.connection_closed();
        let text = text(&metrics);
        for line in [
            "millstream_requests_total{api=\"Fetch\"} 2",
            "millstream_produced_records_total{topic=\"orders\"} 5",
            "millstream_produced_bytes_total{topic=\"orders\"} 150",
            "millstream_fetched_bytes_total{topic=\"orders\"} 7",
            "millstream_view_scanned_bytes_total{view=\"eu\"} 1000",
            "millstream_view_returned_bytes_total{view=\"eu\"} 10",
            "millstream_connections 1",
            "millstream_connections_opened_total 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn series_of_deleted_topics_go() {
        let metrics = Metrics::new();
        metrics.produced("gone", 1, 1);
        metrics.produced("kept", 1, 1);
        metrics.topics.retain(|topic| topic == "kept");
        let text = text(&metrics);
        assert!(text.contains("kept") && !text.contains("gone"), "{text}");
        metrics.produced("gone", 1, 1);
        assert!(
            metrics
                .encode_with(&Registry::default(), |_| {})
                .contains("millstream_produced_records_total{topic=\"gone\"} 1"),
            "anew"
        );
    }

    #[test]
    fn plugin_and_tier_numbers_are_shown_per_topic() {
        let mut registry = Registry::with_prefix(PREFIX);
        let (plugin, version, hook, topic) = ("p".to_owned(), "1.0.0".to_owned(), "produce".to_owned(), "t".to_owned());
        let stats = PluginStats {
            plugin,
            version,
            hook,
            topic,
            batches: 3,
            seconds: 0.5,
            breaker_tripped: true,
            ..PluginStats::default()
        };
        register_plugins(&mut registry, &[stats]);
        let partition = millstream_log::remote::TopicIdPartition {
            topic_id: uuid::Uuid::nil(),
            partition: 0,
        };
        let status = TierStatus {
            partition,
            topic: "t".to_owned(),
            bounds: None,
            local_start_offset: 0,
            remote_segments: 2,
            remote_bytes: 10,
            pending_bytes: 5,
            last_error: None,
        };
        register_tier(&mut registry, &[status.clone(), status]);
        let text = Metrics::new().encode_with(&registry, |_| {});
        let labels = "{plugin=\"p\",version=\"1.0.0\",hook=\"produce\",topic=\"t\"}";
        for line in [
            format!("millstream_plugin_batches_total{labels} 3"),
            format!("millstream_plugin_seconds_total{labels} 0.5"),
            format!("millstream_plugin_breaker_tripped{labels} 1"),
            "millstream_tier_remote_bytes{topic=\"t\"} 20".to_owned(),
            "millstream_tier_pending_bytes{topic=\"t\"} 10".to_owned(),
        ] {
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
    }
}
