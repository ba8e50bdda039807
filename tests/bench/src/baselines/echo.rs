//! The echo: a message to a server that sends it back, at a steady pace. No record can go through a node faster than that.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::Instant,
};

use anyhow::{Context, Result};

use super::server::Server;
use crate::{
    load::{Pace, wait_until},
    stats::Latencies,
};

/// Round trips of a message of this size.
pub fn echo_latencies(message_bytes: usize, pace: Pace) -> Result<Latencies> {
    let server = Server::start(move |stream| echo(stream, message_bytes))?;
    let mut stream = TcpStream::connect(&server.address).context("connect to the echo")?;
    stream.set_nodelay(true).context("turn Nagle's algorithm off")?;
    let mut message = vec![0x5a; message_bytes];
    let mut latencies = Latencies::default();
    let started = Instant::now();
    for event in 0..pace.events() {
        let sent = wait_until(pace.due(started, event));
        stream.write_all(&message).context("send to the echo")?;
        stream.read_exact(&mut message).context("hear the echo")?;
        latencies.push(sent.elapsed());
    }
    drop(stream);
    server.finish()?;
    Ok(latencies)
}

fn echo(mut stream: TcpStream, message_bytes: usize) -> Result<()> {
    let mut message = vec![0; message_bytes];
    loop {
        match stream.read_exact(&mut message) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.context("read a message")?,
        }
        stream.write_all(&message).context("send a message back")?;
    }
}
