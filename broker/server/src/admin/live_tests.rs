//! The API over a socket, in front of a whole broker whose plugin host is a fake.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use millstream_core::{
    metadata::controller::{self, NewTopic},
    transform::{BatchContext, Chain, ChainOutcome, Hook, Inspected, PluginStats, PortFuture, Transform, TransformError},
};
use millstream_log::{LogDir, LogDirOptions, disk::RealDisk};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use uuid::Uuid;

use crate::{Broker, BrokerConfig, BrokerParts, SystemClock, log_levels::LogLevels};

/// Takes `NAME@VERSION anything` for a plugin, and every configuration but those with `bad`.
struct FakeHost;

impl Transform for FakeHost {
    fn inspect(&self, wasm: Bytes) -> PortFuture<'_, Result<Inspected, TransformError>> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(&wasm[..wasm.len().min(40)]).into_owned();
            let id = text.split(' ').next().and_then(|id| id.split_once('@'));
            let (name, version) = id.ok_or_else(|| TransformError::Invalid("no magic".to_owned()))?;
            Ok(Inspected {
                component: wasm,
                name: name.to_owned(),
                version: version.to_owned(),
                hooks: vec![Hook::Produce, Hook::View],
                config_schema: String::new(),
                interface: "batch".to_owned(),
            })
        })
    }

    fn prepare(&self, chain: Arc<Chain>) -> PortFuture<'_, Result<(), TransformError>> {
        Box::pin(async move {
            match chain.bindings.iter().find(|binding| binding.config.contains("bad")) {
                Some(binding) => Err(TransformError::BadConfig {
                    plugin: binding.artefact.name.clone(),
                    reason: "bad".to_owned(),
                }),
                None => Ok(()),
            }
        })
    }

    fn run(&self, _chain: Arc<Chain>, _context: BatchContext, _records: Bytes) -> PortFuture<'_, ChainOutcome> {
        Box::pin(async { ChainOutcome::Unchanged })
    }

    fn stats(&self) -> Vec<PluginStats> {
        Vec::new()
    }
}

struct Node {
    broker: Arc<Broker>,
    address: String,
    served: JoinHandle<std::io::Result<()>>,
}

impl Node {
    async fn start(dir: &Path) -> Self {
        let options = LogDirOptions {
            path: dir.to_path_buf(),
            disk: Arc::new(RealDisk),
            clock: Arc::new(|| 0),
        };
        let parts = BrokerParts {
            config: BrokerConfig {
                node_id: 1,
                data_dir: dir.to_path_buf(),
                kafka_address: "127.0.0.1:0".parse().unwrap(),
                advertised: None,
                admin_address: "127.0.0.1:0".parse().unwrap(),
                allow_insecure: false,
                values: BTreeMap::new(),
            },
            cluster_id: Uuid::from_u128(7),
            clock: Arc::new(SystemClock),
            log_dir: LogDir::open(options).unwrap(),
            remote: None,
            transform: Arc::new(FakeHost),
            log_levels: Arc::new(LogLevels::new(BTreeMap::new(), |_| {})),
        };
        let broker = Broker::start(parts).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(super::serve(listener, Arc::clone(&broker)));
        Self { broker, address, served }
    }

    async fn stop(self) {
        self.broker.shutdown().await.unwrap();
        self.served.await.unwrap().unwrap();
    }

    async fn create_topic(&self, name: &str) {
        let new = NewTopic {
            name: name.to_owned(),
            id: Uuid::new_v4(),
            num_partitions: 2,
            replication_factor: 1,
            assignments: Vec::new(),
            configs: Vec::new(),
        };
        let created = self
            .broker
            .metadata
            .decide(true, move |context| controller::create_topics(context, &[new], false))
            .await;
        assert!(created.unwrap().iter().all(Result::is_ok));
    }

    /// Status and body of a request.
    async fn text(&self, host: &str, method: &str, path: &str, body: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let len = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Status and JSON of a request; null if there is no body.
    async fn json(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> (u16, Value) {
        let (status, body) = self.text("localhost", method, path, body.as_ref()).await;
        (
            status,
            if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_str(&body).unwrap()
            },
        )
    }
}

#[tokio::test]
async fn a_pushed_and_bound_plugin_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.create_topic("orders").await;
    let wasm = [b"redact@1.0.0 ".to_vec(), vec![7; 1_300_000]].concat();
    let (status, pushed) = node.json("POST", "/v1/plugins", &wasm).await;
    assert_eq!(
        (status, &pushed["name"], &pushed["size_bytes"]),
        (201, &json!("redact"), &json!(wasm.len()))
    );
    assert_eq!(node.json("POST", "/v1/plugins", &wasm).await.0, 201, "the same bytes again");
    assert_eq!(
        node.json("POST", "/v1/plugins", "redact@1.0.0 other").await.1["error"]["code"],
        "DUPLICATE_RESOURCE"
    );

    let bind = json!({"plugin": "redact", "hook": "produce", "policy": "divert", "dead_letter_topic": "orders.dlq", "config": {"a": 1}});
    let (status, bound) = node.json("POST", "/v1/topics/orders/bindings", bind.to_string()).await;
    assert_eq!(
        (status, &bound["version"], &bound["config"]),
        (201, &json!("1.0.0"), &json!({"a": 1})),
        "{bound}"
    );
    let (status, view) = node
        .json(
            "POST",
            "/v1/views",
            json!({"name": "eu", "source": "orders", "plugin": "redact"}).to_string(),
        )
        .await;
    assert_eq!((status, &view["source"]), (201, &json!("orders")), "{view}");
    node.stop().await;

    let node = Node::start(dir.path()).await;
    let image = node.broker.metadata.image();
    let chain = node.broker.plugins.produce_chain(image.topic("orders").unwrap()).unwrap().unwrap();
    assert_eq!(chain.bindings[0].artefact.component, wasm);
    assert!(node.broker.plugins.view_chain(&image, "eu").is_ok());
    let (_, topic) = node.json("GET", "/v1/topics/orders.dlq", "").await;
    assert_eq!(topic["partitions"].as_array().unwrap().len(), 2, "{topic}");
    assert_eq!(node.json("DELETE", "/v1/plugins/redact/1.0.0", "").await.0, 409, "it is bound");
    assert_eq!(node.json("DELETE", "/v1/views/eu", "").await.0, 204);
    assert_eq!(node.json("DELETE", "/v1/topics/orders/bindings/redact", "").await.0, 204);
    assert_eq!(node.json("DELETE", "/v1/plugins/redact/1.0.0", "").await.0, 204);
    assert_eq!(node.json("GET", "/v1/plugins", "").await, (200, json!([])));
    assert_eq!(
        node.json("POST", "/v1/plugins", "redact@1.0.0 other").await.0,
        201,
        "the name is free again"
    );
    node.stop().await;
}

#[tokio::test]
async fn a_plugin_that_refuses_its_configuration_is_not_bound() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.create_topic("orders").await;
    assert_eq!(node.json("POST", "/v1/plugins", "p@1.0.0 ").await.0, 201);
    let bind = json!({"plugin": "p", "hook": "produce", "config": {"bad": 1}, "policy": "divert", "dead_letter_topic": "dlq"});
    let (status, refused) = node.json("POST", "/v1/topics/orders/bindings", bind.to_string()).await;
    assert_eq!((status, &refused["error"]["code"]), (400, &json!("INVALID_CONFIG")));
    let security = json!({"plugin": "p", "hook": "produce", "policy": "pass", "security": true});
    assert_eq!(node.json("POST", "/v1/topics/orders/bindings", security.to_string()).await.0, 400);
    assert_eq!(node.json("GET", "/v1/topics/orders/bindings", "").await, (200, json!([])));
    assert_eq!(node.json("GET", "/v1/topics/dlq", "").await.0, 404);
    node.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_said_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    let too_large = vec![b' '; super::JSON_BYTES_MAX + 1];
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", &b""[..], 404, "NOT_FOUND"),
        ("PUT", "/v1/views", b"", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/topics/none", b"", 404, "NOT_FOUND"),
        ("GET", "/v1/topics/%ff", b"", 400, "INVALID_PATH"),
        ("GET", "/v1/tier?partition=1", b"", 400, "INVALID_QUERY"),
        ("POST", "/v1/views", b"{", 400, "INVALID_JSON"),
        ("POST", "/v1/views", &too_large, 413, "BODY_TOO_LARGE"),
        ("POST", "/v1/plugins", b"\0asm", 400, "INVALID_PLUGIN"),
        ("POST", "/v1/plugins", b"", 400, "INVALID_PLUGIN"),
        ("DELETE", "/v1/views/none", b"", 404, "UNKNOWN_TOPIC_OR_PARTITION"),
    ] {
        let (found, body) = node.json(method, path, body).await;
        assert_eq!(
            (found, body["error"]["code"].as_str()),
            (status, Some(code)),
            "{method} {path}: {body}"
        );
    }
    assert_eq!(node.text("evil.example", "GET", "/healthz", b"").await.0, 403);
    node.stop().await;
}

#[tokio::test]
async fn probes_and_metrics_answer() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::start(dir.path()).await;
    node.create_topic("orders").await;
    node.broker.metrics.produced("orders", 1, 2);
    node.broker.metrics.produced("deleted", 1, 2);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(node.text("localhost", "GET", path, b"").await, (200, "ok".to_owned()));
    }
    let (_, metrics) = node.text("localhost", "GET", "/metrics", b"").await;
    for line in [
        "millstream_produced_records_total{topic=\"orders\"} 1",
        "millstream_topic_partitions{topic=\"orders\"} 2",
        "millstream_offline 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n") && !metrics.contains("deleted"), "{metrics}");
    let (_, cluster) = node.json("GET", "/v1/cluster", "").await;
    assert_eq!(
        (&cluster["node_id"], &cluster["topics"], &cluster["offline"]),
        (&json!(1), &json!(1), &json!(false))
    );
    assert_eq!(node.json("GET", "/v1/tier", "").await, (200, json!([])));
    node.stop().await;
}
