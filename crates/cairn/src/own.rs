//! `[servers.NAME] type = "cairn"`: Cairn's own MCP server behind its own gateway, so that asking is decided and recorded as every
//! other call is. Called where the gateway is opened. Who asks is who the gateway verified, and sees their own.

use std::sync::{Arc, OnceLock};

use cairn_gateway::{Gateway, ServerSpec};

use crate::{config::Config, folder::Folder};

/// The servers of Cairn's own, and the gateway that they are behind, once there is one.
#[derive(Default)]
pub(crate) struct OwnServers {
    specs: Vec<ServerSpec>,
    /// Held by what it serves, so both last as long as the process.
    gateway: Arc<OnceLock<Gateway>>,
}

impl OwnServers {
    /// Those that are configured.
    #[cfg(feature = "audit")]
    pub(crate) fn of(config: &Config, folder: &Folder) -> anyhow::Result<Self> {
        use cairn_gateway::Reach;

        use crate::context::{self, Answers};

        let gateway: Arc<OnceLock<Gateway>> = Arc::default();
        let later = gateway.clone();
        let screened = Arc::new(move |what, text: &str| match later.get() {
            Some(gateway) => context::screen(gateway, what, text),
            // Nobody asks before there is a gateway.
            None => text.to_owned(),
        });
        let answers = Arc::new(Answers::of(folder.path(), screened));
        let specs = config.own_servers()?.into_iter().map(|name| ServerSpec {
            name,
            reach: Reach::Inside(answers.clone()),
            declared: std::collections::BTreeMap::new(),
            reports: false,
        });
        Ok(Self { specs: specs.collect(), gateway })
    }

    /// There are none in this build.
    #[cfg(not(feature = "audit"))]
    pub(crate) fn of(config: &Config, _: &Folder) -> anyhow::Result<Self> {
        config.own_servers()?;
        Ok(Self::default())
    }

    /// As the gateway wants them.
    pub(crate) fn specs(&self) -> Vec<ServerSpec> {
        self.specs.clone()
    }

    /// The gateway that they are behind.
    pub(crate) fn begin(&self, gateway: &Gateway) {
        if !self.specs.is_empty() {
            // There is one gateway.
            let _ = self.gateway.set(gateway.clone());
        }
    }
}
