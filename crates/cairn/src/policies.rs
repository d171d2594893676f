//! The policies of a running gateway: where they are, what becomes of changes, and what an operator puts in force.
//!
//! Every change is an event, and strict: decisions name a version that must be found again. Called by `up`.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_backbone::{RecordError, Recorder};
use cairn_contract::{Body, Common, Draft};
use cairn_operators::{Replacement, Replacing};
use cairn_policy::{Change, PolicyError, PolicyStore};
use serde_json::json;

use crate::{UpArguments, folder::Folder, measures::Policies};

/// How often the policy folder is looked at.
const POLICY_EVERY: Duration = Duration::from_secs(1);
/// Who it is where nobody did anything but write a file.
const FILE_CHANGE: &str = "file change";

/// The policies: where they are said to be, else beside the configuration file, else in the data folder. Never in the
/// working directory, which may be anybody's.
pub(crate) fn open(arguments: &UpArguments, beside: Option<PathBuf>, folder: &Folder) -> anyhow::Result<PolicyStore> {
    if let Some(folder) = &arguments.policies {
        return Ok(PolicyStore::open(Some(folder.clone()))?);
    }
    let beside = beside.unwrap_or_else(|| folder.path().to_owned());
    Ok(PolicyStore::open_if_present(beside.join("policies"))?)
}

/// Records what decides and what is tried from the start.
pub(crate) async fn record_start(store: &PolicyStore, recorder: &Recorder) -> Result<(), RecordError> {
    let mut events = store.activation("start").into_events();
    events.extend(store.shadowing("start").map(Body::from));
    record(recorder, events).await
}

/// Records what became of a policy set: strict, because decisions name a version that must be found again.
async fn record(recorder: &Recorder, events: Vec<Body>) -> Result<(), RecordError> {
    let planned = events.into_iter().map(|body| {
        let key = match &body {
            Body::PolicyLoaded(loaded) => loaded.version.clone(),
            Body::PolicyActivated(activated) => activated.version.clone(),
            Body::PolicyShadowed(shadowed) => shadowed.version.clone(),
            _ => "rejected".to_owned(),
        };
        let (subject, common) = (Some(key.clone()), Common::default());
        recorder.plan(Draft { key, subject, traceparent: None, tracestate: None, common, body })
    });
    recorder.strict_all(planned.collect()).await.map(drop)
}

/// Takes changes of the files up, for as long as the process runs.
pub(crate) async fn watch(policy: Policies, recorder: Recorder) {
    loop {
        tokio::time::sleep(POLICY_EVERY).await;
        // Reading and compiling take a while, and must not hold up calls.
        let store = policy.store.clone();
        let looking = tokio::task::spawn_blocking(move || {
            store.changed().then(|| (store.reload(FILE_CHANGE), store.reload_shadow(FILE_CHANGE)))
        });
        let Ok(Some((live, shadow))) = looking.await else { continue };
        let mut events = Vec::new();
        let refused = live.is_err() || shadow.is_err();
        match live {
            Ok(Change::Unchanged) => {}
            Ok(change) => {
                let version = policy.store.current_version();
                eprintln!("cairn: the policies changed; version {version} decides from here on");
                events.extend(change.into_events());
            }
            Err(error) => {
                eprintln!("cairn: the new policies are not used, the old ones stay: {error}");
                events.push(error.rejected(&policy.store.current_version(), FILE_CHANGE).into());
            }
        }
        match shadow {
            Ok(shadowed) => events.extend(shadowed.map(Body::from)),
            // A folder that cannot be read was told of already.
            Err(error) if matches!(error, PolicyError::Invalid { .. }) => {
                eprintln!("cairn: the shadow policies are not tried: {error}");
                events.push(error.rejected(&policy.store.current_version(), FILE_CHANGE).into());
            }
            Err(_) => {}
        }
        policy.refused.store(refused, Ordering::Relaxed);
        if let Err(error) = record(&recorder, events).await {
            eprintln!("cairn: what became of the policies is not recorded yet: {error}");
        }
    }
}

/// Puts sets in force for an operator.
#[derive(Debug)]
pub(crate) struct Replacer {
    store: Arc<PolicyStore>,
    recorder: Recorder,
}

impl Replacer {
    pub(crate) const fn new(store: Arc<PolicyStore>, recorder: Recorder) -> Self {
        Self { store, recorder }
    }
}

impl cairn_operators::Policies for Replacer {
    fn replace(&self, how: Replacement, who: String) -> Replacing {
        let (store, recorder) = (self.store.clone(), self.recorder.clone());
        Box::pin(async move {
            let before = store.current_version();
            let replacing = tokio::task::spawn_blocking({
                let store = store.clone();
                move || {
                    let tried = store.shadow_version();
                    let change = match how {
                        Replacement::Promote => store.promote(&who),
                        Replacement::Rollback => store.rollback(&who),
                    };
                    change.map(|change| {
                        (change, store.shadowing(&who).filter(|now| Some(&now.version) != tried.as_ref()))
                    })
                }
            });
            let (change, shadowed) = match replacing.await {
                Ok(replaced) => replaced.map_err(|error| error.to_string())?,
                Err(error) => return Err(format!("the replacement did not end: {error}")),
            };
            let mut events = change.into_events();
            events.extend(shadowed.map(Body::from));
            let version = store.current_version();
            match record(&recorder, events).await {
                Ok(()) => Ok(json!({ "version": version, "previous_version": before })),
                Err(error) => {
                    Err(format!("version {version} decides from here on, and that is not recorded yet: {error}"))
                }
            }
        })
    }
}
