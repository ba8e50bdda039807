//! DescribeClientQuotas and AlterClientQuotas.

use std::{collections::BTreeSet, sync::Arc};

use millstream_core::{
    metadata::controller::{self, AlterQuotas},
    quota::{CLIENT_ID, IP, QuotaEntity, QuotaValues, USER},
};
use millstream_protocol::{
    ErrorCode, KString,
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        alter_client_quotas_request, alter_client_quotas_response,
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData, ValueData},
    },
};

use super::decisions::{decide_each, verdict};
use crate::{broker::Broker, context::RequestContext};

const MATCH_EXACT: i8 = 0;
const MATCH_DEFAULT: i8 = 1;
const MATCH_SPECIFIED: i8 = 2;

pub(crate) async fn describe(
    broker: Arc<Broker>,
    _context: RequestContext,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    if let Err((error, message)) = check(&request.components) {
        return DescribeClientQuotasResponse {
            error_code: error.code(),
            error_message: Some(KString::from_static(message)),
            entries: None,
            ..DescribeClientQuotasResponse::default()
        };
    }
    let image = broker.metadata.image();
    let matching = image
        .client_quotas
        .iter()
        .filter(|(entity, _)| matches(entity, &request.components, request.strict));
    DescribeClientQuotasResponse {
        entries: Some(matching.map(entry).collect()),
        ..DescribeClientQuotasResponse::default()
    }
}

/// Whether the filter makes sense; of several mistakes the first component's is told.
fn check(components: &[ComponentData]) -> Result<(), (ErrorCode, &'static str)> {
    let mut kinds = BTreeSet::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if kind.is_empty() {
            return Err((ErrorCode::InvalidRequest, "Unexpected empty entity type."));
        }
        if !kinds.insert(kind) {
            return Err((ErrorCode::InvalidRequest, "An entity type appears twice."));
        }
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            return Err((ErrorCode::UnsupportedVersion, "Unsupported entity type."));
        }
        let goes_together = match component.match_type {
            MATCH_EXACT => component.match_.is_some(),
            MATCH_DEFAULT | MATCH_SPECIFIED => component.match_.is_none(),
            _ => false,
        };
        if !goes_together {
            return Err((ErrorCode::InvalidRequest, "A match type does not go with its match."));
        }
    }
    if kinds.contains(IP) && kinds.len() > 1 {
        let message = "An address cannot be matched together with a user or a client id.";
        return Err((ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

fn matches(entity: &QuotaEntity, components: &[ComponentData], strict: bool) -> bool {
    let holds = |component: &ComponentData| match entity.0.get(component.entity_type.as_str()) {
        None => false,
        Some(name) => match component.match_type {
            MATCH_EXACT => name.as_deref() == component.match_.as_deref(),
            MATCH_DEFAULT => name.is_none(),
            _ => true,
        },
    };
    components.iter().all(holds) && (!strict || entity.0.len() == components.len())
}

fn entry((entity, values): (&QuotaEntity, &QuotaValues)) -> EntryData {
    let parts = entity.0.iter().map(|(kind, name)| EntityData {
        entity_type: kind.as_str().into(),
        entity_name: name.as_deref().map(KString::from),
    });
    let values = values.iter().map(|(key, value)| ValueData {
        key: key.as_str().into(),
        value: value.parse().unwrap_or(0.0),
    });
    EntryData {
        entity: parts.collect(),
        values: values.collect(),
    }
}

pub(crate) async fn alter(broker: Arc<Broker>, _context: RequestContext, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let named: Vec<_> = request.entries.iter().map(|entry| entry.entity.clone()).collect();
    let items: Vec<AlterQuotas> = request.entries.into_iter().map(to_core).collect();
    let validate_only = request.validate_only;
    let outcomes = decide_each(&broker, items.len(), move |context| {
        controller::alter_client_quotas(context, &items, validate_only)
    })
    .await;
    let entries = named.into_iter().zip(outcomes).map(|(entity, outcome)| {
        let (error_code, error_message) = verdict(&outcome);
        let entity = entity.into_iter().map(|part| alter_client_quotas_response::EntityData {
            entity_type: part.entity_type,
            entity_name: part.entity_name,
        });
        alter_client_quotas_response::EntryData {
            error_code,
            error_message,
            entity: entity.collect(),
        }
    });
    AlterClientQuotasResponse {
        throttle_time_ms: 0,
        entries: entries.collect(),
    }
}

fn to_core(entry: alter_client_quotas_request::EntryData) -> AlterQuotas {
    let parts = entry.entity.into_iter();
    let parts = parts.map(|part| (String::from(part.entity_type), part.entity_name.map(String::from)));
    let changes = entry.ops.into_iter().map(|op| (op.key.into(), (!op.remove).then_some(op.value)));
    AlterQuotas {
        entity: QuotaEntity(parts.collect()),
        changes: changes.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_by_name_default_and_presence() {
        let component = |kind: &str, match_type: i8, name: Option<&str>| ComponentData {
            entity_type: kind.into(),
            match_type,
            match_: name.map(KString::from),
        };
        let entity = QuotaEntity::of(&[(USER, Some("u")), (CLIENT_ID, None)]);
        assert!(matches(&entity, &[], false));
        assert!(!matches(&entity, &[], true));
        assert!(matches(&entity, &[component(USER, MATCH_EXACT, Some("u"))], false));
        assert!(!matches(&entity, &[component(USER, MATCH_EXACT, Some("u"))], true));
        assert!(!matches(&entity, &[component(USER, MATCH_EXACT, Some("v"))], false));
        assert!(matches(
            &entity,
            &[component(CLIENT_ID, MATCH_DEFAULT, None), component(USER, MATCH_SPECIFIED, None)],
            true
        ));
        assert!(!matches(&entity, &[component("ip", MATCH_SPECIFIED, None)], false));
    }
}
