//! The method of the handle that returns the metrics of all parts.

use std::sync::atomic::Ordering::Relaxed;

use tokio::time::Instant;

use crate::run::{Cap, CapScope};
use crate::telemetry::{Samples, table, text_of};

use super::pointsman::Pointsman;

impl Pointsman {
    /// Returns the metrics in the Prometheus text format, for the handler of `/metrics` in a host's server. Its content
    /// type is `text/plain; version=0.0.4; charset=utf-8`.
    ///
    /// Counters begin with zero when Pointsman starts. `docs/metrics.md` lists all metrics. They contain names of
    /// providers, models, pipelines and steps, and no key, prompt, item or answer.
    ///
    /// ```
    /// # #[cfg(feature = "simulator")]
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use pointsman::{Config, Pointsman, Request};
    ///
    /// let config = Config::from_toml("[provider.demo]\nbase_url = 'simulator'")?;
    /// let pointsman = Pointsman::start_blocking(&config)?;
    /// let text = pointsman.runtime().block_on(async {
    ///     pointsman.send(Request::new("default", "Say hello.")).await?;
    ///     Ok::<_, Box<dyn std::error::Error>>(pointsman.metrics_text().await)
    /// })?;
    /// assert!(text.lines().any(|line| line == r#"pointsman_requests_total{outcome="answered"} 1"#));
    /// # Ok(())
    /// # }
    /// # #[cfg(not(feature = "simulator"))]
    /// # fn main() {}
    /// ```
    pub async fn metrics_text(&self) -> String {
        text_of(&self.metric_samples())
    }

    /// Sets whether the metrics show a faulty configuration. A program that loads it for reloads knows.
    #[doc(hidden)]
    pub fn set_configuration_faulty(&self, is_faulty: bool) {
        self.metrics().is_configuration_faulty.store(is_faulty, Relaxed);
    }

    /// Returns the values of all metrics now.
    #[doc(hidden)]
    pub fn metric_samples(&self) -> Samples {
        let mut samples = Samples::default();
        let now = Instant::now();
        self.current().providers.values().for_each(|provider| provider.report_metrics(now, &mut samples));
        samples.gauge(&table::RUNS_OPEN, &[], self.runs().count() as f64);
        for cap in self.caps() {
            let budget = budget_label(&cap);
            samples.gauge(&table::BUDGET_CAP_USD, &[&budget], cap.cap_usd);
            samples.gauge(&table::BUDGET_SPENT_USD, &[&budget], cap.spent_usd);
        }
        self.metrics().report_metrics(&mut samples);
        samples
    }
}

/// Returns the label of a cap of a day.
fn budget_label(cap: &Cap) -> String {
    match (&cap.scope, &cap.provider, &cap.scope_name) {
        (CapScope::Provider, Some(provider), _) => format!("provider:{provider}"),
        (CapScope::Scope, _, Some(scope)) => format!("scope:{scope}"),
        (CapScope::Run | CapScope::Day | CapScope::Provider | CapScope::Scope, _, _) => "day".to_owned(),
    }
}
