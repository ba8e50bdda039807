//! A TCP link that a test can cut and heal, between a broker and what it depends on.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result};

/// Forwards connections to a target until it is cut. While cut, connections are accepted and closed at once.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    is_cut: AtomicBool,
    is_gone: AtomicBool,
    /// Both ends of what was forwarded, to be shut down by a cut.
    open: Mutex<Vec<TcpStream>>,
}

impl Link {
    /// A link on a free port of loopback to `target` (`host:port`).
    pub fn to(target: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen for the link")?;
        let address = listener.local_addr().context("learn the link's port")?;
        let state = Arc::new(State::default());
        let (shared, target) = (Arc::clone(&state), target.to_owned());
        thread::spawn(move || {
            for client in listener.incoming().map_while(io::Result::ok) {
                if shared.is_gone.load(Ordering::Acquire) {
                    return;
                }
                if !shared.is_cut.load(Ordering::Acquire) {
                    // A connection that cannot be made looks to the client like one that was cut.
                    drop(forward(client, &target, &shared));
                }
            }
        });
        Ok(Self { address, state })
    }

    /// `http://host:port` of the link.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Closes every connection and accepts no more.
    pub fn cut(&self) {
        self.state.is_cut.store(true, Ordering::Release);
        for stream in self.state.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // It may have been closed by its peer already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Forwards again.
    pub fn heal(&self) {
        self.state.is_cut.store(false, Ordering::Release);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.state.is_gone.store(true, Ordering::Release);
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(self.address));
    }
}

fn forward(client: TcpStream, target: &str, state: &State) -> io::Result<()> {
    let server = TcpStream::connect(target)?;
    let (client_reader, server_reader) = (client.try_clone()?, server.try_clone()?);
    let mut open = state.open.lock().unwrap_or_else(PoisonError::into_inner);
    if state.is_cut.load(Ordering::Acquire) {
        // Cut while this connection was being made: it must not outlive the cut.
        return Ok(());
    }
    open.push(client.try_clone()?);
    open.push(server.try_clone()?);
    thread::spawn(move || pump(client_reader, server));
    thread::spawn(move || pump(server_reader, client));
    Ok(())
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
}
