//! The null sink: reads produce requests and acknowledges them at once. What it takes in is the most that the client can send.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};
use millstream_protocol::{
    ApiKey,
    api::encode_response,
    messages::{
        ProduceResponse,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

use super::server::Server;
use crate::{
    client::{joined, version},
    load::{Batch, Moved, produce},
};

/// Larger than any request that is sent here.
const REQUEST_BYTES_MAX: usize = 1 << 20;
/// API key, version and correlation id.
const HEADER_BYTES: usize = 8;

/// Sends `count` batches to a null sink.
pub fn null_sink(batch: &Batch, count: u64) -> Result<Moved> {
    let server = Server::start(acknowledge)?;
    let moved = produce(&server.address, "null", 1, batch, count)?;
    server.finish()?;
    Ok(moved)
}

fn acknowledge(mut stream: TcpStream) -> Result<()> {
    let mut response = acknowledgement()?;
    let mut request = vec![0; REQUEST_BYTES_MAX];
    let mut length = [0; 4];
    loop {
        match stream.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.context("read the length of a request")?,
        }
        let length = u32::from_be_bytes(length) as usize;
        ensure!((HEADER_BYTES..=REQUEST_BYTES_MAX).contains(&length), "a request of {length} bytes");
        stream.read_exact(&mut request[..length]).context("read a request")?;
        response[4..8].copy_from_slice(&request[4..8]);
        stream.write_all(&response).context("acknowledge a request")?;
    }
}

/// A response frame; its correlation id, at 4, is still to be set.
fn acknowledgement() -> Result<Vec<u8>> {
    let response = ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: "null".into(),
            partition_responses: vec![PartitionProduceResponse::default()],
            ..TopicProduceResponse::default()
        }],
        ..ProduceResponse::default()
    };
    let version = version(ApiKey::Produce).context("produce is spoken")?;
    joined(&encode_response(&response, version, 0).context("encode an acknowledgement")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plain_values;

    #[test]
    fn null_sink_acknowledges_every_batch() {
        let batch = Batch::full(&plain_values(100)).unwrap();
        assert_eq!(null_sink(&batch, 12).unwrap().records, 12 * batch.records);
    }
}
