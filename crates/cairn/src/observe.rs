//! `[consumers.observe]`: where traces and metrics go, what of the trail goes with them, and when somebody should look.
//!
//! Read with the configuration; what is absent is taken from OpenTelemetry's own variables. The work is done in `cairn-consumers`; here it is
//! wired. An address or a header may hold a credential, so no error shows one.

use std::collections::BTreeMap;

use anyhow::bail;
use serde::Deserialize;

/// Longest that one request may be configured to take.
const TIMEOUT_MS_MAX: u64 = 60_000;
/// More calls than this are not kept open.
const OPEN_CALLS_MAX: usize = 100_000;
/// Alerts look no further back than this.
const WINDOW_SECONDS_MAX: u64 = 3_600;

/// `[consumers.observe]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(not(feature = "observe"), allow(dead_code, reason = "this build only says that it cannot"))]
pub(crate) struct ObserveSection {
    /// Whether it runs inside `up`; where nothing is said, where a collector is named.
    pub(crate) enabled: Option<bool>,
    pub(crate) group: Option<String>,
    /// The collector; `/v1/traces` and `/v1/metrics` are added.
    pub(crate) endpoint: Option<String>,
    headers: BTreeMap<String, String>,
    timeout_ms: Option<u64>,
    compression: Option<Packing>,
    /// How often metrics are sent; 0 is never.
    metrics_interval_ms: Option<u64>,
    /// Keys of events that go out besides.
    include: Vec<String>,
    /// Whether model calls have spans.
    models: bool,
    open_calls_max: Option<usize>,
    open_hours_max: Option<u64>,
    /// How much of the trail before its first start it looks at.
    history_hours: Option<u64>,
    alerts: AlertsSection,
}

/// How bodies are packed.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
enum Packing {
    Gzip,
    None,
}

/// `[consumers.observe.alerts]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(not(feature = "observe"), allow(dead_code, reason = "this build only says that it cannot"))]
struct AlertsSection {
    /// Alerts that are not raised.
    off: Vec<String>,
    /// Whether the approvers' tool is told of alerts too.
    webhook: bool,
    window_seconds: Option<u64>,
    refusals_max: Option<u64>,
    in_doubt_max: Option<u64>,
    consumer_lag_seconds_max: Option<u64>,
    missing_events_max: Option<u64>,
    approval_wait_seconds_max: Option<u64>,
    collector_away_seconds_max: Option<u64>,
}

impl ObserveSection {
    /// Refuses what makes no sense, and what this build cannot do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.enabled == Some(true) && !cfg!(feature = "observe") {
            bail!("consumers.observe.enabled is true, and {NO_OBSERVE}");
        }
        if self.timeout_ms.is_some_and(|ms| ms == 0 || ms > TIMEOUT_MS_MAX) {
            bail!("consumers.observe.timeout_ms must be 1 to {TIMEOUT_MS_MAX}");
        }
        if self.open_calls_max.is_some_and(|calls| calls == 0 || calls > OPEN_CALLS_MAX) {
            bail!("consumers.observe.open_calls_max must be 1 to {OPEN_CALLS_MAX}");
        }
        if self.open_hours_max == Some(0) {
            bail!("consumers.observe.open_hours_max is 0, so every call would go out as open: set it to at least 1");
        }
        if self.alerts.window_seconds.is_some_and(|seconds| seconds == 0 || seconds > WINDOW_SECONDS_MAX) {
            bail!("consumers.observe.alerts.window_seconds must be 1 to {WINDOW_SECONDS_MAX}");
        }
        self.check_names()
    }

    #[cfg(not(feature = "observe"))]
    fn check_names(&self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// What a build without it says.
pub(crate) const NO_OBSERVE: &str =
    "this build has no observe (it leaves SQLite out): cargo install --locked --path crates/cairn makes one that has";

#[cfg(feature = "observe")]
pub(crate) use wiring::{Observed, open};

#[cfg(feature = "observe")]
mod wiring {
    //! The consumer as it is configured.

    use std::{path::Path, time::Duration};

    use anyhow::{Context, bail};
    use cairn_clock::{Clock, Entropy, Timestamp};
    use cairn_consumers::{
        SinkError,
        observe::{
            Exporter, ExporterOptions, Figures, Include, ObserveOptions, ObserveSink, Resource,
            alerts::{NAMES, Rules},
            push,
        },
    };
    use tokio_util::sync::CancellationToken;

    use super::{ObserveSection, Packing, TIMEOUT_MS_MAX};
    use crate::config::filled;

    /// How long one request may take where nothing is said.
    const TIMEOUT_MS: u64 = 10_000;
    /// How often metrics are sent where nothing is said.
    const METRICS_EVERY_MS: u64 = 60_000;

    /// How much of the trail before its first start it looks at where nothing is said.
    const HISTORY_HOURS: u64 = 24;

    fn before(now: Timestamp, by: Duration) -> Timestamp {
        Timestamp::from_micros(now.as_micros().saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// A collector as it is configured.
    struct Collector {
        options: ExporterOptions,
        /// How often it gets metrics.
        metrics_every: Option<Duration>,
    }

    /// What runs beside the sink.
    #[derive(Clone, Debug)]
    pub(crate) struct Observed {
        pub(crate) figures: Figures,
        pub(crate) rules: Rules,
        pub(crate) tells_webhook: bool,
        has_collector: bool,
        pushing: Option<(Exporter, Resource, Duration)>,
        stop: CancellationToken,
    }

    impl Observed {
        /// Begins to send metrics; must be called within a runtime.
        pub(crate) fn begin(&self) {
            if let Some((exporter, resource, every)) = self.pushing.clone() {
                tokio::spawn(push(exporter, self.figures.clone(), resource, every, self.stop.clone()));
            }
        }

        /// Whether anybody gets spans.
        pub(crate) const fn has_collector(&self) -> bool {
            self.has_collector
        }

        /// Nothing waits for the collector any more.
        pub(crate) fn stop(&self) {
            self.stop.cancel();
        }

        /// Ends with that.
        pub(crate) fn stopped(&self) -> CancellationToken {
            self.stop.clone()
        }
    }

    /// Opens the database at that path, and what is beside it.
    pub(crate) fn open(
        section: &ObserveSection,
        path: &Path,
        entropy: &Entropy,
    ) -> Result<(ObserveSink, Observed), SinkError> {
        let broken = |error: anyhow::Error| SinkError::Broken { reason: format!("[consumers.observe]: {error:#}") };
        let collector = section.collector(&variable).map_err(broken)?;
        let exporter = collector.as_ref().map(|collector| Exporter::new(&collector.options));
        let exporter = exporter.transpose().map_err(|error| broken(error.into()))?;
        let resource = resource(&variable);
        let default = ObserveOptions::default();
        let hours = |hours: u64| Duration::from_secs(hours.saturating_mul(3_600));
        let options = ObserveOptions {
            exporter: exporter.clone(),
            resource: resource.clone(),
            include: section.included().map_err(broken)?,
            with_models: section.models,
            open_calls_max: section.open_calls_max.unwrap_or(default.open_calls_max),
            open_max: section.open_hours_max.map_or(default.open_max, hours),
            begin_at: before(Clock::system().now(), hours(section.history_hours.unwrap_or(HISTORY_HOURS))),
        };
        let every = collector.and_then(|collector| collector.metrics_every);
        let observed = Observed {
            figures: Figures::new(Clock::system()),
            rules: section.rules(),
            tells_webhook: section.alerts.webhook,
            has_collector: exporter.is_some(),
            pushing: exporter.zip(every).map(|(exporter, every)| (exporter, resource, every)),
            stop: CancellationToken::new(),
        };
        let sink = ObserveSink::open(path, entropy, options, observed.figures.clone(), observed.stop.clone())?;
        Ok((sink, observed))
    }

    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.trim().is_empty())
    }

    impl ObserveSection {
        pub(super) fn check_names(&self) -> anyhow::Result<()> {
            self.included()?;
            for name in &self.alerts.off {
                if !NAMES.contains(&name.as_str()) {
                    bail!("consumers.observe.alerts.off names {name:?}: there are {}", NAMES.join(", "));
                }
            }
            Ok(())
        }

        fn included(&self) -> anyhow::Result<Include> {
            Include::named(self.include.iter().map(String::as_str))
                .map_err(|words| anyhow::anyhow!("consumers.observe.include: {words}"))
        }

        /// Where to send; nothing where nobody names a collector.
        fn collector(&self, variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Option<Collector>> {
            let base = |base: &str, signal: &str| format!("{}/v1/{signal}", base.trim_end_matches('/'));
            let (traces, metrics) = match &self.endpoint {
                Some(endpoint) => {
                    let endpoint = filled(endpoint).context("consumers.observe.endpoint")?;
                    (Some(base(&endpoint, "traces")), Some(base(&endpoint, "metrics")))
                }
                None => {
                    let shared = variable("OTEL_EXPORTER_OTLP_ENDPOINT");
                    let of = |signal: &str| shared.as_ref().map(|shared| base(shared, signal));
                    let own = |name: &str| variable(&format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT"));
                    (own("TRACES").or_else(|| of("traces")), own("METRICS").or_else(|| of("metrics")))
                }
            };
            let Some(traces) = traces else { return Ok(None) };
            if self.endpoint.is_none() {
                may_speak(variable)?;
            }
            let mut headers: Vec<(String, String)> = Vec::new();
            if self.headers.is_empty() && self.endpoint.is_none() {
                headers = pairs(&variable("OTEL_EXPORTER_OTLP_HEADERS").unwrap_or_default());
            }
            for (name, value) in &self.headers {
                let value = filled(value).with_context(|| format!("consumers.observe.headers.{name}"))?;
                headers.push((name.clone(), value));
            }
            let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<u64>().ok());
            let timeout = self.timeout_ms.or_else(|| number("OTEL_EXPORTER_OTLP_TIMEOUT")).unwrap_or(TIMEOUT_MS);
            let every = self.metrics_interval_ms.or_else(|| number("OTEL_METRIC_EXPORT_INTERVAL"));
            let every = every.unwrap_or(METRICS_EVERY_MS);
            let is_gzip = match self.compression {
                Some(packing) => packing == Packing::Gzip,
                None => variable("OTEL_EXPORTER_OTLP_COMPRESSION").as_deref() == Some("gzip"),
            };
            Ok(Some(Collector {
                metrics_every: (every > 0 && metrics.is_some()).then(|| Duration::from_millis(every.max(100))),
                options: ExporterOptions {
                    metrics: metrics.unwrap_or_else(|| traces.clone()),
                    traces,
                    headers,
                    timeout: Duration::from_millis(timeout.clamp(1, TIMEOUT_MS_MAX)),
                    is_gzip,
                },
            }))
        }

        /// The bounds past which alerts are raised.
        fn rules(&self) -> Rules {
            let default = Rules::default();
            let set = &self.alerts;
            let is_on = |name: &str| !set.off.iter().any(|off| off == name);
            let count = |name: &str, set: Option<u64>, or: Option<u64>| set.or(or).filter(|_| is_on(name));
            let time = |name: &str, set: Option<u64>, or: Option<Duration>| {
                set.map(Duration::from_secs).or(or).filter(|_| is_on(name))
            };
            Rules {
                window: set.window_seconds.map_or(default.window, Duration::from_secs),
                refusals_max: count("refusals", set.refusals_max, default.refusals_max),
                in_doubt_max: count("in_doubt", set.in_doubt_max, default.in_doubt_max),
                consumer_lag_max: time("consumer_lag", set.consumer_lag_seconds_max, default.consumer_lag_max),
                missing_max: count("trail_gap", set.missing_events_max, default.missing_max),
                approval_wait_max: time("approval_waiting", set.approval_wait_seconds_max, default.approval_wait_max),
                collector_away_max: time("collector_away", set.collector_away_seconds_max, default.collector_away_max),
            }
        }
    }

    /// OpenTelemetry's variables may ask for what this does not speak.
    fn may_speak(variable: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let named = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
        match named.into_iter().find_map(|name| Some((name, variable(name)?))) {
            Some((name, protocol)) if protocol != "http/protobuf" => bail!(
                "{name} is {protocol:?}, and observe speaks http/protobuf alone: set it to that and name the collector's port for it (4318)"
            ),
            _ => Ok(()),
        }
    }

    fn resource(variable: &dyn Fn(&str) -> Option<String>) -> Resource {
        let mut all = pairs(&variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
        let named = variable("OTEL_SERVICE_NAME");
        if named.is_some() || !all.iter().any(|(name, _)| name == "service.name") {
            all.retain(|(name, _)| name != "service.name");
            all.push(("service.name".to_owned(), named.unwrap_or_else(|| "cairn".to_owned())));
        }
        if !all.iter().any(|(name, _)| name == "service.version") {
            all.push(("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()));
        }
        Resource(all)
    }

    /// `name=value,name=value`, values percent-encoded, as W3C Baggage has it.
    fn pairs(text: &str) -> Vec<(String, String)> {
        let pair = |part: &str| {
            let (name, value) = part.split_once('=')?;
            Some((decoded(name.trim()), decoded(value.trim()))).filter(|(name, _)| !name.is_empty())
        };
        text.split(',').filter_map(pair).collect()
    }

    fn decoded(text: &str) -> String {
        let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
        while let Some((first, more)) = rest.split_first() {
            let digits = more.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
            match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(byte) => (bytes.push(byte), rest = &more[2..]).0,
                None => (bytes.push(*first), rest = more).0,
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn section(text: &str) -> ObserveSection {
            toml::from_str(text).expect("a section")
        }

        fn variables(all: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
            |name| all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }

        #[test]
        fn a_collector_is_the_configurations_else_that_of_opentelemetrys_variables() {
            let set = variables(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318/"),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://figures/in"),
                ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x, tenant = acme"),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ]);
            let of = |text: &str| section(text).collector(&set).expect("it is right").expect("a collector");
            let Collector { options, metrics_every } = of("");
            assert_eq!(
                (options.traces.as_str(), options.metrics.as_str()),
                ("http://there:4318/v1/traces", "http://figures/in")
            );
            let headers =
                [("authorization", "Bearer x"), ("tenant", "acme")].map(|(n, v)| (n.to_owned(), v.to_owned()));
            assert_eq!((options.headers, options.is_gzip), (headers.to_vec(), true));
            assert_eq!((options.timeout, metrics_every), (Duration::from_millis(2_500), Some(Duration::from_secs(60))));
            // Credentials of another collector are not sent to this one.
            let Collector { options, metrics_every } =
                of("endpoint = \"https://here\"\ncompression = \"none\"\nmetrics_interval_ms = 0");
            assert_eq!((options.traces.as_str(), options.headers.len()), ("https://here/v1/traces", 0));
            assert_eq!((options.is_gzip, metrics_every), (false, None));
            assert!(section("").collector(&variables(&[])).expect("it is right").is_none());
            let grpc =
                variables(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://x"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
            let words = section("").collector(&grpc).err().expect("it cannot").to_string();
            assert!(words.contains("http/protobuf"), "{words}");
        }

        #[test]
        fn what_makes_no_sense_is_refused_by_name() {
            for (text, words) in [
                ("timeout_ms = 0", "timeout_ms"),
                ("open_calls_max = 0", "open_calls_max"),
                ("open_hours_max = 0", "open_hours_max"),
                ("include = [\"arguments\"]", "include"),
                ("alerts = { window_seconds = 7200 }", "window_seconds"),
                ("alerts = { off = [\"nothing\"] }", "in_doubt"),
            ] {
                let said = section(text).check().expect_err("refused").to_string();
                assert!(said.contains(words), "{text}: {said}");
            }
            let rules =
                section("alerts = { off = [\"in_doubt\"], refusals_max = 3, approval_wait_seconds_max = 7 }").rules();
            assert_eq!((rules.in_doubt_max, rules.refusals_max), (None, Some(3)));
            assert_eq!((rules.approval_wait_max, rules.missing_max), (Some(Duration::from_secs(7)), Some(0)));
        }

        #[test]
        fn a_resource_is_named_by_opentelemetrys_variables() {
            let set = variables(&[
                ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,service.name=x"),
                ("OTEL_SERVICE_NAME", "gateways"),
            ]);
            let Resource(all) = resource(&set);
            let of = |key: &str| {
                all.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect::<Vec<_>>()
            };
            assert_eq!((of("service.name"), of("deployment.environment.name")), (vec!["gateways"], vec!["prod"]));
            assert_eq!(resource(&variables(&[])).0[0], ("service.name".to_owned(), "cairn".to_owned()));
        }
    }
}
