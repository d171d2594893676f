//! What may be done to the cluster as a whole: configs, users, rules, quotas.

use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, CreateAclsRequest, CreateAclsResponse,
    DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest, DescribeAclsResponse, DescribeClientQuotasRequest,
    DescribeClientQuotasResponse, DescribeClusterRequest, DescribeClusterResponse, DescribeConfigsRequest,
    DescribeConfigsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeUserScramCredentialsRequest,
    DescribeUserScramCredentialsResponse, GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListConfigResourcesRequest,
    ListConfigResourcesResponse, PushTelemetryRequest, PushTelemetryResponse,
    alter_client_quotas_response::{EntityData, EntryData},
    alter_configs_request::AlterConfigsResource,
    alter_configs_response::AlterConfigsResourceResponse,
    alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
    create_acls_response::AclCreationResult,
    delete_acls_response::DeleteAclsFilterResult,
    describe_configs_request::DescribeConfigsResource,
    describe_configs_response::DescribeConfigsResult,
    incremental_alter_configs_request::AlterConfigsResource as IncrementalResource,
    incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse,
};

use super::{CLUSTER_DENIED, GROUP_DENIED, Gate, Guarded, TOPIC_DENIED, Verdict, WHY, listed, whole};
use crate::{access::Operation, api::reason};

/// Kinds of resources that have configs, as Kafka numbers them; others are the cluster's.
const TOPIC: i8 = 2;
const GROUP: i8 = 32;

impl Gate<'_> {
    fn configs(&self, operation: Operation, kind: i8, name: &str) -> bool {
        match kind {
            TOPIC => self.topic(operation, name),
            GROUP => self.group(operation, name),
            _ => self.cluster(operation),
        }
    }
}

const fn configs_denied(kind: i8) -> i16 {
    match kind {
        TOPIC => TOPIC_DENIED,
        GROUP => GROUP_DENIED,
        _ => CLUSTER_DENIED,
    }
}

listed!(
    DescribeConfigsRequest => DescribeConfigsResponse { resources => results: DescribeConfigsResult },
    |gate: &Gate<'_>, one: &DescribeConfigsResource| {
        gate.configs(Operation::DescribeConfigs, one.resource_type, &one.resource_name)
    },
    |one: DescribeConfigsResource| {
        let told = DescribeConfigsResult::default().with_error_code(configs_denied(one.resource_type));
        let told = told.with_resource_type(one.resource_type).with_resource_name(one.resource_name);
        told.with_error_message(Some(reason(WHY)))
    }
);

listed!(
    AlterConfigsRequest => AlterConfigsResponse { resources => responses: AlterConfigsResourceResponse },
    |gate: &Gate<'_>, one: &AlterConfigsResource| {
        gate.configs(Operation::AlterConfigs, one.resource_type, &one.resource_name)
    },
    |one: AlterConfigsResource| {
        let told = AlterConfigsResourceResponse::default().with_error_code(configs_denied(one.resource_type));
        let told = told.with_resource_type(one.resource_type).with_resource_name(one.resource_name);
        told.with_error_message(Some(reason(WHY)))
    }
);

listed!(
    IncrementalAlterConfigsRequest => IncrementalAlterConfigsResponse { resources => responses: IncrementalResponse },
    |gate: &Gate<'_>, one: &IncrementalResource| {
        gate.configs(Operation::AlterConfigs, one.resource_type, &one.resource_name)
    },
    |one: IncrementalResource| {
        let told = IncrementalResponse::default().with_error_code(configs_denied(one.resource_type));
        let told = told.with_resource_type(one.resource_type).with_resource_name(one.resource_name);
        told.with_error_message(Some(reason(WHY)))
    }
);

whole!(
    ListConfigResourcesRequest => ListConfigResourcesResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::DescribeConfigs),
    |_, _| ListConfigResourcesResponse::default().with_error_code(CLUSTER_DENIED)
);

impl Guarded for DescribeClusterRequest {
    type Answer = DescribeClusterResponse;
    type Kept = bool;

    fn guard(self, _gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let tell_operations = self.include_cluster_authorized_operations;
        Verdict::Some(self, tell_operations)
    }

    fn complete(gate: &Gate<'_>, tell_operations: Self::Kept, answer: &mut Self::Answer) {
        if tell_operations && answer.error_code == 0 {
            answer.cluster_authorized_operations = gate.cluster_operations();
        }
    }
}

impl Guarded for DescribeLogDirsRequest {
    type Answer = DescribeLogDirsResponse;
    type Kept = ();

    /// No place is closed to new partitions (KIP-1066).
    fn newer(answer: &Self::Answer) -> Vec<u8> {
        vec![0; answer.results.len()]
    }

    fn guard(self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        if gate.cluster(Operation::Describe) {
            return Verdict::Some(self, ());
        }
        // Older versions have no code of their own: an empty answer is theirs.
        let code = if version >= 3 { CLUSTER_DENIED } else { 0 };
        Verdict::None(DescribeLogDirsResponse::default().with_error_code(code))
    }
}

whole!(
    DescribeUserScramCredentialsRequest => DescribeUserScramCredentialsResponse,
    |gate: &Gate<'_>, _: &_| gate.administers(Operation::Describe),
    |_, _| {
        let told = DescribeUserScramCredentialsResponse::default().with_error_code(CLUSTER_DENIED);
        told.with_error_message(Some(reason(WHY)))
    }
);

whole!(
    AlterUserScramCredentialsRequest => AlterUserScramCredentialsResponse,
    |gate: &Gate<'_>, _: &_| gate.administers(Operation::Alter),
    |request: AlterUserScramCredentialsRequest, _| {
        let mut users: Vec<_> = request.upsertions.into_iter().map(|one| one.name).collect();
        users.extend(request.deletions.into_iter().map(|one| one.name));
        users.sort_unstable();
        users.dedup();
        let told = users.into_iter().map(|user| {
            let told = AlterUserScramCredentialsResult::default().with_user(user).with_error_code(CLUSTER_DENIED);
            told.with_error_message(Some(reason(WHY)))
        });
        AlterUserScramCredentialsResponse::default().with_results(told.collect())
    }
);

whole!(
    DescribeAclsRequest => DescribeAclsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Describe),
    |_, _| DescribeAclsResponse::default().with_error_code(CLUSTER_DENIED).with_error_message(Some(reason(WHY)))
);

whole!(
    CreateAclsRequest => CreateAclsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Alter),
    |request: CreateAclsRequest, _| {
        let told = AclCreationResult::default().with_error_code(CLUSTER_DENIED).with_error_message(Some(reason(WHY)));
        CreateAclsResponse::default().with_results(vec![told; request.creations.len()])
    }
);

whole!(
    DeleteAclsRequest => DeleteAclsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Alter),
    |request: DeleteAclsRequest, _| {
        let told = DeleteAclsFilterResult::default().with_error_code(CLUSTER_DENIED);
        let told = told.with_error_message(Some(reason(WHY)));
        DeleteAclsResponse::default().with_filter_results(vec![told; request.filters.len()])
    }
);

whole!(
    DescribeClientQuotasRequest => DescribeClientQuotasResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::DescribeConfigs),
    |_, _| {
        let told = DescribeClientQuotasResponse::default().with_error_code(CLUSTER_DENIED).with_entries(None);
        told.with_error_message(Some(reason(WHY)))
    }
);

whole!(
    AlterClientQuotasRequest => AlterClientQuotasResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::AlterConfigs),
    |request: AlterClientQuotasRequest, _| {
        let told = request.entries.into_iter().map(|entry| {
            let entity = entry.entity.into_iter().map(|part| {
                EntityData::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name)
            });
            let told = EntryData::default().with_entity(entity.collect()).with_error_code(CLUSTER_DENIED);
            told.with_error_message(Some(reason(WHY)))
        });
        AlterClientQuotasResponse::default().with_entries(told.collect())
    }
);

// What a client tells of itself touches nothing of others.
whole!(
    GetTelemetrySubscriptionsRequest => GetTelemetrySubscriptionsResponse,
    |_: &Gate<'_>, _: &_| true,
    |_, _| GetTelemetrySubscriptionsResponse::default()
);
whole!(
    PushTelemetryRequest => PushTelemetryResponse,
    |_: &Gate<'_>, _: &_| true,
    |_, _| PushTelemetryResponse::default()
);
