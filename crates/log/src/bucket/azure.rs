//! Containers of Azure Blob Storage.
//!
//! The head is replaced by a Put Blob with `If-Match`; objects are created with `If-None-Match: *`.

use std::fmt;

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::{BucketStore, Service, Versions, connector, is_url, refused, request_options};
use crate::StoreError;

pub(super) const SERVICE: Service = Service {
    versions: Versions::Tag,
    stranger: "\"0x8000000000000000\"",
    conditions: "If-None-Match and If-Match",
    heeded_by: "Azure Blob Storage",
    whereabouts: "endpoint and account are",
    keys: "account and account_key or sas_token in [store], or AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, \
           AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID with AZURE_TENANT_ID and AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE",
    holder: "container",
    no_holder: "ContainerNotFound",
};

/// Where the container is, and who asks.
#[derive(Clone, Default)]
pub struct AzureOptions {
    /// Container.
    pub container: String,
    /// Names begin with this and a `/`; empty for the whole container.
    pub prefix: String,
    /// Storage account; none takes `AZURE_STORAGE_ACCOUNT_NAME`.
    pub account: Option<String>,
    /// URL of the account's blob service; none is Azure's.
    pub endpoint: Option<String>,
    /// The account's key; with neither this nor a token what the environment names: key, token, service principal, workload
    /// identity; else the machine's managed identity.
    pub account_key: Option<String>,
    /// A shared access signature.
    pub sas_token: Option<String>,
}

impl fmt::Debug for AzureOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, prefix, account, endpoint, .. } = self;
        f.debug_struct("AzureOptions")
            .field("container", container)
            .field("prefix", prefix)
            .field("account", account)
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

impl BucketStore {
    /// A store in a container of Azure Blob Storage.
    ///
    /// # Errors
    /// Where the options cannot be used.
    pub fn azure(options: &AzureOptions) -> Result<Self, StoreError> {
        is_url(options.endpoint.as_deref())?;
        let (client, retry) = request_options(options.endpoint.as_deref());
        let from_env = MicrosoftAzureBuilder::from_env();
        let account = options.account.clone().or_else(|| from_env.get_config_value(&AzureConfigKey::AccountName));
        let Some(account) = account.filter(|account| !account.is_empty()) else {
            return refused("there is no storage account: set account in [store], or AZURE_STORAGE_ACCOUNT_NAME");
        };
        // What is given stands alone: object_store would prefer some of what the environment may name.
        let builder = match (&options.account_key, &options.sas_token) {
            (Some(_), Some(_)) => return refused("account_key and sas_token are two ways in: give one of them"),
            (Some(key), None) => MicrosoftAzureBuilder::new().with_access_key(key),
            (None, Some(token)) => MicrosoftAzureBuilder::new().with_config(AzureConfigKey::SasKey, token),
            (None, None) => from_env,
        };
        let mut builder = builder
            .with_container_name(&options.container)
            .with_account(account)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        if let Some(connector) = connector() {
            builder = builder.with_http_connector(connector);
        }
        Self::new("az", &options.container, &options.prefix, &SERVICE, builder.build())
    }
}
