//! The parts of a request, refused as JSON when they are wrong.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;
use tokio::sync::OwnedSemaphorePermit;

use super::{Admin, error::ApiError};

/// Parameters of the path.
pub(super) struct FromPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for FromPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(path) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(rejection.status(), "INVALID_PATH", rejection.body_text()))?;
        Ok(Self(path))
    }
}

/// Parameters of the query.
pub(super) struct FromQuery<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for FromQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::from_request_parts(parts, state)
            .await
            .map_err(|rejection| ApiError::new(rejection.status(), "INVALID_QUERY", rejection.body_text()))?;
        Ok(Self(query))
    }
}

/// A JSON body, whatever content type it claims: curl's default is a form.
pub(super) struct FromJson<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for FromJson<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = body(request, state).await?;
        let parsed = serde_json::from_slice(&bytes);
        parsed.map(Self).map_err(|error| {
            ApiError::new(
                StatusCode::BAD_REQUEST,
                "INVALID_JSON",
                format!("the body is not as documented: {error}"),
            )
        })
    }
}

/// A plugin's bytes. The permit is taken before they are read, so that few are in memory at once.
pub(super) struct FromWasm {
    pub bytes: Bytes,
    pub permit: OwnedSemaphorePermit,
}

impl FromRequest<Admin> for FromWasm {
    type Rejection = ApiError;

    async fn from_request(request: Request, admin: &Admin) -> Result<Self, ApiError> {
        let permit = std::sync::Arc::clone(&admin.pushes).acquire_owned().await;
        let permit = permit.map_err(|_| ApiError::unavailable("the broker is stopping"))?;
        let bytes = body(request, admin).await?;
        if bytes.is_empty() {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "INVALID_PLUGIN",
                "not a plugin: the file is empty; a WebAssembly component or core module is wanted",
            ));
        }
        Ok(Self { bytes, permit })
    }
}

async fn body<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        let code = if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            "BODY_TOO_LARGE"
        } else {
            "INVALID_BODY"
        };
        ApiError::new(rejection.status(), code, rejection.body_text())
    })
}
