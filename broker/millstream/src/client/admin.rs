//! The admin HTTP API.

use std::{error::Error, sync::Once, time::Duration};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use reqwest::{Client, Method, header::CONTENT_TYPE};
use serde_json::Value;

use super::kafka::unreachable_node;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pushing a large plugin compiles it, which takes the broker a while.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A client of the admin port.
#[derive(Debug)]
pub struct Admin {
    base: String,
    client: Client,
}

/// What is sent along.
enum Body<'a> {
    Nothing,
    Json(&'a Value),
    Wasm(Bytes),
}

impl Admin {
    /// A client of the admin port at a URL.
    pub fn new(url: &str) -> Result<Self> {
        static TLS: Once = Once::new();
        // An error says that there is a provider already, which is as good.
        TLS.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        let base = url.trim_end_matches('/').to_owned();
        if !base.starts_with("http://") && !base.starts_with("https://") {
            bail!("--admin {url} is not a URL; it looks like http://127.0.0.1:9644");
        }
        let client = Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).timeout(TIMEOUT);
        let client = client.build().context("start the HTTP client")?;
        Ok(Self { base, client })
    }

    /// Reads a resource.
    pub async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value> {
        self.call(Method::GET, &with_query(path, query), Body::Nothing).await
    }

    /// Makes a resource from JSON.
    pub async fn post(&self, path: &[&str], body: &Value) -> Result<Value> {
        self.call(Method::POST, &with_query(path, &[]), Body::Json(body)).await
    }

    /// Makes a resource from the bytes of a WebAssembly file.
    pub async fn post_wasm(&self, path: &[&str], wasm: Bytes) -> Result<Value> {
        self.call(Method::POST, &with_query(path, &[]), Body::Wasm(wasm)).await
    }

    /// Removes a resource.
    pub async fn delete(&self, path: &[&str]) -> Result<Value> {
        self.call(Method::DELETE, &with_query(path, &[]), Body::Nothing).await
    }

    async fn call(&self, method: Method, path: &str, body: Body<'_>) -> Result<Value> {
        let request = self.client.request(method, format!("{}{path}", self.base));
        let request = match body {
            Body::Nothing => request,
            Body::Json(json) => request.header(CONTENT_TYPE, "application/json").body(json.to_string()),
            Body::Wasm(wasm) => request.header(CONTENT_TYPE, "application/wasm").body(wasm),
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() || error.is_timeout() => {
                return Err(unreachable_node(&self.base, &root_cause(&error)));
            }
            Err(error) => return Err(error).context("call the admin API"),
        };
        let status = response.status();
        let bytes = response.bytes().await.context("read the answer of the admin API")?;
        let json: Option<Value> = serde_json::from_slice(&bytes).ok();
        if status.is_success() {
            return match json {
                Some(json) => Ok(json),
                None if bytes.is_empty() => Ok(Value::Null),
                None => bail!("{} answers {path} with no JSON; is it millstream's admin port?", self.base),
            };
        }
        let error = json.as_ref().map(|json| &json["error"]);
        match error.and_then(|error| error["message"].as_str()) {
            Some(message) => bail!("{message}"),
            None => bail!("{} answers {path} with status {status}; is it millstream's admin port?", self.base),
        }
    }
}

/// The innermost cause, which is the one that says something: `Connection refused`.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn with_query(path: &[&str], query: &[(&str, &str)]) -> String {
    let mut url: String = path.iter().flat_map(|segment| ["/".to_owned(), escape(segment)]).collect();
    for ((name, value), separator) in query.iter().zip(std::iter::once('?').chain(std::iter::repeat('&'))) {
        url.push(separator);
        url.push_str(&format!("{}={}", escape(name), escape(value)));
    }
    url
}

/// Percent-encodes what is not unreserved (RFC 3986).
fn escape(text: &str) -> String {
    let escape_byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escape_byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(with_query(&["v1", "views", "a/b?c d"], &[]), "/v1/views/a%2Fb%3Fc%20d");
        assert_eq!(
            with_query(&["v1", "tier"], &[("topic", "x&y"), ("n", "1")]),
            "/v1/tier?topic=x%26y&n=1"
        );
    }

    #[tokio::test]
    async fn nobody_listening_is_told_with_a_hint() {
        let error = Admin::new("http://127.0.0.1:1/")
            .unwrap()
            .get(&["v1"], &[])
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("http://127.0.0.1:1") && error.contains("millstream dev"), "{error}");
        assert!(Admin::new("127.0.0.1:9644").unwrap_err().to_string().contains("http://"));
    }
}
