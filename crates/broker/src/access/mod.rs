//! Who may come in, and what of that the broker keeps itself. Called by SASL and by the request files.
//!
//! [`Access`] holds what administrators change while the broker runs. A change is a record of the catalogue, durable before
//! anybody is judged by it. It must never show a secret, nor tell a user that there is from one that there is not.

mod credentials;
mod scram;

use std::{collections::BTreeMap, sync::Arc};

use cairn_clock::Entropy;
use parking_lot::RwLock;

pub(crate) use credentials::{Change, ChangeError, Credentials, NewCredential};
pub(crate) use scram::{Exchange, Mechanism, NONCE_BYTES};

use crate::topics::{Catalogue, CatalogueError};

/// What administrators change while the broker runs.
#[derive(Debug)]
pub(crate) struct Access {
    credentials: RwLock<Arc<Credentials>>,
    /// Held while a change is made durable, so that changes have one order.
    changing: tokio::sync::Mutex<()>,
}

impl Access {
    /// Reads back what the catalogue kept for it.
    pub(crate) async fn open(topics: &Catalogue, entropy: &Entropy) -> Result<Self, CatalogueError> {
        let kept = topics.take_access();
        let (credentials, begun) = Credentials::restore(&kept, entropy)?;
        if let Some(record) = begun {
            topics.record(vec![record]).await?;
        }
        Ok(Self { credentials: RwLock::new(Arc::new(credentials)), changing: tokio::sync::Mutex::default() })
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
