//! Failures as clients of the API see them: a status, a stable code and a sentence.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use millstream_core::{metadata::controller::Refusal, transform::TransformError};
use millstream_protocol::ErrorCode;
use serde::Serialize;

use crate::plugins::PluginServiceError;

/// A refused or failed request.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    message: &'a str,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "this path does not take this method",
        )
    }

    pub fn overloaded(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "OVERLOADED", message)
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Envelope {
            error: Body {
                code: self.code,
                message: &self.message,
            },
        };
        (self.status, Json(body)).into_response()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(status_of(refusal.code), refusal.code.name(), refusal.message)
    }
}

/// The HTTP status of one of the controller's codes. It uses few of Kafka's; what is not named here is the client's fault unless
/// Kafka says to retry.
fn status_of(code: ErrorCode) -> StatusCode {
    if matches!(
        code,
        ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId | ErrorCode::ResourceNotFound
    ) {
        StatusCode::NOT_FOUND
    } else if matches!(
        code,
        ErrorCode::TopicAlreadyExists | ErrorCode::DuplicateResource | ErrorCode::PolicyViolation
    ) {
        StatusCode::CONFLICT
    } else if code == ErrorCode::UnknownServerError {
        StatusCode::INTERNAL_SERVER_ERROR
    } else if code.is_retriable() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::BAD_REQUEST
    }
}

impl From<PluginServiceError> for ApiError {
    fn from(error: PluginServiceError) -> Self {
        let message = error.to_string();
        match error {
            PluginServiceError::Refused(refusal) => refusal.into(),
            PluginServiceError::Transform(TransformError::Invalid(_)) => Self::new(StatusCode::BAD_REQUEST, "INVALID_PLUGIN", message),
            PluginServiceError::Transform(TransformError::BadConfig { .. }) => {
                Self::new(StatusCode::BAD_REQUEST, "INVALID_CONFIG", message)
            }
            PluginServiceError::Transform(TransformError::NoMemory { .. }) => Self::new(StatusCode::CONFLICT, "NO_PLUGIN_MEMORY", message),
            PluginServiceError::StoreFull { .. } => Self::new(StatusCode::CONFLICT, "PLUGIN_STORE_FULL", message),
            PluginServiceError::Missing(_) => Self::new(StatusCode::CONFLICT, "MISSING_COMPONENT", message),
            PluginServiceError::Unavailable => Self::unavailable(message),
            PluginServiceError::Metadata(_) | PluginServiceError::Log(_) | PluginServiceError::Append(_) | PluginServiceError::Chunk(_) => {
                tracing::error!(error = message, "an admin request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_say_whose_fault_it_is() {
        for (code, status) in [
            (ErrorCode::ResourceNotFound, 404),
            (ErrorCode::UnknownTopicOrPartition, 404),
            (ErrorCode::DuplicateResource, 409),
            (ErrorCode::PolicyViolation, 409),
            (ErrorCode::InvalidRequest, 400),
            (ErrorCode::InvalidConfig, 400),
            (ErrorCode::UnknownServerError, 500),
            (ErrorCode::NotController, 503),
        ] {
            assert_eq!(status_of(code).as_u16(), status, "{code:?}");
        }
    }
}
