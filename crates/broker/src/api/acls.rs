//! DescribeAcls, CreateAcls and DeleteAcls: Kafka's numbers to rules and back.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateAclsRequest, CreateAclsResponse, DeleteAclsRequest, DeleteAclsResponse, DescribeAclsRequest,
        DescribeAclsResponse,
        create_acls_request::AclCreation,
        create_acls_response::AclCreationResult,
        delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl},
        describe_acls_response::{AclDescription, DescribeAclsResource},
    },
    protocol::StrBytes,
};

use super::{codes, reason, text};
use crate::{
    access::{Acl, AclError, CLUSTER, Effect, Filter, Kind, Names, Operation, Pattern},
    broker::Broker,
};

/// In a filter: whatever there is.
const ANY: i8 = 1;
/// In a filter's pattern: whatever rule covers the name.
const COVERING: i8 = 2;
/// Bytes of a name, a principal or a host.
const TEXT_BYTES_MAX: usize = 1_024;

const OFF: &str = "there are no access rules here: set authorization = \"acl\" in the broker's configuration";

fn off() -> i16 {
    ResponseError::SecurityDisabled.code()
}

/// What a filter says with Kafka's numbers and names.
struct Wire {
    kind: i8,
    name: Option<StrBytes>,
    pattern: i8,
    principal: Option<StrBytes>,
    host: Option<StrBytes>,
    operation: i8,
    effect: i8,
}

impl Wire {
    fn filter(self) -> Result<Filter, String> {
        let text = |text: Option<StrBytes>| text.map(|text| text.to_string());
        let names = match self.pattern {
            ANY => Names::Exactly(None),
            COVERING => Names::Covering,
            code => Names::Exactly(Some(known("pattern type", code, Pattern::of_code)?)),
        };
        Ok(Filter {
            kind: any("resource type", self.kind, Kind::of_code)?,
            names,
            name: text(self.name),
            principal: text(self.principal),
            host: text(self.host),
            operation: any("operation", self.operation, Operation::of_code)?,
            effect: any("permission type", self.effect, Effect::of_code)?,
        })
    }
}

fn known<T>(what: &str, code: i8, of_code: impl Fn(i8) -> Option<T>) -> Result<T, String> {
    of_code(code).ok_or_else(|| format!("{what} {code} is not one that a rule can have"))
}

fn any<T>(what: &str, code: i8, of_code: impl Fn(i8) -> Option<T>) -> Result<Option<T>, String> {
    if code == ANY { Ok(None) } else { known(what, code, of_code).map(Some) }
}

/// A rule that can be one.
fn rule(wanted: &AclCreation) -> Result<Acl, String> {
    let kind = known("resource type", wanted.resource_type, Kind::of_code)?;
    let (name, principal, host) = (&wanted.resource_name, &wanted.principal, &wanted.host);
    let is_user = principal.strip_prefix("User:").is_some_and(|user| !user.is_empty());
    if !is_user {
        return Err(format!("principal `{principal:.64}` is not `User:` and a name"));
    }
    if name.is_empty() || host.is_empty() {
        return Err("a rule names a resource and a host; `*` means any".to_owned());
    }
    if [name, principal, host].iter().any(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(format!("a name, a principal and a host have at most {TEXT_BYTES_MAX} bytes each"));
    }
    if kind == Kind::Cluster && &**name != CLUSTER {
        return Err(format!("the cluster's only name is `{CLUSTER}`"));
    }
    Ok(Acl {
        kind,
        pattern: known("pattern type", wanted.resource_pattern_type, Pattern::of_code)?,
        name: name.to_string(),
        principal: principal.to_string(),
        host: host.to_string(),
        operation: known("operation", wanted.operation, Operation::of_code)?,
        effect: known("permission type", wanted.permission_type, Effect::of_code)?,
    })
}

pub(super) async fn describe(broker: &Broker, request: DescribeAclsRequest) -> DescribeAclsResponse {
    let response = DescribeAclsResponse::default();
    let Some(rules) = broker.inner.access.rules() else {
        return response.with_error_code(off()).with_error_message(Some(reason(OFF)));
    };
    let wire = Wire {
        kind: request.resource_type_filter,
        name: request.resource_name_filter,
        pattern: request.pattern_type_filter,
        principal: request.principal_filter,
        host: request.host_filter,
        operation: request.operation,
        effect: request.permission_type,
    };
    let filter = match wire.filter() {
        Ok(filter) => filter,
        Err(why) => {
            let code = ResponseError::InvalidRequest.code();
            return response.with_error_code(code).with_error_message(Some(reason(why)));
        }
    };
    let mut resources: BTreeMap<(i8, &str, i8), Vec<AclDescription>> = BTreeMap::new();
    for acl in rules.selected(&filter) {
        let told = AclDescription::default()
            .with_principal(text(acl.principal.clone()))
            .with_host(text(acl.host.clone()))
            .with_operation(acl.operation.code())
            .with_permission_type(acl.effect.code());
        resources.entry((acl.kind.code(), &acl.name, acl.pattern.code())).or_default().push(told);
    }
    let resources = resources.into_iter().map(|((kind, name, pattern), acls)| {
        let resource = DescribeAclsResource::default().with_resource_type(kind).with_resource_name(text(name));
        resource.with_pattern_type(pattern).with_acls(acls)
    });
    response.with_error_message(None).with_resources(resources.collect())
}

pub(super) async fn create(broker: &Broker, request: CreateAclsRequest) -> CreateAclsResponse {
    let told = |code: i16, why: String| {
        AclCreationResult::default().with_error_code(code).with_error_message(Some(reason(why)))
    };
    let mut wanted = Vec::new();
    let mut results: Vec<Option<AclCreationResult>> = Vec::new();
    for creation in &request.creations {
        results.push(match rule(creation) {
            Ok(acl) => {
                wanted.push(acl);
                None
            }
            Err(why) => Some(told(ResponseError::InvalidRequest.code(), why)),
        });
    }
    let created = broker.inner.access.create_acls(&broker.inner.topics, wanted).await;
    let of_right = match created {
        Ok(()) => AclCreationResult::default().with_error_message(None),
        Err(AclError::Off) => told(off(), OFF.to_owned()),
        Err(error) => told(codes::of_acl(&error), error.to_string()),
    };
    let results = results.into_iter().map(|refused| refused.unwrap_or_else(|| of_right.clone()));
    CreateAclsResponse::default().with_results(results.collect())
}

pub(super) async fn delete(broker: &Broker, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let mut results = Vec::new();
    for filter in request.filters {
        let wire = Wire {
            kind: filter.resource_type_filter,
            name: filter.resource_name_filter,
            pattern: filter.pattern_type_filter,
            principal: filter.principal_filter,
            host: filter.host_filter,
            operation: filter.operation,
            effect: filter.permission_type,
        };
        let refused = |code: i16, why: String| {
            DeleteAclsFilterResult::default().with_error_code(code).with_error_message(Some(reason(why)))
        };
        results.push(match wire.filter() {
            Err(why) => refused(ResponseError::InvalidRequest.code(), why),
            Ok(filter) => match broker.inner.access.delete_acls(&broker.inner.topics, &filter).await {
                Ok(gone) => {
                    let gone = gone.into_iter().map(matching).collect();
                    DeleteAclsFilterResult::default().with_error_message(None).with_matching_acls(gone)
                }
                Err(AclError::Off) => refused(off(), OFF.to_owned()),
                Err(error) => refused(codes::of_acl(&error), error.to_string()),
            },
        });
    }
    DeleteAclsResponse::default().with_filter_results(results)
}

fn matching(acl: Acl) -> DeleteAclsMatchingAcl {
    DeleteAclsMatchingAcl::default()
        .with_error_message(None)
        .with_resource_type(acl.kind.code())
        .with_resource_name(text(acl.name))
        .with_pattern_type(acl.pattern.code())
        .with_principal(text(acl.principal))
        .with_host(text(acl.host))
        .with_operation(acl.operation.code())
        .with_permission_type(acl.effect.code())
}
