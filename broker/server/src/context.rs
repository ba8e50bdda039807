//! What a handler knows of the request besides its body.

use std::net::IpAddr;

use millstream_protocol::KString;

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
    /// Who it is.
    pub principal: &'static str,
}

impl RequestContext {
    /// Where the client connects from, as Kafka shows it: `/10.0.0.1`.
    pub fn host(&self) -> String {
        format!("/{}", self.client_address)
    }
}
