//! A TCP server in this process, for one connection.

use std::{
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow};

/// A server that serves one connection to its end.
#[derive(Debug)]
pub struct Server {
    /// `host:port`.
    pub address: String,
    thread: JoinHandle<Result<()>>,
}

impl Server {
    /// Listens on a free port; `serve` gets the first connection.
    pub fn start(serve: impl FnOnce(TcpStream) -> Result<()> + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on a free port")?;
        let address = listener.local_addr().context("ask for the port")?.to_string();
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().context("accept the client")?;
            stream.set_nodelay(true).context("turn Nagle's algorithm off")?;
            serve(stream)
        });
        Ok(Self { address, thread })
    }

    /// Waits until the client has gone.
    pub fn finish(self) -> Result<()> {
        self.thread.join().map_err(|_| anyhow!("the baseline's server panicked"))?
    }
}
