//! What asks for security that is not configured: ACLs, SASL, SCRAM credentials and delegation tokens. Each request gets the answer that a
//! Kafka broker without an authorizer and with plaintext listeners gives, never a closed connection.

use std::sync::Arc;

use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, CreateAclsRequest, CreateAclsResponse,
        CreateDelegationTokenRequest, CreateDelegationTokenResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
        DescribeAclsResponse, DescribeDelegationTokenRequest, DescribeDelegationTokenResponse, DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse, ExpireDelegationTokenRequest, ExpireDelegationTokenResponse, RenewDelegationTokenRequest,
        RenewDelegationTokenResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult, create_acls_response::AclCreationResult,
        delete_acls_response::DeleteAclsFilterResult, describe_user_scram_credentials_response::DescribeUserScramCredentialsResult,
    },
};

use crate::{broker::Broker, context::RequestContext};

const NO_AUTHORIZER: KString = KString::from_static("No Authorizer is configured.");
const USER: KString = KString::from_static("User");
const ANONYMOUS: KString = KString::from_static("ANONYMOUS");
/// First version of CreateDelegationToken that names who asks.
const NAMES_REQUESTER: i16 = 3;
const NO_TOKENS: ErrorCode = ErrorCode::DelegationTokenRequestNotAllowed;

pub(crate) async fn describe_acls(_: Arc<Broker>, _: RequestContext, _: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER),
        ..DescribeAclsResponse::default()
    }
}

pub(crate) async fn create_acls(_: Arc<Broker>, _: RequestContext, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused = request.creations.iter().map(|_| AclCreationResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER),
    });
    CreateAclsResponse {
        throttle_time_ms: 0,
        results: refused.collect(),
    }
}

pub(crate) async fn delete_acls(_: Arc<Broker>, _: RequestContext, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused = request.filters.iter().map(|_| DeleteAclsFilterResult {
        error_code: ErrorCode::SecurityDisabled.code(),
        error_message: Some(NO_AUTHORIZER),
        matching_acls: Vec::new(),
    });
    DeleteAclsResponse {
        throttle_time_ms: 0,
        filter_results: refused.collect(),
    }
}

pub(crate) async fn sasl_handshake(_: Arc<Broker>, _: RequestContext, _: SaslHandshakeRequest) -> SaslHandshakeResponse {
    SaslHandshakeResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        mechanisms: Vec::new(),
    }
}

pub(crate) async fn sasl_authenticate(_: Arc<Broker>, _: RequestContext, _: SaslAuthenticateRequest) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse {
        error_code: ErrorCode::IllegalSaslState.code(),
        error_message: Some(KString::from_static("This listener does not use SASL.")),
        ..SaslAuthenticateResponse::default()
    }
}

pub(crate) async fn describe_scram(
    _: Arc<Broker>,
    _: RequestContext,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let unknown = request
        .users
        .unwrap_or_default()
        .into_iter()
        .map(|user| DescribeUserScramCredentialsResult {
            error_code: ErrorCode::ResourceNotFound.code(),
            error_message: Some(format!("Attempt to describe a user credential that does not exist: {}", user.name).into()),
            user: user.name,
            credential_infos: Vec::new(),
        });
    DescribeUserScramCredentialsResponse {
        results: unknown.collect(),
        ..DescribeUserScramCredentialsResponse::default()
    }
}

pub(crate) async fn alter_scram(
    _: Arc<Broker>,
    _: RequestContext,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let refused = |user: KString, code: ErrorCode, message: &'static str| AlterUserScramCredentialsResult {
        user,
        error_code: code.code(),
        error_message: Some(KString::from_static(message)),
    };
    let deletions = request.deletions.into_iter().map(|deletion| {
        let message = "Attempt to delete a user credential that does not exist";
        refused(deletion.name, ErrorCode::ResourceNotFound, message)
    });
    let upsertions = request.upsertions.into_iter().map(|upsertion| {
        let message = "Credentials cannot be stored: this cluster has no SASL listener.";
        refused(upsertion.name, ErrorCode::SecurityDisabled, message)
    });
    AlterUserScramCredentialsResponse {
        throttle_time_ms: 0,
        results: deletions.chain(upsertions).collect(),
    }
}

pub(crate) async fn create_token(
    _: Arc<Broker>,
    context: RequestContext,
    _: CreateDelegationTokenRequest,
) -> CreateDelegationTokenResponse {
    CreateDelegationTokenResponse {
        error_code: NO_TOKENS.code(),
        principal_type: USER,
        principal_name: ANONYMOUS,
        token_requester_principal_type: if context.version >= NAMES_REQUESTER {
            USER
        } else {
            KString::default()
        },
        token_requester_principal_name: if context.version >= NAMES_REQUESTER {
            ANONYMOUS
        } else {
            KString::default()
        },
        issue_timestamp_ms: -1,
        expiry_timestamp_ms: -1,
        max_timestamp_ms: -1,
        ..CreateDelegationTokenResponse::default()
    }
}

pub(crate) async fn renew_token(_: Arc<Broker>, _: RequestContext, _: RenewDelegationTokenRequest) -> RenewDelegationTokenResponse {
    RenewDelegationTokenResponse {
        error_code: NO_TOKENS.code(),
        expiry_timestamp_ms: -1,
        throttle_time_ms: 0,
    }
}

pub(crate) async fn expire_token(_: Arc<Broker>, _: RequestContext, _: ExpireDelegationTokenRequest) -> ExpireDelegationTokenResponse {
    ExpireDelegationTokenResponse {
        error_code: NO_TOKENS.code(),
        expiry_timestamp_ms: -1,
        throttle_time_ms: 0,
    }
}

pub(crate) async fn describe_token(
    _: Arc<Broker>,
    _: RequestContext,
    _: DescribeDelegationTokenRequest,
) -> DescribeDelegationTokenResponse {
    DescribeDelegationTokenResponse {
        error_code: NO_TOKENS.code(),
        ..DescribeDelegationTokenResponse::default()
    }
}
