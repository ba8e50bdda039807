//! Who may ask, how many at once, and for how long.
//!
//! A page in the operator's browser can send requests to a loopback port. DNS rebinding gives such a page the listener's
//! address under its own name, so the `Host` header must be one of ours: `localhost`, a loopback address, the address the listener
//! is bound to, or the advertised host. A listener on all addresses takes any address literal, as those cannot be rebound.
//! A cross-site form carries a foreign `Origin`, which is held to the same rule.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::sync::Semaphore;

use super::error::ApiError;

/// Requests that are worked on at the same time.
const IN_FLIGHT_MAX: usize = 64;
/// Time a request may take from its head to its response. A large plugin takes more than ten seconds to compile.
const REQUEST: Duration = Duration::from_secs(120);

/// The rules of one listener.
pub(super) struct Guard {
    bound: IpAddr,
    advertised: Option<String>,
    in_flight: Semaphore,
}

impl Guard {
    pub fn new(bound: SocketAddr, advertised: Option<&str>) -> Self {
        Self {
            bound: bound.ip(),
            advertised: advertised.map(str::to_owned),
            in_flight: Semaphore::new(IN_FLIGHT_MAX),
        }
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "HOST_REFUSED",
                "the request needs one Host header",
            ));
        };
        if !host.to_str().is_ok_and(|host| self.allows(host)) {
            let message = "the Host header names neither a loopback host nor the address of this listener";
            return Err(ApiError::new(StatusCode::FORBIDDEN, "HOST_REFUSED", message));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let authority = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.split_once("://"))
                .map(|(_, authority)| authority);
            if !authority.is_some_and(|authority| self.allows(authority)) {
                return Err(ApiError::new(
                    StatusCode::FORBIDDEN,
                    "ORIGIN_REFUSED",
                    "requests from pages of other sites are refused",
                ));
            }
        }
        Ok(())
    }

    /// Whether `host[:port]` is us. Ports do not matter: they may be forwarded, and rebinding is about names.
    fn allows(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address == self.bound || self.bound.is_unspecified(),
            Err(_) => {
                host.eq_ignore_ascii_case("localhost") || self.advertised.as_deref().is_some_and(|ours| host.eq_ignore_ascii_case(ours))
            }
        }
    }
}

/// The middleware around every route.
pub(super) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Err(error) = guard.check(request.headers()) {
        return error.into_response();
    }
    let Ok(_in_flight) = guard.in_flight.try_acquire() else {
        return ApiError::overloaded("too many admin requests at once; try again").into_response();
    };
    // Dropping a handler is safe: what changes something runs in a task of its own.
    let mut response = match tokio::time::timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "TIMEOUT",
            "this took too long; it may still be going on",
        )
        .into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(bound: &str) -> Guard {
        Guard::new(bound.parse().unwrap(), Some("broker-1.example"))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn our_own_names_are_allowed() {
        let guard = guard("192.0.2.7:9644");
        for host in [
            "localhost",
            "LOCALHOST:9644",
            "127.0.0.1:9644",
            "127.8.8.8",
            "[::1]:9644",
            "192.0.2.7",
            "192.0.2.7:80",
            "broker-1.example:9644",
        ] {
            assert!(guard.allows(host), "{host}");
        }
    }

    #[test]
    fn names_that_can_be_rebound_are_refused() {
        for guard in [guard("127.0.0.1:9644"), guard("0.0.0.0:9644")] {
            for host in [
                "",
                "evil.example",
                "localhost.evil.example",
                "127.0.0.1.evil.example:9644",
                "evil@localhost",
                "localhost@evil.example",
                "localhost/",
                "a b",
                ":9644",
            ] {
                assert!(!guard.allows(host), "{host}");
            }
        }
    }

    #[test]
    fn other_addresses_are_allowed_only_if_the_listener_has_all() {
        assert!(!guard("127.0.0.1:9644").allows("192.0.2.7"));
        assert!(guard("0.0.0.0:9644").allows("192.0.2.7") && guard("[::]:9644").allows("[2001:db8::1]:9644"));
    }

    #[test]
    fn a_request_has_one_host_and_no_foreign_origin() {
        let guard = guard("127.0.0.1:9644");
        assert!(guard.check(&headers(&[("host", "localhost")])).is_ok());
        assert!(
            guard
                .check(&headers(&[("host", "localhost"), ("origin", "http://127.0.0.1:9644")]))
                .is_ok()
        );
        for refused in [
            headers(&[]),
            headers(&[("host", "localhost"), ("host", "evil.example")]),
            headers(&[("host", "evil.example")]),
            headers(&[("host", "localhost"), ("origin", "https://evil.example")]),
            headers(&[("host", "localhost"), ("origin", "null")]),
        ] {
            assert!(guard.check(&refused).is_err(), "{refused:?}");
        }
    }
}
