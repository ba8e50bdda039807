//! Writing responses: memory pieces gathered into one vectored write, file ranges by sendfile.

use std::{
    io::{self, IoSlice},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use millstream_protocol::chunk::{Chunk, FileRange};
use tokio::{io::Interest, net::TcpStream, time::timeout};

/// Pieces of one vectored write.
const SLICES_MAX: usize = 64;
/// File ranges below this are read and sent with the bytes around them: cheaper than a system call of their own.
const SENDFILE_BYTES_MIN: usize = 32 * 1024;

/// A client that takes no byte for this long does not read its answers; what they hold is needed for others.
pub(super) const STALL_MAX: Duration = Duration::from_secs(60);
/// Nor does one that takes them more slowly than this, once that time has passed.
const BYTES_PER_SECOND_MIN: usize = 64 * 1024;

/// Time in which a frame must have gone over the wire, in either direction, from a client that may stall for `stall_max`.
pub(super) fn time_for(bytes: usize, stall_max: Duration) -> Duration {
    stall_max + Duration::from_secs(u64::try_from(bytes / BYTES_PER_SECOND_MIN).unwrap_or(u64::MAX / 2))
}

/// Writes all pieces in order. `TimedOut` if the client stops reading.
pub(super) async fn write_all(stream: &TcpStream, chunks: Vec<Chunk>, stall_max: Duration) -> io::Result<()> {
    let time = time_for(chunks.iter().map(Chunk::len).sum(), stall_max);
    timeout(time, write_in_order(stream, chunks, stall_max)).await?
}

async fn write_in_order(stream: &TcpStream, chunks: Vec<Chunk>, stall_max: Duration) -> io::Result<()> {
    let mut gathered: Vec<Bytes> = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) => gathered.push(bytes),
            Chunk::File(range) if range.len < SENDFILE_BYTES_MIN => gathered.push(read_range(&range)?),
            Chunk::File(range) => {
                write_gathered(stream, &mut gathered, stall_max).await?;
                send_file(stream, &range, stall_max).await?;
            }
        }
    }
    write_gathered(stream, &mut gathered, stall_max).await
}

async fn write_gathered(stream: &TcpStream, gathered: &mut Vec<Bytes>, stall_max: Duration) -> io::Result<()> {
    let mut first = 0;
    let mut skip = 0;
    while first < gathered.len() {
        let slices: Vec<IoSlice<'_>> = gathered[first..]
            .iter()
            .take(SLICES_MAX)
            .enumerate()
            .map(|(index, bytes)| IoSlice::new(if index == 0 { &bytes[skip..] } else { bytes }))
            .collect();
        timeout(stall_max, stream.writable()).await??;
        let mut written = match stream.try_write_vectored(&slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        while first < gathered.len() && written >= gathered[first].len() - skip {
            written -= gathered[first].len() - skip;
            first += 1;
            skip = 0;
        }
        skip += written;
    }
    gathered.clear();
    Ok(())
}

fn read_range(range: &FileRange) -> io::Result<Bytes> {
    let mut bytes = BytesMut::zeroed(range.len);
    std::os::unix::fs::FileExt::read_exact_at(&*range.file, &mut bytes, range.position)?;
    Ok(bytes.freeze())
}

async fn send_file(stream: &TcpStream, range: &FileRange, stall_max: Duration) -> io::Result<()> {
    let mut position = range.position;
    let mut left = range.len;
    while left > 0 {
        let send = || rustix::fs::sendfile(stream, &*range.file, Some(&mut position), left).map_err(io::Error::from);
        let sent = timeout(stall_max, stream.async_io(Interest::WRITABLE, send)).await??;
        if sent == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a segment is shorter than its index says",
            ));
        }
        left -= sent;
    }
    Ok(())
}
