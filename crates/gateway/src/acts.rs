//! What operators do, for the record: called by who serves them, before the act and where it failed.
//!
//! Texts are screened here. An act that cannot be recorded must not be done.

use cairn_backbone::RecordError;
use cairn_contract::{Common, Draft, OperatorActed};

use crate::Gateway;

impl Gateway {
    /// An id that nothing else has.
    #[must_use]
    pub fn new_id(&self) -> String {
        self.entropy().uuid_v7(self.clock().now()).to_string()
    }

    /// Records an operator's act; durable when this returns.
    ///
    /// # Errors
    /// Recording does not work.
    pub async fn record_act(&self, act: OperatorActed) -> Result<(), RecordError> {
        let screened = |text: Option<String>| text.map(|text| self.screen(&text)).filter(|text| !text.is_empty());
        let act = OperatorActed {
            operator: self.screen(&act.operator),
            about: screened(act.about),
            reason: screened(act.reason),
            error: screened(act.error),
            ..act
        };
        let (key, common) = (act.operator.clone(), Common::default());
        let draft = Draft { key, subject: None, traceparent: None, tracestate: None, common, body: act.into() };
        self.recorder().strict(self.recorder().plan(draft)).await.map(drop)
    }
}
