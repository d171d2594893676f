//! A report becomes a `model.called`: masked texts, references in the place of messages, and an id that follows from what is reported.
//!
//! The tenant and the principal are the sender's, whatever a span says. The id is a digest of tenant, principal, trace and span, so that a
//! span that is sent twice counts once, and nobody's span can stand in the way of somebody else's.

use cairn_backbone::Planned;
use cairn_clock::Timestamp;
use cairn_contract::{
    Body, Common, Draft, ModelCalled, Reference, ReportedAs, ToolChosen, ToolOffered, canonical_value,
    given_workflow_id, sha256_text,
};
use cairn_identity::Identity;
use cairn_vault::{Kept as KeptPayload, Subject};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{Ingest, Kept, conventions::Report, fault::Fault};

/// Longest text in an event, in characters.
const TEXT_CHARS_MAX: usize = 256;
/// Most of a text that is looked at; what lies behind it is not shown.
const TEXT_SEEN_BYTES_MAX: usize = 16 * 1024;
/// Reasons to stop that are told.
const REASONS_MAX: usize = 16;
/// Events that wait to be recorded before reports are put off: agents' words must not push out what calls leave.
const QUEUED_MAX: usize = 8_192;
/// What payloads are.
const JSON: &str = "application/json";

/// What became of the reports of one request.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Written {
    pub(crate) recorded: u64,
    pub(crate) repeated: u64,
}

/// An id that follows from these parts, as a UUID of version 8.
pub(crate) fn id_of(parts: &[&[u8]]) -> Uuid {
    let digest = says(parts);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A digest of these parts, each told from the next by its length.
pub(crate) fn says(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

impl Ingest {
    /// A text as it may stand in an event: masked, printable and short.
    pub(crate) fn screened(&self, text: &str) -> String {
        let end = (0..=TEXT_SEEN_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let masked = self.parts().screener.text(&text[..end]);
        masked.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
    }

    /// An id as it may stand in an event: as it is, or as a keyed digest, so that two never become one.
    pub(crate) fn screened_id(&self, id: &str) -> String {
        if self.screened(id) == id { id.to_owned() } else { self.parts().secret.digest(id.as_bytes()) }
    }

    /// Refuses what could not be recorded now, so that the sender keeps it and sends it again.
    pub(crate) fn may_record(&self) -> Result<(), Fault> {
        let stats = self.parts().recorder.stats();
        if let Some(why) = stats.failing {
            return Err(Fault::NotRecorded(format!("recording does not work now: {why}")));
        }
        if stats.queued > QUEUED_MAX {
            return Err(Fault::Busy("too many events wait to be recorded: send it again later".to_owned()));
        }
        Ok(())
    }

    /// Writes reports of one sender.
    pub(crate) fn write(&self, who: &Identity, reports: Vec<Report>) -> Written {
        let mut written = Written::default();
        for report in reports {
            let id = model_event_id(who, &report);
            if !self.0.recent.remember(id, [0; 32]) {
                written.repeated += 1;
                continue;
            }
            let draft = self.draft(who, report);
            self.parts().recorder.relaxed(Planned { id, draft });
            written.recorded += 1;
        }
        self.parts().metrics.spans("recorded", written.recorded);
        self.parts().metrics.spans("repeated", written.repeated);
        written
    }

    fn draft(&self, who: &Identity, report: Report) -> Draft {
        let named = report.workflow.as_deref().and_then(|id| given_workflow_id(id).ok());
        let workflow_id = match named {
            Some(id) => self.screened_id(id),
            None => {
                let known = self.parts().surroundings.workflow_of(who, &report.trace_id);
                known.unwrap_or_else(|| report.trace_id.clone())
            }
        };
        let common = Common {
            workflow_id: workflow_id.clone(),
            trace_id: Some(report.trace_id.clone()),
            span_id: Some(report.span_id.clone()),
            tenant: who.tenant.clone(),
            principal: Some(who.principal.clone()),
            agent: who.agent.clone(),
            agent_name: report.agent_name.as_deref().map(|name| self.screened(name)),
            ..Common::default()
        };
        let traceparent = Some(format!("00-{}-{}-01", report.trace_id, report.span_id));
        let body = self.body(who, report);
        let about = [&body.gen_ai_provider_name, &body.gen_ai_request_model].map(|part| part.as_deref().unwrap_or("-"));
        let subject = Some(about.join("/"));
        Draft { key: workflow_id, subject, traceparent, tracestate: None, common, body: Body::from(body) }
    }

    fn body(&self, who: &Identity, report: Report) -> ModelCalled {
        let text = |text: &Option<String>| text.as_deref().map(|text| self.screened(text));
        let parts = self.parts();
        let offered = |tool: &crate::conventions::Offered| ToolOffered {
            name: self.screened(&tool.name),
            digest: tool.definition.as_ref().map(|definition| sha256_text(canonical_value(definition).as_bytes())),
        };
        let chosen = |tool: &crate::conventions::Chosen| ToolChosen {
            name: self.screened(&tool.name),
            gen_ai_tool_call_id: tool.id.as_deref().map(|id| self.screened_id(id)),
            call_id: None,
        };
        ModelCalled {
            reported_as: if report.is_of_logs { ReportedAs::Logs } else { ReportedAs::Span },
            parent_span_id: report.parent_span_id.clone(),
            gen_ai_operation_name: text(&report.operation),
            gen_ai_provider_name: text(&report.provider),
            gen_ai_request_model: text(&report.request_model),
            gen_ai_response_model: text(&report.response_model),
            gen_ai_response_id: report.response_id.as_deref().map(|id| self.screened_id(id)),
            gen_ai_response_finish_reasons: {
                report.finish_reasons.iter().take(REASONS_MAX).map(|reason| self.screened(reason)).collect()
            },
            gen_ai_usage_input_tokens: report.input_tokens,
            gen_ai_usage_output_tokens: report.output_tokens,
            gen_ai_conversation_id: report.conversation_id.as_deref().map(|id| self.screened_id(id)),
            prompt: self.kept(who, parts.prompts, report.prompt.as_deref()),
            output: self.kept(who, parts.outputs, report.output.as_deref()),
            tools: self.kept(who, parts.prompts, report.definitions.as_deref()),
            tools_offered: report.offered.iter().map(offered).collect(),
            tools_offered_more: Some(report.offered_more).filter(|more| *more > 0),
            tools_chosen: report.chosen.iter().map(chosen).collect(),
            error_type: text(&report.error_type).filter(|error| !error.is_empty()),
            started_at: (report.started_us > 0).then(|| Timestamp::from_micros(report.started_us).to_string()),
            elapsed_us: report.elapsed_us,
            instrumentation: Some(self.screened(&report.instrumentation)).filter(|name| !name.is_empty()),
        }
    }

    /// What stands for a payload of the sender's.
    fn kept(&self, who: &Identity, mode: Kept, payload: Option<&[u8]>) -> Option<Reference> {
        let payload = payload.filter(|payload| !payload.is_empty())?;
        let whose = Subject { tenant: who.tenant.clone(), name: who.principal.clone() };
        match (&self.parts().vault, mode) {
            (_, Kept::None) => None,
            (None, _) => Some(self.parts().payload_key.reference(payload, JSON)),
            (Some(vault), Kept::Digest) => Some(vault.digest_key(&whose).reference(payload, JSON)),
            (Some(vault), Kept::Reference) => {
                let KeptPayload { reference, .. } = vault.keep(&whose, payload, JSON, false);
                Some(reference)
            }
        }
    }
}

/// The id of a report's event.
fn model_event_id(who: &Identity, report: &Report) -> Uuid {
    let tenant = who.tenant.as_deref();
    let kind: &[u8] = if report.is_of_logs { b"logs" } else { b"span" };
    let (is_of_tenant, tenant) = ([u8::from(tenant.is_some())], tenant.unwrap_or_default().as_bytes());
    let mut parts: Vec<&[u8]> = vec![b"model.called", &is_of_tenant, tenant, who.principal.as_bytes(), kind];
    parts.extend([report.trace_id.as_bytes(), report.span_id.as_bytes()]);
    // Records of one span may come in several requests, each with other ones.
    if report.is_of_logs {
        parts.extend([&report.prompt, &report.output].map(|part| part.as_deref().unwrap_or_default()));
    }
    id_of(&parts)
}
