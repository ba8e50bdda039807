//! End-to-end tests: every test starts a broker of its own from the real binary and talks to it as its users do.
//! Run by `make test`; `src/lib.rs` says what they need.

mod bad_input;
mod chaos;
mod clients;
mod command_line;
mod plugins;
mod tiered;
