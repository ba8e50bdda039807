//! The composition root of a node: the only place that names every adapter (disk, clock, bucket, plugin host, sockets).
//!
//! Start: listeners (so that a port that is taken costs no recovery) → log directory and its lock → identity → tier (probes the
//! bucket) → plugin host → broker (replays what is on disk) → serve. Stop, on the first SIGINT or SIGTERM: tier → broker (ends
//! connections, closes logs cleanly) → listeners. A second signal ends the process at once, which is as safe as a crash.

mod identity;
mod signals;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use millstream_core::metadata::configs::Overrides;
use millstream_host::{HostOptions, PluginHost};
use millstream_log::{LogDir, LogDirOptions, LogError, disk::RealDisk, remote::RemoteLog};
use millstream_server::{Broker, BrokerConfig, BrokerParts, Clock, ListenError, Listener, SystemClock, admin, log_levels::LogLevels};
use millstream_tiered::{LateTier, TierOptions};
use tokio::{net::TcpListener, runtime::Handle, task::JoinSet};

use identity::Identity;

/// How long connections get to end after the broker has stopped.
const DRAIN: Duration = Duration::from_secs(6);

/// What a node is started with.
#[derive(Debug)]
pub struct NodeOptions {
    /// Number of the node in its cluster.
    pub node_id: i32,
    /// Everything that the node keeps on its own disk, as an absolute path.
    pub data_dir: PathBuf,
    /// Where Kafka clients connect; port 0 takes a free one.
    pub kafka: SocketAddr,
    /// Where the admin API listens; port 0 takes a free one.
    pub admin: SocketAddr,
    /// What clients are told to connect to, if not `kafka`.
    pub advertised: Option<(String, u16)>,
    /// URL of the bucket; none for no tier.
    pub bucket: Option<String>,
    /// Configurations by Kafka's names.
    pub settings: Overrides,
    /// Whether listeners without authentication may be open to everybody.
    pub allow_insecure: bool,
    /// What the operator calls these options.
    pub words: Words,
}

/// How the options are called where the operator set them, for errors that say what to change.
#[derive(Debug, Clone, Copy)]
pub struct Words {
    /// Of `data_dir`.
    pub data_dir: &'static str,
    /// Of `kafka`.
    pub kafka: &'static str,
    /// Of `admin`.
    pub admin: &'static str,
    /// Of `bucket`.
    pub bucket: &'static str,
}

/// Where a node serves.
#[derive(Debug)]
pub struct Ready {
    /// Address of the Kafka port.
    pub kafka: SocketAddr,
    /// Address of the admin port.
    pub admin: SocketAddr,
}

impl NodeOptions {
    /// Checks what can be checked without starting anything.
    pub fn check(&self) -> Result<()> {
        if self.kafka.ip().is_unspecified() && self.advertised.is_none() {
            bail!(
                "{} {} is no address that clients can connect to; say what they are told with advertised",
                self.words.kafka,
                self.kafka
            );
        }
        if self.node_id < 0 {
            bail!("node id {} is negative; -1 is Kafka's \"no leader\"", self.node_id);
        }
        for (name, value, word) in [
            ("node.id", self.node_id.to_string(), "[node] id"),
            ("listeners", self.kafka.to_string(), self.words.kafka),
            ("log.dirs", self.data_dir.display().to_string(), self.words.data_dir),
        ] {
            if self.settings.get(name).is_some_and(|given| given.trim() != value) {
                bail!("{name} is {value}; set it with {word}");
            }
        }
        Ok(self.broker_config().check()?)
    }

    /// Runs the node until a signal ends it. `ready` is called once it serves, and `log_levels` may be changed by administrators.
    pub fn run(self, log_levels: Arc<LogLevels>, ready: impl FnOnce(&Ready) -> Result<()>) -> Result<()> {
        self.check()?;
        raise_file_limit();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("start the runtime")?;
        runtime.block_on(async {
            let node = self.start(log_levels).await?;
            node.serve(ready).await
        })
    }

    fn broker_config(&self) -> BrokerConfig {
        BrokerConfig {
            node_id: self.node_id,
            data_dir: self.data_dir.clone(),
            kafka_address: self.kafka,
            advertised: self.advertised.clone(),
            admin_address: self.admin,
            allow_insecure: self.allow_insecure,
            values: self.settings.clone(),
        }
    }

    async fn start(&self, log_levels: Arc<LogLevels>) -> Result<Node> {
        let (kafka, admin) = self.listen().await?;
        std::fs::create_dir_all(&self.data_dir).with_context(|| format!("create data directory {}", self.data_dir.display()))?;
        let log_dir = self.open_log_dir()?;
        let identity = Identity::load_or_create(&self.data_dir, self.node_id)?;
        let tier = match &self.bucket {
            Some(url) => Some(self.start_tier(url, &identity).await?),
            None => None,
        };
        let address = kafka.local_address();
        // Port 0 means the port that was taken, in what is advertised too.
        let (host, port) = self.advertised.clone().unwrap_or_else(|| (address.ip().to_string(), 0));
        let advertised = (host, if port == 0 { address.port() } else { port });
        let config = BrokerConfig {
            kafka_address: address,
            admin_address: admin.local_addr().context("learn the admin port")?,
            advertised: Some(advertised.clone()),
            ..self.broker_config()
        };
        let plugins = PluginHost::new(HostOptions {
            cache_dir: Some(self.data_dir.join("plugin-cache")),
            record_bytes_max: config.size("message.max.bytes"),
            ..HostOptions::default()
        })?;
        let remote = tier.clone().map(|tier| -> Arc<dyn RemoteLog> { tier });
        let parts = BrokerParts {
            config,
            cluster_id: identity.cluster_id,
            clock: Arc::new(SystemClock),
            log_dir,
            remote,
            transform: plugins,
            log_levels,
        };
        let broker = Broker::start(parts)
            .await
            .with_context(|| format!("start on {}", self.data_dir.display()))?;
        broker.set_advertised(advertised.0, advertised.1);
        Ok(Node {
            kafka,
            admin,
            tier,
            broker,
        })
    }

    async fn listen(&self) -> Result<(Listener, TcpListener)> {
        let taken = |address: SocketAddr, word: &str| {
            anyhow!(
                "port {} ({address}) is in use by another process; stop it or choose another port with {word}",
                address.port()
            )
        };
        let kafka = Listener::bind(&self.broker_config()).map_err(|error| match error {
            ListenError::PortTaken { address } => taken(address, self.words.kafka),
            error => anyhow::Error::from(error),
        })?;
        let admin = TcpListener::bind(self.admin).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => taken(self.admin, self.words.admin),
            _ => anyhow::Error::from(error).context(format!("listen on {}", self.admin)),
        })?;
        Ok((kafka, admin))
    }

    fn open_log_dir(&self) -> Result<Arc<LogDir>> {
        let opened = LogDir::open(LogDirOptions {
            path: self.data_dir.join("log"),
            disk: Arc::new(RealDisk),
            clock: Arc::new(|| SystemClock.wall_ms()),
        });
        opened.map_err(|error| match error {
            LogError::Locked { .. } => anyhow!(
                "data directory {} is in use by another process; stop it or choose another directory with {}",
                self.data_dir.display(),
                self.words.data_dir
            ),
            error => anyhow::Error::from(error),
        })
    }

    async fn start_tier(&self, url: &str, identity: &Identity) -> Result<Arc<LateTier>> {
        let mut options = TierOptions::new(url, identity.cluster_id, self.node_id);
        let interval_ms = self.broker_config().number("remote.log.manager.task.interval.ms");
        options.work_interval = Duration::from_millis(interval_ms.unsigned_abs());
        let started = LateTier::start(options, Handle::current()).await;
        started.with_context(|| {
            format!(
                "bucket {url} cannot be used (check {}, its credentials and that it can be reached)",
                self.words.bucket
            )
        })
    }
}

/// A node that is about to serve.
struct Node {
    kafka: Listener,
    admin: TcpListener,
    tier: Option<Arc<LateTier>>,
    broker: Arc<Broker>,
}

impl Node {
    async fn serve(self, ready: impl FnOnce(&Ready) -> Result<()>) -> Result<()> {
        let mut signals = signals::Signals::new()?;
        let addresses = Ready {
            kafka: self.kafka.local_address(),
            admin: self.admin.local_addr().context("learn the admin port")?,
        };
        let mut servers = JoinSet::new();
        servers.spawn(serve_kafka(self.kafka, Arc::clone(&self.broker)));
        servers.spawn(admin::serve(self.admin, Arc::clone(&self.broker)));
        ready(&addresses)?;
        // Both arms only wait, so that either may be dropped.
        let failed = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "stopping; a second signal ends the process at once");
                None
            }
            Some(ended) = servers.join_next() => Some(ended),
        };
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(1);
        });
        if let Some(tier) = &self.tier {
            tier.shutdown().await;
        }
        self.broker.shutdown().await.context("stop cleanly")?;
        let drained = tokio::time::timeout(DRAIN, async { while servers.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!("some connections did not end in time");
        }
        match failed {
            None => Ok(()),
            Some(Ok(Err(error))) => Err(error).context("a listener failed"),
            Some(Ok(Ok(()))) => bail!("a listener ended by itself"),
            Some(Err(error)) => Err(error).context("a listener failed"),
        }
    }
}

async fn serve_kafka(listener: Listener, broker: Arc<Broker>) -> io::Result<()> {
    listener.serve(broker).await;
    Ok(())
}

/// Segments and connections are open files; the default limit of 1,024 is soon reached.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}
