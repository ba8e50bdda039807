//! One blocking connection that speaks the Kafka protocol, as cheaply as a client can.
//!
//! Requests may be sent ahead of the responses to earlier ones; responses come in order.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use millstream_protocol::{
    ApiKey, Decoder, ErrorCode, KString, Message, Request,
    api::{decode_response_header, encode_request},
    chunk::Chunk,
};

/// Where the correlation id stands in a request frame: after length, API key and version.
const CORRELATION_ID: std::ops::Range<usize> = 8..12;
/// Largest response that is read.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// Time a response may take.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(60);
const CLIENT_ID: KString = KString::from_static("millstream-bench");

/// The version in which each API is spoken: modern, and with topic names instead of ids.
pub const fn version(key: ApiKey) -> Option<i16> {
    match key {
        ApiKey::Produce => Some(11),
        ApiKey::Fetch => Some(12),
        _ => None,
    }
}

/// A whole request frame; its correlation id is set when it is sent.
pub fn frame<R: Request>(request: &R) -> Result<Vec<u8>> {
    let version = version(R::API_KEY).with_context(|| format!("{} is not spoken here", R::NAME))?;
    let chunks = encode_request(request, version, 0, Some(&CLIENT_ID)).with_context(|| format!("encode {}", R::NAME))?;
    joined(&chunks)
}

/// Chunks in memory as one piece.
pub fn joined(chunks: &[Chunk]) -> Result<Vec<u8>> {
    let mut frame = Vec::with_capacity(chunks.iter().map(Chunk::len).sum());
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) => frame.extend_from_slice(bytes),
            Chunk::File(_) => bail!("the load generator sends no files"),
        }
    }
    Ok(frame)
}

/// Fails with the name of an error code that is not 0.
pub fn check(code: i16, action: &str) -> Result<()> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => bail!("{action}: {}", code.name()),
        None => bail!("{action}: unknown error code {code}"),
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    sent: i32,
    received: i32,
}

impl Connection {
    /// Connects to `host:port`.
    pub fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true).context("turn Nagle's algorithm off")?;
        stream.set_read_timeout(Some(RESPONSE_DEADLINE)).context("set a deadline")?;
        Ok(Self {
            stream,
            sent: 0,
            received: 0,
        })
    }

    /// Sends a request and waits for its response.
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        self.send(&mut frame(request)?)?;
        self.receive::<R>()
    }

    /// Sends a frame, giving it the next correlation id.
    pub fn send(&mut self, frame: &mut [u8]) -> Result<()> {
        self.sent = self.sent.wrapping_add(1);
        let id = frame.get_mut(CORRELATION_ID).context("a frame has a header")?;
        id.copy_from_slice(&self.sent.to_be_bytes());
        self.stream.write_all(frame).context("send a request")
    }

    /// Waits for the response to the oldest request without one.
    pub fn receive<R: Request>(&mut self) -> Result<R::Response> {
        self.received = self.received.wrapping_add(1);
        let version = version(R::API_KEY).with_context(|| format!("{} is not spoken here", R::NAME))?;
        let mut decoder = Decoder::new(self.read_frame().with_context(|| format!("wait for the response to {}", R::NAME))?);
        let understood = || format!("understand the response to {}", R::NAME);
        let id = decode_response_header(&mut decoder, R::API_KEY, version).with_context(understood)?;
        ensure!(id == self.received, "response {id} came instead of {}", self.received);
        R::Response::decode(&mut decoder, version).with_context(understood)
    }

    /// Whether nothing came that was not read, not even the end of the connection.
    pub fn is_quiet(&self) -> Result<bool> {
        self.stream.set_nonblocking(true).context("look without waiting")?;
        match self.stream.peek(&mut [0]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(error).context("look for an answer"),
            Ok(_) => Ok(false),
        }
    }

    /// Requests without a response so far.
    pub fn in_flight(&self) -> i32 {
        self.sent.wrapping_sub(self.received)
    }

    fn read_frame(&mut self) -> Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(usize::MAX);
        ensure!(length <= RESPONSE_BYTES_MAX, "a response of {length} bytes");
        // Reading to the end of a limited reader fills the reserved memory without zeroing it first.
        let mut frame = Vec::with_capacity(length);
        (&mut self.stream).take(length as u64).read_to_end(&mut frame)?;
        ensure!(frame.len() == length, "the connection was closed within a response");
        Ok(Bytes::from(frame))
    }
}
