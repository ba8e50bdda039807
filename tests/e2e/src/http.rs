//! Just enough HTTP to ask the admin port.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::broker::Broker;

/// Time one read may take.
const READ_DEADLINE: Duration = Duration::from_secs(20);

/// An answer of the admin port.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header section, as sent.
    pub head: String,
    /// Body, with chunked encoding undone.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {}", self.body))
    }
}

/// GET of a path on a broker's admin port.
pub fn get(broker: &Broker, path: &str) -> Result<Answer> {
    request(broker, "GET", path, "")
}

/// A request with a JSON body.
pub fn request(broker: &Broker, method: &str, path: &str, body: &str) -> Result<Answer> {
    let address = broker.admin.strip_prefix("http://").context("the admin address is an http URL")?;
    let mut stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(READ_DEADLINE)).context("set a read deadline")?;
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream
        .write_all(request.as_bytes())
        .with_context(|| format!("send {method} {path}"))?;
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .with_context(|| format!("read the answer to {method} {path}"))?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("understand the answer to {method} {path}"))
}

fn parse(answer: &str) -> Result<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the headers")?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .context("no status code")?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Answer {
        status,
        head: head.to_owned(),
        body,
    })
}

fn unchunk(mut body: &str) -> Result<String> {
    let mut whole = String::new();
    loop {
        let (length, rest) = body.split_once("\r\n").context("no chunk length")?;
        let length = usize::from_str_radix(length.trim(), 16).context("a chunk length is hexadecimal")?;
        if length == 0 {
            return Ok(whole);
        }
        whole.push_str(rest.get(..length).context("a chunk is cut short")?);
        body = rest.get(length + 2..).context("a chunk has no end")?;
    }
}
