//! One client's connection: frames in, answers out in the order of the requests.
//!
//! At most one request is *starting* at a time, which keeps the order of a producer's appends; any number up to the limit may be
//! *waiting* (for a sync, for new records, for a group). Answers leave in request order. What is written in one wake-up leaves in
//! one write.
//!
//! What a client makes the broker hold is bounded: a large frame takes its bytes from a budget of all connections before it is read, a
//! request that waits keeps them from another one, and as long as many finished answers cannot be sent, of this connection or of all, no
//! request is started. A client that is too slow in either direction is disconnected.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    stream::{FuturesOrdered, StreamExt},
};
use millstream_protocol::chunk::Chunk;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, timeout},
};

use super::{frames::FrameBuffer, writer};
use crate::{
    broker::Broker,
    dispatch::{Answer, BoxFuture, Client, dispatch, is_served},
};

/// Requests of one connection that may be in flight. Kafka's clients send at most 5; further ones wait in the socket.
const IN_FLIGHT_MAX: usize = 64;
/// Bytes of a frame that may arrive before memory for all of it is taken.
const FREE_FRAME_BYTES: usize = 64 * 1024;
/// Bytes of finished answers above which no further request is started until they are sent.
const UNSENT_BYTES_MAX: usize = 8 << 20;
/// The part of the memory for requests that wait which one connection may have; its first one may be larger.
const PARKED_SHARE: usize = 8;
/// Unit of the frame memory budget.
const BUDGET_UNIT_BYTES: usize = 1024;

/// Limits that all connections share.
pub(super) struct Limits {
    /// `socket.request.max.bytes`
    pub frame_bytes_max: usize,
    /// `connections.max.idle.ms`
    pub idle: Duration,
    /// A client that takes or sends no byte for this long, in the middle of a frame, is disconnected.
    pub stall_max: Duration,
    /// Bytes of all frames being worked on, in units of 1 KiB.
    pub frame_memory: Arc<Semaphore>,
    /// Units in `frame_memory`.
    pub frame_memory_units: usize,
    /// As much again for the requests that wait for a group or for records: they must not keep others from starting.
    pub parked_memory: Arc<Semaphore>,
    /// Bytes of the finished answers of all connections.
    pub unsent: AtomicUsize,
    /// With this many of them, a connection that has some starts no further request.
    pub unsent_max: usize,
}

impl Limits {
    /// Moves a frame's bytes to the budget of those that wait.
    fn park(&self, memory: Option<OwnedSemaphorePermit>, own: &Arc<AtomicUsize>) -> Result<Option<Parked>, Ended> {
        let Some(started) = memory else { return Ok(None) };
        let units = started.num_permits();
        let before = own.load(Ordering::Relaxed);
        if before > 0 && before + units > self.frame_memory_units / PARKED_SHARE {
            return Err(Ended::Refused(
                "the requests of one connection that wait hold its share of millstream.request.memory.bytes".into(),
            ));
        }
        match Arc::clone(&self.parked_memory).try_acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)) {
            Ok(permit) => {
                own.fetch_add(units, Ordering::Relaxed);
                Ok(Some(Parked {
                    permit,
                    own: Arc::clone(own),
                }))
            }
            Err(_) => Err(Ended::Refused(
                "the requests that wait hold all of millstream.request.memory.bytes".into(),
            )),
        }
    }
}

/// Memory of a request that waits.
struct Parked {
    permit: OwnedSemaphorePermit,
    /// What the connection has in all.
    own: Arc<AtomicUsize>,
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.own.fetch_sub(self.permit.num_permits(), Ordering::Relaxed);
    }
}

/// Finished answers of a connection that are not sent yet.
pub(super) struct Unsent {
    /// Bytes.
    own: AtomicUsize,
    limits: Arc<Limits>,
}

impl Unsent {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self {
            own: AtomicUsize::new(0),
            limits,
        }
    }

    pub fn add(&self, bytes: usize) {
        self.own.fetch_add(bytes, Ordering::Relaxed);
        self.limits.unsent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn remove(&self, bytes: usize) {
        self.own.fetch_sub(bytes, Ordering::Relaxed);
        self.limits.unsent.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether there may be more of them.
    pub fn has_room(&self) -> bool {
        let own = self.own.load(Ordering::Relaxed);
        own == 0 || own < UNSENT_BYTES_MAX && self.limits.unsent.load(Ordering::Relaxed) < self.limits.unsent_max
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.remove(self.own.load(Ordering::Relaxed));
    }
}

/// What a request holds while it is worked on.
enum Memory {
    Started { _permit: Option<OwnedSemaphorePermit> },
    Parked { _memory: Option<Parked> },
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("closed by the client")]
    ByClient,
    #[error("closed by the client within a frame")]
    WithinFrame,
    #[error("idle")]
    Idle,
    #[error("the client does not read its answers")]
    NotReading,
    #[error("a request of {0} bytes did not arrive in time")]
    NotSending(usize),
    #[error("the broker stops")]
    Stopping,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A started request; resolves to its answer.
struct Waiting {
    answer: BoxFuture<Option<Vec<Chunk>>>,
    _memory: Memory,
}

/// The frame that arrives, if it is a large one.
enum Coming {
    /// Nothing large.
    Small,
    /// It waits for memory; nothing is read meanwhile.
    Reserving(BoxFuture<Option<OwnedSemaphorePermit>>),
    /// It must have arrived at this time.
    Due(Instant, Option<OwnedSemaphorePermit>),
}

/// A starting request.
/// It first takes its frame's bytes from the shared budget, which may mean to wait for others.
type Starting = BoxFuture<(Answer, Option<OwnedSemaphorePermit>)>;

/// What a connection waited for.
enum Event {
    Started(Answer, Option<OwnedSemaphorePermit>),
    Answered(Option<Vec<Chunk>>),
    Readable(Result<io::Result<()>, tokio::time::error::Elapsed>),
    Reserved(Option<OwnedSemaphorePermit>),
    Late,
    Unmuted,
}

async fn poll_starting(starting: &mut Option<Starting>) -> (Answer, Option<OwnedSemaphorePermit>) {
    match starting {
        Some(starting) => starting.await,
        None => std::future::pending().await,
    }
}

/// Waits for memory, if the frame that arrives does.
async fn poll_reserving(coming: &mut Coming) -> Option<OwnedSemaphorePermit> {
    match coming {
        Coming::Reserving(reserving) => reserving.await,
        Coming::Small | Coming::Due(..) => std::future::pending().await,
    }
}

fn unanswerable() -> Ended {
    Ended::Refused("an answer could not be made".into())
}

/// Serves a connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<Broker>, limits: Arc<Limits>) -> Ended {
    let stopping = broker.stopping.subscribe();
    let mut connection = Connection {
        stream,
        client: Arc::new(Client {
            broker,
            address: peer.ip(),
            port: peer.port(),
            mute: Arc::default(),
            software: Arc::default(),
        }),
        buffer: FrameBuffer::default(),
        starting: None,
        waiting: FuturesOrdered::new(),
        coming: Coming::Small,
        unsent: Arc::new(Unsent::new(Arc::clone(&limits))),
        limits,
        parked: Arc::default(),
        is_new: true,
        stopping,
    };
    loop {
        if let Err(ended) = connection.step().await {
            if let Some(starting) = connection.starting.take() {
                // What it began it must finish, though nobody hears of it.
                tokio::spawn(starting);
            }
            return ended;
        }
    }
}

struct Connection {
    stream: TcpStream,
    client: Arc<Client>,
    limits: Arc<Limits>,
    buffer: FrameBuffer,
    starting: Option<Starting>,
    waiting: FuturesOrdered<BoxFuture<Option<Vec<Chunk>>>>,
    coming: Coming,
    unsent: Arc<Unsent>,
    /// Memory of requests that wait.
    parked: Arc<AtomicUsize>,
    is_new: bool,
    stopping: watch::Receiver<bool>,
}

impl Connection {
    /// Starts what can be started, writes what is ready, and waits for the next thing to happen.
    async fn step(&mut self) -> Result<(), Ended> {
        let idle = self.limits.idle;
        let muted_until = self.client.mute.ends();
        let has_more = muted_until.is_none() && self.start_requests()?;
        self.write_ready().await?;
        if has_more && self.may_start() {
            // Whole frames are in the buffer, and nothing may ever come to wake this task. Others have their turn first.
            tokio::task::yield_now().await;
            return Ok(());
        }
        let may_read = self.may_start() && muted_until.is_none();
        if may_read {
            self.reserve_for_large_frame();
        }
        let reading = may_read && !matches!(self.coming, Coming::Reserving(_));
        let due = match self.coming {
            Coming::Due(due, _) if reading => Some(due),
            Coming::Small | Coming::Reserving(_) | Coming::Due(..) => None,
        };
        let began = Instant::now();
        let busy = self.starting.is_some() || !self.waiting.is_empty();
        let event = tokio::select! {
            // Cancel safe: a starting request is kept and polled again.
            (answer, memory) = poll_starting(&mut self.starting), if self.starting.is_some() => Event::Started(answer, memory),
            // Cancel safe: an answer is taken out only when it is ready.
            Some(answer) = self.waiting.next(), if !self.waiting.is_empty() => Event::Answered(answer),
            // Cancel safe: readiness only, nothing is read yet.
            ready = timeout(idle, self.stream.readable()), if reading => Event::Readable(ready),
            // Cancel safe: what waits for memory is kept and polled again.
            permit = poll_reserving(&mut self.coming), if matches!(self.coming, Coming::Reserving(_)) => Event::Reserved(permit),
            // Cancel safe: it only waits.
            () = tokio::time::sleep_until(due.unwrap_or(began)), if due.is_some() => Event::Late,
            // Cancel safe: it only waits.
            () = tokio::time::sleep_until(muted_until.unwrap_or_else(Instant::now)), if muted_until.is_some() => Event::Unmuted,
            // Cancel safe: it only looks.
            _ = self.stopping.wait_for(|stopping| *stopping) => return Err(Ended::Stopping),
        };
        if let Coming::Due(due, _) = &mut self.coming
            && !reading
        {
            // It could not arrive.
            *due += began.elapsed();
        }
        match event {
            Event::Started(answer, memory) => {
                self.starting = None;
                self.take(answer, memory)?;
            }
            Event::Answered(answer) => self.write(answer.ok_or_else(unanswerable)?).await?,
            Event::Readable(Ok(ready)) => {
                ready?;
                self.read()?;
            }
            Event::Reserved(permit) => {
                let due = Instant::now() + writer::time_for(self.buffer.wanted(), self.limits.stall_max);
                self.coming = Coming::Due(due, permit);
                self.buffer.make_room_for_all();
            }
            Event::Late => return Err(Ended::NotSending(self.buffer.wanted())),
            // A client that waits for an answer is not idle.
            Event::Unmuted => {}
            Event::Readable(Err(_)) if busy => {}
            Event::Readable(Err(_)) => return Err(Ended::Idle),
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Ended> {
        match self.stream.try_read_buf(self.buffer.space()) {
            Ok(0) if self.buffer.is_empty() => Err(Ended::ByClient),
            Ok(0) => Err(Ended::WithinFrame),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn may_start(&self) -> bool {
        self.starting.is_none() && self.waiting.len() < IN_FLIGHT_MAX && self.unsent.has_room()
    }

    /// Takes memory for a frame that turns out to be a large one.
    fn reserve_for_large_frame(&mut self) {
        if matches!(self.coming, Coming::Small) && self.buffer.len() > FREE_FRAME_BYTES {
            let (limits, bytes) = (Arc::clone(&self.limits), self.buffer.wanted());
            self.coming = Coming::Reserving(Box::pin(async move { reserve(&limits, bytes).await }));
        }
    }

    /// Starts requests as long as they finish starting at once; says whether there may be more of them.
    fn start_requests(&mut self) -> Result<bool, Ended> {
        while self.may_start() && self.client.mute.ends().is_none() {
            let max = self.limits.frame_bytes_max;
            let cut = match self.is_new {
                true => self.buffer.first(max, is_served),
                false => self.buffer.next(max),
            };
            let Some(frame) = cut.map_err(|error| Ended::Refused(error.to_string()))? else {
                return Ok(false);
            };
            self.is_new = false;
            let (client, limits) = (Arc::clone(&self.client), Arc::clone(&self.limits));
            let reserved = std::mem::replace(&mut self.coming, Coming::Small);
            let mut starting: Starting = Box::pin(async move {
                let memory = match reserved {
                    Coming::Due(_, memory) => memory,
                    Coming::Reserving(reserving) => reserving.await,
                    Coming::Small => reserve(&limits, frame.len()).await,
                };
                (dispatch(&client, frame).await, memory)
            });
            match (&mut starting).now_or_never() {
                Some((answer, memory)) => self.take(answer, memory)?,
                None => self.starting = Some(starting),
            }
        }
        Ok(true)
    }

    /// An answer that is there already. It is counted at once, or many more would begin before it is looked at.
    fn push_ready(&mut self, answer: Option<Vec<Chunk>>, memory: Option<OwnedSemaphorePermit>) {
        self.unsent.add(answer.as_deref().map_or(0, in_memory));
        self.waiting.push_back(Box::pin(async move {
            let _memory = memory;
            answer
        }));
    }

    fn take(&mut self, answer: Answer, memory: Option<OwnedSemaphorePermit>) -> Result<(), Ended> {
        let waiting = match answer {
            Answer::Now(chunks) => {
                self.push_ready(Some(chunks), memory);
                return Ok(());
            }
            Answer::Soon(answer) => Waiting {
                answer,
                _memory: Memory::Started { _permit: memory },
            },
            Answer::Later(mut answer) => match (&mut answer).now_or_never() {
                // It is begun before the next request is, and many need not wait at all.
                Some(answer) => {
                    self.push_ready(answer, memory);
                    return Ok(());
                }
                None => Waiting {
                    answer,
                    _memory: Memory::Parked {
                        _memory: self.limits.park(memory, &self.parked)?,
                    },
                },
            },
            Answer::Nothing => return Ok(()),
            Answer::Close(reason) => return Err(Ended::Refused(reason)),
        };
        let unsent = Arc::clone(&self.unsent);
        self.waiting.push_back(Box::pin(async move {
            let waiting = waiting;
            let answer = waiting.answer.await;
            unsent.add(answer.as_deref().map_or(0, in_memory));
            answer
        }));
        Ok(())
    }

    /// Writes all answers that are ready now.
    async fn write_ready(&mut self) -> Result<(), Ended> {
        let mut ready = Vec::new();
        while let Some(Some(answer)) = self.waiting.next().now_or_never() {
            ready.extend(answer.ok_or_else(unanswerable)?);
        }
        if ready.is_empty() { Ok(()) } else { self.write(ready).await }
    }

    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<(), Ended> {
        let bytes = in_memory(&chunks);
        let written = writer::write_all(&self.stream, chunks, self.limits.stall_max).await;
        self.unsent.remove(bytes);
        match written {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Ended::NotReading),
            written => Ok(written?),
        }
    }
}

/// Bytes that an answer holds in memory.
fn in_memory(chunks: &[Chunk]) -> usize {
    let bytes = chunks.iter().map(|chunk| match chunk {
        Chunk::Bytes(bytes) => bytes.len(),
        Chunk::File(_) => 0,
    });
    bytes.sum()
}

/// Takes a frame's bytes from the shared budget, waiting for others to finish. Small frames are free.
async fn reserve(limits: &Limits, len: usize) -> Option<OwnedSemaphorePermit> {
    let units = u32::try_from((len / BUDGET_UNIT_BYTES).min(limits.frame_memory_units)).unwrap_or(u32::MAX);
    if units == 0 {
        return None;
    }
    // The semaphore is never closed.
    Arc::clone(&limits.frame_memory).acquire_many_owned(units).await.ok()
}
