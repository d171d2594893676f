//! DescribeUserScramCredentials and AlterUserScramCredentials (KIP-554): what is kept of the users' passwords. Nobody is told more
//! than mechanisms and iterations.

use std::collections::HashMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse, DescribeUserScramCredentialsRequest,
        DescribeUserScramCredentialsResponse,
        alter_user_scram_credentials_response::AlterUserScramCredentialsResult,
        describe_user_scram_credentials_response::{CredentialInfo, DescribeUserScramCredentialsResult},
    },
};

use super::{codes, reason, text};
use crate::{
    access::{Change, Mechanism, NewCredential},
    broker::Broker,
};

pub(super) async fn describe(
    broker: &Broker,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let response = DescribeUserScramCredentialsResponse::default();
    let credentials = broker.inner.access.credentials();
    let users = credentials.users();
    let told = |user: &str, credentials: &[(Mechanism, u32)]| {
        let infos = credentials.iter().map(|(mechanism, iterations)| {
            let iterations = i32::try_from(*iterations).unwrap_or(i32::MAX);
            CredentialInfo::default().with_mechanism(mechanism.code()).with_iterations(iterations)
        });
        let result = DescribeUserScramCredentialsResult::default().with_user(text(user));
        result.with_error_message(None).with_credential_infos(infos.collect())
    };
    // None, and an empty list too, asks for all.
    let Some(asked) = request.users.filter(|asked| !asked.is_empty()) else {
        return response
            .with_error_message(None)
            .with_results(users.iter().map(|(user, all)| told(user, all)).collect());
    };
    let mut times: HashMap<String, usize> = HashMap::new();
    asked.iter().for_each(|user| *times.entry(user.name.to_string()).or_default() += 1);
    let results = times.into_iter().map(|(user, times)| {
        let refused = |code: ResponseError, why: &str| {
            let result = DescribeUserScramCredentialsResult::default().with_user(text(user.clone()));
            result.with_error_code(code.code()).with_error_message(Some(reason(why)))
        };
        match users.get(user.as_str()) {
            _ if times > 1 => refused(ResponseError::DuplicateResource, "the user is named twice in one request"),
            Some(credentials) => told(&user, credentials),
            None => refused(ResponseError::ResourceNotFound, "the user has no SCRAM credential"),
        }
    });
    response.with_error_message(None).with_results(results.collect())
}

pub(super) async fn alter(
    broker: &Broker,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let upserted = request.upsertions.into_iter().map(|one| Change {
        user: one.name.to_string(),
        mechanism: one.mechanism,
        set: Some(NewCredential { iterations: one.iterations, salt: one.salt, salted_password: one.salted_password }),
    });
    let deleted = request.deletions.into_iter();
    let deleted = deleted.map(|one| Change { user: one.name.to_string(), mechanism: one.mechanism, set: None });
    let changes: Vec<Change> = upserted.chain(deleted).collect();
    let result = |user: &str| AlterUserScramCredentialsResult::default().with_user(text(user)).with_error_message(None);
    let altered = broker.inner.access.alter_credentials(&broker.inner.topics, changes).await;
    let results = altered.iter().map(|(user, altered)| match altered {
        Ok(()) => result(user),
        Err(error) => {
            let result = result(user).with_error_code(codes::of_credential(error));
            result.with_error_message(Some(reason(error.to_string())))
        }
    });
    AlterUserScramCredentialsResponse::default().with_results(results.collect())
}
