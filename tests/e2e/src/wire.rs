//! A raw connection to the Kafka port, for bytes that no client would send.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::broker::Broker;

/// Time the broker has to answer or to close.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Key of the ApiVersions request.
pub const API_VERSIONS: i16 = 18;

/// What came back on a raw connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// One response frame, without its length.
    Frame(Vec<u8>),
    /// The broker closed the connection.
    Closed,
}

/// A connection to the Kafka port.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
}

impl RawConnection {
    /// Connects.
    pub fn open(broker: &Broker) -> Result<Self> {
        let stream = TcpStream::connect(&broker.kafka).with_context(|| format!("connect to {}", broker.kafka))?;
        stream.set_read_timeout(Some(ANSWER_DEADLINE)).context("set a read deadline")?;
        Ok(Self { stream })
    }

    /// Sends bytes as they are. A broker that has had enough may have closed already, which `reply` then tells.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.stream.write_all(bytes));
    }

    /// Sends bytes as long as the broker takes some within `patience`; how many it took.
    pub fn send_while_read(&mut self, bytes: &[u8], patience: Duration) -> Result<usize> {
        self.stream.set_write_timeout(Some(patience)).context("set a write deadline")?;
        let mut sent = 0;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(taken) => sent += taken,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(error) => return Err(error).context("send"),
            }
        }
        Ok(sent)
    }

    /// Whether something comes back in this time; nothing is read.
    pub fn answers_within(&self, time: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(time)).context("set a read deadline")?;
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(ANSWER_DEADLINE)).context("set a read deadline")?;
        match peeked {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error).context("look for an answer"),
        }
    }

    /// The same connection once more, to write from another thread than reads.
    pub fn other_half(&self) -> Result<Self> {
        let stream = self.stream.try_clone().context("clone a connection")?;
        Ok(Self { stream })
    }

    /// Ends our side, as a client that goes away in the middle.
    pub fn end(&self) -> Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write).context("end our side")
    }

    /// The next frame, or that the connection was closed; an error if neither comes in time.
    pub fn reply(&mut self) -> Result<Reply> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(Reply::Closed);
        }
        let length = usize::try_from(i32::from_be_bytes(length)).context("a response has no negative length")?;
        ensure!(length < 1 << 20, "a response of {length} bytes");
        let mut frame = vec![0; length];
        Ok(if self.fill(&mut frame)? {
            Reply::Frame(frame)
        } else {
            Reply::Closed
        })
    }

    /// Waits for an answer of any size, or for the end of the connection.
    pub fn answer_or_close(&mut self) -> Result<()> {
        let mut length = [0; 4];
        if self.fill(&mut length)? {
            let length = u64::from(u32::from_be_bytes(length));
            io::copy(&mut (&mut self.stream).take(length), &mut io::sink()).context("read an answer")?;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => Ok(false),
            Err(error) => Err(error).context("wait for the broker to answer or close"),
        }
    }
}

/// A request frame with header version 1 and a client id.
pub fn request(api_key: i16, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let client_id = b"e2e";
    let mut frame = Vec::new();
    frame.extend(api_key.to_be_bytes());
    frame.extend(version.to_be_bytes());
    frame.extend(correlation_id.to_be_bytes());
    frame.extend([0, client_id.len() as u8]);
    frame.extend(client_id);
    frame.extend(body);
    with_length(&frame)
}

/// Appends a string as the inflexible versions have it.
pub fn put_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend((text.len() as u16).to_be_bytes());
    bytes.extend(text);
}

/// Bytes behind their length, as one frame.
pub fn with_length(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// Fails unless the broker answers ApiVersions on a new connection.
pub fn check_alive(broker: &Broker) -> Result<()> {
    let mut connection = RawConnection::open(broker)?;
    connection.send(&request(API_VERSIONS, 0, 4711, b""));
    let Reply::Frame(frame) = connection.reply().context("is the broker alive?")? else {
        anyhow::bail!("the broker closes new connections");
    };
    ensure!(
        frame.get(..6) == Some(&[0, 0, 18, 103, 0, 0]),
        "not an answer to ApiVersions: {frame:?}"
    );
    Ok(())
}
