//! Who may come in, and what of that the broker keeps itself. Called by SASL and by the request files.
//!
//! [`Access`] holds what administrators change while the broker runs: SCRAM credentials, and rules (`acl/<rule as JSON>`). A change is
//! a record of the catalogue, durable before anybody is judged by it. It must never show a secret, nor tell a user that there is from one that there is not.

mod acl;
mod bearer;
mod credentials;
mod names;
mod rules;
mod scram;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairn_clock::Entropy;
use parking_lot::RwLock;

pub(crate) use acl::{Acl, CLUSTER, Effect, Filter, Kind, Names, Operation, Pattern};
pub use bearer::{Bearer, Tokens};
use credentials::Record;
pub use names::NameRule;

pub(crate) use bearer::{REFUSAL, read as read_bearer};
pub(crate) use credentials::{Change, ChangeError, Credentials, NewCredential};
pub(crate) use names::of_certificate;
pub(crate) use rules::{Asker, Rules};
pub(crate) use scram::{Exchange, Mechanism, NONCE_BYTES};

use crate::{
    options::Authorization,
    topics::{Catalogue, CatalogueError},
};

/// Rules in all.
const ACLS_MAX: usize = 10_000;
/// What the key of a rule's record begins with; the rule itself as JSON follows, and the value says nothing.
const ACL_PREFIX: &str = "acl/";

/// Why rules are not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AclError {
    #[error("there are no rules here")]
    Off,
    #[error("there would be more than {ACLS_MAX} rules: delete some, or name many things by a prefix")]
    Full,
    #[error("the catalogue cannot be written: {reason}")]
    Storage { reason: String },
}

/// What administrators change while the broker runs.
#[derive(Debug)]
pub(crate) struct Access {
    credentials: RwLock<Arc<Credentials>>,
    /// None where there are none to be.
    rules: Option<RwLock<Arc<Rules>>>,
    /// Held while a change is made durable, so that changes have one order.
    changing: tokio::sync::Mutex<()>,
}

impl Access {
    /// Reads back what the catalogue kept for it.
    pub(crate) async fn open(
        topics: &Catalogue,
        authorization: Authorization,
        entropy: &Entropy,
    ) -> Result<Self, CatalogueError> {
        let kept = topics.take_access();
        let (credentials, begun) = Credentials::restore(&kept, entropy)?;
        if let Some(record) = begun {
            topics.record(vec![record]).await?;
        }
        let rules = match authorization {
            Authorization::Open => None,
            Authorization::Rules { everyone_if_none } => {
                let mut all = BTreeSet::new();
                for key in kept.keys() {
                    let Some(written) = key.strip_prefix(ACL_PREFIX) else { continue };
                    let acl = serde_json::from_str(written);
                    all.insert(acl.map_err(|source| CatalogueError::Record { key: key.clone(), source })?);
                }
                Some(RwLock::new(Arc::new(Rules::new(all, everyone_if_none))))
            }
        };
        let credentials = RwLock::new(Arc::new(credentials));
        Ok(Self { credentials, rules, changing: tokio::sync::Mutex::default() })
    }

    /// The rules as they are now; none where everybody may do everything.
    pub(crate) fn rules(&self) -> Option<Arc<Rules>> {
        self.rules.as_ref().map(|rules| Arc::clone(&rules.read()))
    }

    /// Adds rules; those that there are already are not there twice.
    pub(crate) async fn create_acls(&self, topics: &Catalogue, wanted: Vec<Acl>) -> Result<(), AclError> {
        self.change_acls(topics, |all| {
            let records = wanted.iter().filter(|acl| !all.contains(*acl)).map(|acl| record(acl, true)).collect();
            all.extend(wanted);
            if all.len() > ACLS_MAX { Err(AclError::Full) } else { Ok((records, ())) }
        })
        .await
    }

    /// Takes away the rules that a filter selects, and says which.
    pub(crate) async fn delete_acls(&self, topics: &Catalogue, filter: &Filter) -> Result<Vec<Acl>, AclError> {
        self.change_acls(topics, |all| {
            let gone: Vec<Acl> = all.iter().filter(|acl| filter.selects(acl)).cloned().collect();
            all.retain(|acl| !filter.selects(acl));
            Ok((gone.iter().map(|acl| record(acl, false)).collect(), gone))
        })
        .await
    }

    /// Changes the rules: what is to be kept is durable before anybody is judged by it.
    async fn change_acls<T>(
        &self,
        topics: &Catalogue,
        change: impl FnOnce(&mut BTreeSet<Acl>) -> Result<(Vec<Record>, T), AclError>,
    ) -> Result<T, AclError> {
        let rules = self.rules.as_ref().ok_or(AclError::Off)?;
        let _one_at_a_time = self.changing.lock().await;
        let now = Arc::clone(&rules.read());
        let mut all = now.all().clone();
        let (records, result) = change(&mut all)?;
        if !records.is_empty() {
            let kept = topics.record(records).await;
            kept.map_err(|error| AclError::Storage { reason: error.to_string() })?;
            *rules.write() = Arc::new(now.with(all));
        }
        Ok(result)
    }

    /// The SCRAM credentials as they are now.
    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.credentials.read())
    }

    /// Changes SCRAM credentials, as AlterUserScramCredentials does: all that is asked for one user, or nothing of it.
    pub(crate) async fn alter_credentials(
        &self,
        topics: &Catalogue,
        changes: Vec<Change>,
    ) -> BTreeMap<String, Result<(), ChangeError>> {
        let _one_at_a_time = self.changing.lock().await;
        let mut credentials = Credentials::clone(&self.credentials());
        let (mut results, records) = credentials.change(changes);
        if records.is_empty() {
            return results;
        }
        match topics.record(records).await {
            Ok(()) => *self.credentials.write() = Arc::new(credentials),
            Err(error) => {
                let failed = || Err(ChangeError::Storage { reason: error.to_string() });
                results.values_mut().filter(|result| result.is_ok()).for_each(|result| *result = failed());
            }
        }
        results
    }
}

fn record(acl: &Acl, is_there: bool) -> Record {
    let written = serde_json::to_string(acl).expect("a rule has string keys only");
    (format!("{ACL_PREFIX}{written}"), is_there.then(|| b"{}".to_vec()))
}
