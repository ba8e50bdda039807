//! Sockets, frames and pipelining. Nothing in here knows what a request means.

mod admission;
mod connection;
#[cfg(test)]
mod connection_tests;
mod frames;
mod listener;
mod writer;

pub use listener::{ListenError, Listener};
