//! One connection to a node's Kafka port.
//!
//! Every API is spoken in one fixed version: modern, without topic ids, and served by every Millstream node.

use std::{io, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::{Bytes, BytesMut};
use millstream_protocol::{
    ApiKey, Decoder, ErrorCode, KString, Message, Request,
    api::{decode_response_header, encode_request},
    chunk::Chunk,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// Largest response that is read.
const RESPONSE_BYTES_MAX: usize = 256 << 20;
/// A response is read in steps, so that a stranger's "length" costs nothing.
const READ_BYTES: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a call whose error may pass is tried again.
const RETRIES: u32 = 50;
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The version in which each API is spoken.
pub(super) const fn version(key: ApiKey) -> Option<i16> {
    Some(match key {
        ApiKey::Produce => 11,
        ApiKey::Fetch => 12,
        ApiKey::ListOffsets => 7,
        ApiKey::Metadata => 12,
        ApiKey::OffsetCommit => 8,
        ApiKey::OffsetFetch => 8,
        ApiKey::FindCoordinator => 4,
        ApiKey::DescribeGroups => 6,
        ApiKey::ListGroups => 5,
        ApiKey::ConsumerGroupDescribe => 1,
        ApiKey::ShareGroupDescribe => 1,
        ApiKey::StreamsGroupDescribe => 0,
        ApiKey::DescribeShareGroupOffsets => 1,
        ApiKey::DeleteGroups => 2,
        ApiKey::CreateTopics => 7,
        ApiKey::DeleteTopics => 6,
        ApiKey::CreatePartitions => 3,
        ApiKey::DescribeConfigs => 4,
        ApiKey::IncrementalAlterConfigs => 1,
        ApiKey::InitProducerId => 4,
        _ => return None,
    })
}

/// A connection.
#[derive(Debug)]
pub struct Kafka {
    address: String,
    stream: TcpStream,
    client_id: KString,
    correlation_id: i32,
}

impl Kafka {
    /// Connects to `host:port`; of a list, to the first that answers.
    pub async fn connect(addresses: &str) -> Result<Self> {
        let mut failure = anyhow!("no address given");
        for address in addresses.split(',').map(str::trim).filter(|address| !address.is_empty()) {
            match open(address).await {
                Ok(stream) => {
                    return Ok(Self {
                        address: address.to_owned(),
                        stream,
                        client_id: KString::from("millstream-cli"),
                        correlation_id: 0,
                    });
                }
                Err(error) => failure = unreachable_node(address, &error),
            }
        }
        Err(failure)
    }

    /// Sends a request and waits for its response.
    pub async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response> {
        let version = self.send(request).await?;
        let frame = match timeout(CALL_TIMEOUT, self.receive()).await {
            Ok(frame) => frame.with_context(|| format!("{} did not answer {}", self.address, R::NAME))?,
            Err(_) => bail!("{} did not answer {} within {} s", self.address, R::NAME, CALL_TIMEOUT.as_secs()),
        };
        let mut decoder = Decoder::new(frame);
        let malformed = || format!("{} answered {} with something else; is it a Kafka port?", self.address, R::NAME);
        let correlation_id = decode_response_header(&mut decoder, R::API_KEY, version).with_context(malformed)?;
        if correlation_id != self.correlation_id {
            bail!(malformed());
        }
        R::Response::decode(&mut decoder, version).with_context(malformed)
    }

    /// Sends a request that has no response, or whose response is still to come. Returns the version used.
    pub async fn send<R: Request>(&mut self, request: &R) -> Result<i16> {
        let version = version(R::API_KEY).with_context(|| format!("{} is not spoken here", R::NAME))?;
        self.correlation_id = self.correlation_id.wrapping_add(1);
        let chunks = encode_request(request, version, self.correlation_id, Some(&self.client_id))
            .with_context(|| format!("{} cannot be sent", R::NAME))?;
        for chunk in chunks {
            match chunk {
                Chunk::Bytes(bytes) => self.stream.write_all(&bytes).await,
                Chunk::File(_) => Err(io::Error::other("the command line sends no files")),
            }
            .with_context(|| format!("send {} to {}", R::NAME, self.address))?;
        }
        Ok(version)
    }

    /// Calls until the error code that `code` finds in the response is not one that passes by itself.
    pub async fn call_until_settled<R: Request>(&mut self, request: &R, code: impl Fn(&R::Response) -> i16) -> Result<R::Response> {
        for _ in 0..RETRIES {
            let response = self.call(request).await?;
            if !passes(code(&response)) {
                return Ok(response);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        self.call(request).await
    }

    async fn receive(&mut self) -> io::Result<Bytes> {
        let length = self.stream.read_i32().await?;
        let length = usize::try_from(length).ok().filter(|length| *length <= RESPONSE_BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "impossible length of a response"))?;
        let mut frame = BytesMut::new();
        while frame.len() < length {
            let start = frame.len();
            frame.resize(length.min(start + READ_BYTES), 0);
            let Some(step) = frame.get_mut(start..) else { break };
            self.stream.read_exact(step).await?;
        }
        Ok(frame.freeze())
    }
}

async fn open(address: &str) -> io::Result<TcpStream> {
    let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// The one error that everybody meets; also used for the admin port.
pub(super) fn unreachable_node(address: &str, error: &dyn std::fmt::Display) -> anyhow::Error {
    anyhow!("cannot reach {address}: {error}; is millstream running? start it with \"millstream dev\"")
}

/// Whether an error passes by itself: coordinators that load, internal topics that are being created.
fn passes(code: i16) -> bool {
    matches!(
        ErrorCode::from_code(code),
        Some(
            ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::CoordinatorNotAvailable
                | ErrorCode::LeaderNotAvailable
                | ErrorCode::ConcurrentTransactions
        )
    )
}

/// Turns an error code into an error that says what was tried.
pub(super) fn check(code: i16, message: Option<&KString>, action: impl FnOnce() -> String) -> Result<()> {
    match ErrorCode::from_code(code) {
        Some(ErrorCode::None) => Ok(()),
        Some(code) => {
            let message = message.map(KString::as_str).filter(|message| !message.is_empty());
            bail!("{}: {} ({})", action(), message.unwrap_or(code.message()), code.name())
        }
        None => bail!("{}: unknown error code {code}", action()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_served_by_our_nodes() {
        for number in 0..=100 {
            let Some(key) = ApiKey::from_i16(number) else { continue };
            let Some(version) = version(key) else { continue };
            let served = millstream_server::served_versions(key);
            assert!(served.is_some_and(|served| served.contains(&version)), "{key:?} {version}");
        }
    }

    #[test]
    fn errors_say_what_was_tried_and_why_it_failed() {
        assert!(check(0, None, || unreachable!()).is_ok());
        let error = check(3, None, || "describe topic t".to_owned()).unwrap_err().to_string();
        assert!(
            error.starts_with("describe topic t: ") && error.ends_with("(UNKNOWN_TOPIC_OR_PARTITION)"),
            "{error}"
        );
        let error = check(36, Some(&KString::from("it is there")), || "create".to_owned())
            .unwrap_err()
            .to_string();
        assert_eq!(error, "create: it is there (TOPIC_ALREADY_EXISTS)");
        assert!(check(4711, None, || "x".to_owned()).unwrap_err().to_string().contains("4711"));
    }

    #[tokio::test]
    async fn nobody_listening_is_told_with_a_hint() {
        let error = Kafka::connect("127.0.0.1:1").await.unwrap_err().to_string();
        assert!(
            error.starts_with("cannot reach 127.0.0.1:1: ") && error.contains("millstream dev"),
            "{error}"
        );
    }
}
