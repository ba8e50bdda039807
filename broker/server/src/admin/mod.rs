//! The HTTP side door: health, metrics, and a JSON API for what Kafka's protocol has no words for.
//!
//! ```text
//! guard        which hosts and origins may ask, how many requests at once, for how long
//! extract      path, query and body, refused as JSON
//! error        what goes wrong, as {"error": {"code", "message"}}
//! probes       /healthz, /readyz, /metrics, /openapi.json
//! topics       /v1/cluster, /v1/topics
//! plugins, bindings, views, tier      one file per subject
//! openapi.json the contract; a test holds it against the routes
//! ```
//! JSON names are snake_case; sizes are in bytes and times in milliseconds since 1970, as the names say. Unknown fields of a
//! request are refused. There is no authentication yet: the listener is on a loopback address unless the operator said otherwise.

mod bindings;
mod error;
mod extract;
mod guard;
mod plugins;
mod probes;
mod tier;
mod topics;
mod views;

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
    middleware,
    routing::{MethodRouter, delete, get, post},
};
use tokio::{net::TcpListener, sync::Semaphore};

use self::{error::ApiError, guard::Guard};
use crate::broker::Broker;

/// Largest JSON body: a plugin configuration of 64 KiB, escaped.
const JSON_BYTES_MAX: usize = 256 << 10;
/// Largest plugin.
const PLUGIN_BYTES_MAX: usize = 32 << 20;
/// Plugins that are read and checked at the same time: each may hold 32 MiB.
const PUSHES_MAX: usize = 2;
/// Time that open requests get once the broker stops.
const DRAIN: Duration = Duration::from_secs(5);

/// What handlers share.
#[derive(Clone)]
struct Admin {
    broker: Arc<Broker>,
    pushes: Arc<Semaphore>,
}

impl FromRef<Admin> for Arc<Broker> {
    fn from_ref(admin: &Admin) -> Self {
        Arc::clone(&admin.broker)
    }
}

/// Serves until the broker stops, then gives open requests a moment to end.
pub async fn serve(listener: TcpListener, broker: Arc<Broker>) -> io::Result<()> {
    let guard = Guard::new(
        listener.local_addr()?,
        broker.config.advertised.as_ref().map(|(host, _)| host.as_str()),
    );
    let app = router(
        Admin {
            broker: Arc::clone(&broker),
            pushes: Arc::new(Semaphore::new(PUSHES_MAX)),
        },
        guard,
    );
    let stopping = {
        let broker = Arc::clone(&broker);
        async move { broker.stopped().await }
    };
    let served = axum::serve(listener, app).with_graceful_shutdown(stopping);
    let overdue = async {
        broker.stopped().await;
        tokio::time::sleep(DRAIN).await;
    };
    // Both arms end the service; dropping it closes what connections are left.
    tokio::select! {
        result = served => result,
        () = overdue => {
            tracing::warn!("some admin requests did not end in time");
            Ok(())
        }
    }
}

/// Method, path and handler of everything that is served.
fn routes() -> Vec<(&'static str, &'static str, MethodRouter<Admin>)> {
    let push = post(plugins::push).layer(DefaultBodyLimit::max(PLUGIN_BYTES_MAX));
    vec![
        ("get", "/healthz", get(probes::healthz)),
        ("get", "/readyz", get(probes::readyz)),
        ("get", "/metrics", get(probes::metrics)),
        ("get", "/openapi.json", get(probes::openapi)),
        ("get", "/v1/cluster", get(topics::cluster)),
        ("get", "/v1/topics", get(topics::list)),
        ("get", "/v1/topics/{topic}", get(topics::describe)),
        ("get", "/v1/topics/{topic}/bindings", get(bindings::list)),
        ("post", "/v1/topics/{topic}/bindings", post(bindings::bind)),
        ("delete", "/v1/topics/{topic}/bindings/{binding}", delete(bindings::unbind)),
        ("get", "/v1/plugins", get(plugins::list)),
        ("post", "/v1/plugins", push),
        ("get", "/v1/plugins/stats", get(plugins::stats)),
        ("delete", "/v1/plugins/{name}/{version}", delete(plugins::remove)),
        ("get", "/v1/views", get(views::list)),
        ("post", "/v1/views", post(views::create)),
        ("delete", "/v1/views/{view}", delete(views::remove)),
        ("get", "/v1/tier", get(tier::status)),
    ]
}

fn router(admin: Admin, guard: Guard) -> Router {
    let routed = routes()
        .into_iter()
        .fold(Router::new(), |router, (_, path, handler)| router.route(path, handler));
    routed
        .fallback(|| async { ApiError::not_found("there is nothing at this path; GET /openapi.json lists what there is") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed() })
        .layer(DefaultBodyLimit::max(JSON_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::new(guard), guard::check))
        .with_state(admin)
}

#[cfg(test)]
mod live_tests;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_openapi_document_lists_exactly_the_routes() {
        let document: serde_json::Value = serde_json::from_str(probes::OPENAPI).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone())))
            .filter(|(method, _)| method != "parameters")
            .collect();
        let served: BTreeSet<(String, String)> = routes()
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(documented, served);
    }

    #[test]
    fn the_openapi_document_refers_only_to_what_it_defines() {
        fn references<'a>(value: &'a serde_json::Value, found: &mut BTreeSet<&'a str>) {
            match value {
                serde_json::Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(|target| target.as_str()));
                    fields.values().for_each(|value| references(value, found));
                }
                serde_json::Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let document: serde_json::Value = serde_json::from_str(probes::OPENAPI).unwrap();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let defined = target.strip_prefix('#').and_then(|pointer| document.pointer(pointer));
            assert!(defined.is_some(), "{target}");
        }
    }
}
