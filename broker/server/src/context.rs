//! What a handler knows of the request besides its body.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use millstream_protocol::KString;
use tokio::time::Instant;

use crate::quotas::Mute;

/// The principal of a connection without authentication, as Kafka names it.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

/// Who asks, and in which version.
#[derive(Debug, Clone)]
pub struct RequestContext {
    /// Version of the request.
    pub version: i16,
    /// Name the client gives itself, empty if it gives none.
    pub client_id: KString,
    /// Where it connects from.
    pub client_address: IpAddr,
    /// Its port.
    pub client_port: u16,
    /// When the request was begun.
    pub(crate) began: Instant,
    /// Who it is.
    pub principal: &'static str,
    /// What the connection's reading waits for.
    pub(crate) mute: Arc<Mute>,
    /// Name and version of the client's software, once ApiVersions told them.
    pub(crate) software: Arc<OnceLock<(String, String)>>,
}

impl RequestContext {
    /// Name and version of the client's software, empty if it did not tell.
    pub(crate) fn software(&self) -> (String, String) {
        self.software.get().cloned().unwrap_or_default()
    }

    /// Where the client connects from, as Kafka shows it: `/10.0.0.1`.
    pub fn host(&self) -> String {
        format!("/{}", self.client_address)
    }
}
