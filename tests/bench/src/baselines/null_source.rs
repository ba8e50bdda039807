//! The null source: answers fetches at once with the same batches. What it gives out is the most that the client can take in.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use anyhow::{Context, Result, ensure};
use millstream_protocol::{
    ApiKey,
    api::encode_response,
    chunk::{Chunk, Records},
    messages::{
        FetchResponse,
        fetch_response::{FetchableTopicResponse, PartitionData},
    },
    record::assign_offsets,
};

use super::server::Server;
use crate::{
    client::{joined, version},
    load::{Batch, Moved, Until, consume},
};

/// Batches in a response: as many as fit the 1 MiB that the client asks for.
const BATCHES: usize = 4;
/// Largest fetch request.
const REQUEST_BYTES_MAX: usize = 4096;

/// Fetches `count` batches, or a few more, from a null source.
pub fn null_source(batch: &Batch, count: u64, value_bytes: u64) -> Result<Moved> {
    let end = i64::try_from(count * batch.records).context("count the records")?;
    let response = Response::new(batch, end)?;
    let server = Server::start(move |stream| serve(stream, response))?;
    let moved = consume(&server.address, "null", Until::HighWatermark, value_bytes)?;
    server.finish()?;
    Ok(moved)
}

/// A response frame in which only correlation id and offsets change.
struct Response {
    frame: Vec<u8>,
    /// Where each batch starts in the frame.
    batches: [usize; BATCHES],
    records_per_batch: i64,
    next_offset: i64,
}

impl Response {
    fn new(batch: &Batch, end: i64) -> Result<Self> {
        let records: Records = std::iter::repeat_n(Chunk::Bytes(batch.bytes.clone()), BATCHES).collect();
        let response = FetchResponse {
            responses: vec![FetchableTopicResponse {
                topic: "null".into(),
                partitions: vec![PartitionData {
                    high_watermark: end,
                    last_stable_offset: end,
                    log_start_offset: 0,
                    records: Some(records),
                    ..PartitionData::default()
                }],
                ..FetchableTopicResponse::default()
            }],
            ..FetchResponse::default()
        };
        let version = version(ApiKey::Fetch).context("fetch is spoken")?;
        let chunks = encode_response(&response, version, 0).context("encode a response")?;
        // The encoder passes large records on as they are, so the first chunk is all that stands before them.
        let start = chunks.first().map_or(0, Chunk::len);
        Ok(Self {
            frame: joined(&chunks)?,
            batches: std::array::from_fn(|index| start + index * batch.bytes.len()),
            records_per_batch: i64::try_from(batch.records).context("count the records")?,
            next_offset: 0,
        })
    }

    /// The response to the next fetch.
    fn next(&mut self, correlation_id: &[u8]) -> &[u8] {
        self.frame[4..8].copy_from_slice(correlation_id);
        for start in self.batches {
            assign_offsets(&mut self.frame[start..], self.next_offset, 0);
            self.next_offset += self.records_per_batch;
        }
        &self.frame
    }
}

fn serve(mut stream: TcpStream, mut response: Response) -> Result<()> {
    let mut request = [0; REQUEST_BYTES_MAX];
    let mut length = [0; 4];
    loop {
        match stream.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.context("read the length of a request")?,
        }
        let length = u32::from_be_bytes(length) as usize;
        ensure!((8..=REQUEST_BYTES_MAX).contains(&length), "a request of {length} bytes");
        stream.read_exact(&mut request[..length]).context("read a request")?;
        stream.write_all(response.next(&request[4..8])).context("answer a fetch")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::plain_values;

    #[test]
    fn null_source_gives_out_what_was_asked_for() {
        let batch = Batch::full(&plain_values(1024)).unwrap();
        let moved = null_source(&batch, 8, 1024).unwrap();
        assert_eq!((moved.records, moved.value_bytes), (8 * batch.records, 8 * batch.value_bytes));
    }
}
