//! What the end-to-end tests are made of: a broker of their own each, stock clients, a raw connection, an S3 server, a link that
//! can be cut. Everything runs on free ports and in temporary directories, and ends with the test.
//!
//! Environment, with defaults for a run from the workspace: `MILLSTREAM_BIN` (target/debug/millstream), `MILLSTREAM_PYTHON`
//! (target/venv/bin/python), `MILLSTREAM_PLUGINS` (target/plugins), `MILLSTREAM_TEST_REPORT` (target/test-report).

pub mod broker;
pub mod clients;
pub mod http;
pub mod link;
pub mod places;
pub mod process;
pub mod s3;
pub mod wire;
