//! Accepting connections.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    admission::{Admission, Complaints, Pace, Seat},
    connection::{self, Ended, Limits},
    writer::STALL_MAX,
};
use crate::{broker::Broker, config::BrokerConfig};

/// Time that connections get to end once the broker stops.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause after an accept that failed, as when file descriptors ran out.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// Connections that the system queues at least. One that comes when the queue is full waits a second or more until its client's system tries
/// again, and all clients of a broker that has restarted come at once.
const BACKLOG_MIN: u32 = 1_024;
/// Time between two looks whether `max.connections` was raised.
const FULL_CHECK: Duration = Duration::from_secs(1);

/// Why a listener could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the port.
    #[error("{address} is in use by another process; stop it or choose another port")]
    PortTaken {
        /// The address.
        address: SocketAddr,
    },
    /// Something else.
    #[error("listen on {address}: {source}")]
    Io {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A bound Kafka listener.
pub struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the Kafka address of a configuration; port 0 takes a free one. Only within a runtime of tokio.
    pub fn bind(config: &BrokerConfig) -> Result<Self, ListenError> {
        let address = config.kafka_address;
        let listener = listen(config).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken { address },
            _ => ListenError::Io { address, source },
        })?;
        let address = listener.local_addr().map_err(|source| ListenError::Io { address, source })?;
        Ok(Self { listener, address })
    }

    /// The bound address.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Serves clients until the broker stops, then gives open connections a moment to end.
    pub async fn serve(self, broker: Arc<Broker>) {
        let memory_bytes = broker.config.size("millstream.request.memory.bytes");
        let frame_memory_units = memory_bytes / 1024;
        let limits = Arc::new(Limits {
            frame_bytes_max: broker.config.size("socket.request.max.bytes"),
            idle: Duration::from_millis(u64::try_from(broker.config.number("connections.max.idle.ms")).unwrap_or(u64::MAX)),
            stall_max: STALL_MAX,
            frame_memory: Arc::new(Semaphore::new(frame_memory_units.min(Semaphore::MAX_PERMITS))),
            frame_memory_units,
            parked_memory: Arc::new(Semaphore::new(frame_memory_units.min(Semaphore::MAX_PERMITS))),
            unsent: AtomicUsize::new(0),
            unsent_max: memory_bytes,
        });
        let mut admission = Admission::new(&broker);
        let complaints = Arc::new(Complaints::default());
        let window_seconds = broker.config.size("quota.window.num") * broker.config.size("quota.window.size.seconds");
        let mut pace = Pace::new(admission.per_second(), Duration::from_secs(window_seconds as u64));
        let mut connections = JoinSet::new();
        // What was accepted while there was room and is too much by now: it waits as those in the listener's queue do.
        let mut accepted: Option<(TcpStream, SocketAddr)> = None;
        loop {
            admission.refresh(&broker);
            pace.set(admission.per_second());
            let has_room = admission.has_room();
            if let Some((stream, peer)) = accepted.take_if(|_| has_room) {
                match admission.admit(peer.ip()) {
                    Some(seat) => {
                        let (broker, limits, complaints) = (Arc::clone(&broker), Arc::clone(&limits), Arc::clone(&complaints));
                        connections.spawn(run(stream, peer, seat, broker, limits, complaints));
                    }
                    None => complaints.about(|suppressed| {
                        tracing::warn!(%peer, suppressed, "connection refused: its address has reached max.connections.per.ip");
                    }),
                }
                continue;
            }
            tokio::select! {
                // Cancel safe: what is not accepted yet waits in the listener's queue.
                next = pace.turn(self.listener.accept()), if has_room => match next {
                    Ok(next) => accepted = Some(next),
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_BACKOFF).await;
                    }
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                // Cancel safe: it only waits, for a limit that may be raised.
                () = tokio::time::sleep(FULL_CHECK), if !has_room => {}
                () = broker.stopped() => break,
            }
        }
        let drain = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}

fn listen(config: &BrokerConfig) -> io::Result<TcpListener> {
    let socket = match config.kafka_address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit the sizes. Unless somebody wants others, those that the system adapts to each connection serve best.
    if let Some(bytes) = configured_size(config, "socket.receive.buffer.bytes") {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = configured_size(config, "socket.send.buffer.bytes") {
        socket.set_send_buffer_size(bytes)?;
    }
    socket.bind(config.kafka_address)?;
    let backlog = u32::try_from(config.size("socket.listen.backlog.size")).unwrap_or(u32::MAX);
    socket.listen(backlog.max(BACKLOG_MIN))
}

/// A size that was set, unless it is -1.
fn configured_size(config: &BrokerConfig, name: &str) -> Option<u32> {
    config.values.get(name)?;
    u32::try_from(config.number(name)).ok()
}

/// A connection above its address's quota is not served, and closed only when the next one may come. Meanwhile it keeps its seat.
async fn keep_waiting(stream: TcpStream, peer: SocketAddr, broker: &Broker, throttle_ms: i64, complaints: &Complaints) {
    complaints.about(|suppressed| {
        tracing::warn!(%peer, suppressed, throttle_ms, "connection refused: its address has reached connection_creation_rate");
    });
    tokio::select! {
        // Cancel safe: both only wait.
        () = tokio::time::sleep(Duration::from_millis(u64::try_from(throttle_ms).unwrap_or(0))) => {}
        () = broker.stopped() => {}
    }
    drop(stream);
}

/// Serves a connection, if its address may have it, to its end.
async fn run(stream: TcpStream, peer: SocketAddr, seat: Seat, broker: Arc<Broker>, limits: Arc<Limits>, complaints: Arc<Complaints>) {
    match broker.quotas.connect(&broker.metadata.image(), peer.ip()) {
        Ok(()) => serve(stream, peer, Arc::clone(&broker), limits, &complaints).await,
        Err(throttle_ms) => keep_waiting(stream, peer, &broker, throttle_ms, &complaints).await,
    }
    drop(seat);
    broker
        .shares
        .connection_ended(&broker, SocketAddr::new(peer.ip(), peer.port()))
        .await;
}

async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>, limits: Arc<Limits>, complaints: &Complaints) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "set TCP_NODELAY");
    }
    broker.metrics.connection_opened();
    let ended = connection::serve(stream, peer, Arc::clone(&broker), limits).await;
    broker.metrics.connection_closed();
    match ended {
        Ended::ByClient | Ended::Idle | Ended::Stopping => tracing::debug!(%peer, reason = %ended, "connection ended"),
        Ended::Io(_) | Ended::WithinFrame => tracing::debug!(%peer, reason = %ended, "connection broke"),
        Ended::NotReading | Ended::NotSending(_) | Ended::Refused(_) => complaints.about(|suppressed| {
            tracing::warn!(%peer, suppressed, reason = %ended, "connection closed");
        }),
    }
}
