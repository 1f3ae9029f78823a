//! What was spent, by day, provider, token and pipeline; and the caps of the day.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::diagnostics::nearest;
use crate::run::Cap;
use crate::store::{self, RunNumber, ScopeSpendingRow, SpendingRow as StoredRow};
use crate::types::{Day, NanoUsd, ProviderName, Spend};

use super::daemon::Daemon;
use super::error::Error;

/// What the rows of a list of spending are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SpendingKey {
    /// The day, UTC.
    Day,
    /// The provider.
    Provider,
    /// The token.
    Token,
    /// The pipeline.
    Pipeline,
}

impl SpendingKey {
    /// All keys.
    pub const ALL: [Self; 4] = [Self::Day, Self::Provider, Self::Token, Self::Pipeline];

    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Provider => "provider",
            Self::Token => "token",
            Self::Pipeline => "pipeline",
        }
    }
}

impl fmt::Display for SpendingKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// A text is not a key of spending.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spending cannot be grouped by {word:?}: {advice}")]
pub struct SpendingKeyError {
    word: String,
    advice: String,
}

impl FromStr for SpendingKey {
    type Err = SpendingKeyError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|key| key.as_str() == word.trim());
        known.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str);
            let advice = match nearest(word, words.into_iter()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("use {}", words.join(", ")),
            };
            SpendingKeyError { word: word.to_owned(), advice }
        })
    }
}

/// The spend of one group. It has a field for each key by which it is grouped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct SpendingRow {
    /// The day, UTC, as YYYY-MM-DD.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "date")]
    #[schema(value_type = Option<String>)]
    pub day: Option<Day>,
    /// The provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub provider: Option<ProviderName>,
    /// The token; null for what was spent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub token: Option<Option<String>>,
    /// The pipeline; null for requests outside of runs and for deleted runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub pipeline: Option<Option<String>>,
    /// The known cost, in US dollars.
    pub cost_usd: f64,
    /// The cost of calls that may have been charged and whose usage is unknown, in US dollars.
    pub uncertain_usd: f64,
}

fn date<S: Serializer>(day: &Option<Day>, to: S) -> Result<S::Ok, S::Error> {
    match day {
        Some(day) => to.collect_str(day),
        None => to.serialize_none(),
    }
}

impl Daemon {
    /// Returns what was spent on the days from `from` to `to`, both included, in groups by these keys; without a key, in one
    /// group. Runs count on the day on which their calls were recorded, also when they were deleted.
    ///
    /// # Errors
    /// If the first day is after the last, by `provider` and `token` together, or if there are too many rows.
    pub async fn spending(&self, from: Day, to: Day, by: &[SpendingKey]) -> Result<Vec<SpendingRow>, Error> {
        if from > to {
            return Err(Error::invalid(format!("the first day, {from}, is after the last, {to}")));
        }
        let by_token = by.contains(&SpendingKey::Token);
        if by_token && by.contains(&SpendingKey::Provider) {
            return Err(Error::invalid(
                "spending is recorded by provider and by token, but not by both together: group by one of them",
            ));
        }
        self.record_request_spending().await;
        let rows = self.store().spending(from, to).await.map_err(refused)?;
        let of_scopes = match by_token {
            true => self.store().scope_spending(from, to).await.map_err(refused)?,
            false => Vec::new(),
        };
        Ok(grouped(&rows, &of_scopes, by))
    }

    /// Returns the caps of the day, UTC: of all runs and requests, of providers, and of scopes and tokens, each with what
    /// counts against it.
    pub fn caps(&self) -> Vec<Cap> {
        self.pointsman().caps()
    }
}

fn refused(error: store::Error) -> Error {
    match error {
        store::Error::TooMuchSpending { max } => {
            Error::invalid(format!("the spending of these days has more than {max} rows: ask for fewer days"))
        }
        error => Error::Store(error),
    }
}

/// The values of a group, where they are asked for.
type Group = (Option<Day>, Option<ProviderName>, Option<Option<String>>, Option<Option<String>>);

/// Sums the rows in groups. `of_scopes` is needed only to group by token.
fn grouped(rows: &[StoredRow], of_scopes: &[ScopeSpendingRow], by: &[SpendingKey]) -> Vec<SpendingRow> {
    let group =
        |day: Day, provider: Option<&ProviderName>, token: Option<&str>, pipeline: Option<&str>| -> Group {
            let has = |key: SpendingKey| by.contains(&key);
            (
                has(SpendingKey::Day).then_some(day),
                provider.filter(|_| has(SpendingKey::Provider)).cloned(),
                has(SpendingKey::Token).then(|| token.map(str::to_owned)),
                has(SpendingKey::Pipeline).then(|| pipeline.map(str::to_owned)),
            )
        };
    let mut sums = BTreeMap::<Group, Spend>::new();
    if by.contains(&SpendingKey::Token) {
        // What no token has spent is the rest of each run.
        let mut rest = BTreeMap::<(Day, RunNumber), (Option<&str>, Spend)>::new();
        for row in rows {
            let of_run =
                rest.entry((row.day, row.run)).or_insert((row.pipeline.as_deref(), Spend::default()));
            of_run.1 += row.spend;
        }
        for row in of_scopes {
            let Some(token) = row.scope.token() else { continue };
            *sums.entry(group(row.day, None, Some(token), row.pipeline.as_deref())).or_default() += row.spend;
            if let Some((_, of_run)) = rest.get_mut(&(row.day, row.run)) {
                *of_run = of_run.saturating_sub(row.spend);
            }
        }
        for ((day, _), (pipeline, spend)) in rest {
            if spend != Spend::default() {
                *sums.entry(group(day, None, None, pipeline)).or_default() += spend;
            }
        }
    } else {
        for row in rows {
            let group = group(row.day, Some(&row.provider), None, row.pipeline.as_deref());
            *sums.entry(group).or_default() += row.spend;
        }
    }
    let row = |((day, provider, token, pipeline), spend): (Group, Spend)| SpendingRow {
        day,
        provider,
        token,
        pipeline,
        cost_usd: NanoUsd::dollars(spend.cost),
        uncertain_usd: NanoUsd::dollars(spend.uncertain_cost),
    };
    sums.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn row(day: i64, provider: &str, run: i64, pipeline: Option<&str>, dollars: u64) -> StoredRow {
        let spend = Spend { cost: NanoUsd(dollars * 1_000_000_000), ..Spend::default() };
        let pipeline = pipeline.map(str::to_owned);
        StoredRow { day: Day(day), provider: provider.into(), run: RunNumber(run), pipeline, spend }
    }

    fn of_scope(day: i64, scope: &str, run: i64, pipeline: Option<&str>, dollars: u64) -> ScopeSpendingRow {
        let StoredRow { day, run, pipeline, spend, .. } = row(day, "", run, pipeline, dollars);
        ScopeSpendingRow { day, scope: scope.into(), run, pipeline, spend }
    }

    fn shown(rows: &[StoredRow], of_scopes: &[ScopeSpendingRow], by: &str) -> Value {
        let by: Vec<SpendingKey> = by.split_terminator(',').map(|key| key.parse().unwrap()).collect();
        let mut rows = serde_json::to_value(grouped(rows, of_scopes, &by)).unwrap();
        for row in rows.as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("uncertain_usd");
        }
        rows
    }

    #[test]
    fn spending_is_grouped_by_the_keys_that_are_asked_for() {
        let rows = [
            row(0, "a", 1, Some("mail"), 1),
            row(0, "b", 1, Some("mail"), 2),
            row(1, "a", 0, None, 4),
            row(1, "a", 2, Some("leads"), 8),
        ];
        assert_eq!(shown(&rows, &[], ""), json!([{ "cost_usd": 15.0 }]));
        assert_eq!(
            shown(&rows, &[], "day"),
            json!([{ "day": "1970-01-01", "cost_usd": 3.0 }, { "day": "1970-01-02", "cost_usd": 12.0 }])
        );
        assert_eq!(
            shown(&rows, &[], "provider"),
            json!([{ "provider": "a", "cost_usd": 13.0 }, { "provider": "b", "cost_usd": 2.0 }])
        );
        assert_eq!(
            shown(&rows, &[], "pipeline"),
            json!([
                { "pipeline": null, "cost_usd": 4.0 },
                { "pipeline": "leads", "cost_usd": 8.0 },
                { "pipeline": "mail", "cost_usd": 3.0 },
            ])
        );
        assert_eq!(shown(&[], &[], "day,provider"), json!([]));
    }

    #[test]
    fn what_no_token_has_spent_is_the_rest() {
        let rows = [row(0, "a", 0, None, 10), row(0, "b", 0, None, 5), row(0, "a", 3, Some("mail"), 7)];
        let of_scopes = [
            of_scope(0, "token:ci", 0, None, 6),
            of_scope(0, "token:web", 0, None, 1),
            of_scope(0, "team-a", 0, None, 2),
            of_scope(0, "token:ci", 3, Some("mail"), 7),
        ];
        assert_eq!(
            shown(&rows, &of_scopes, "token"),
            json!([
                { "token": null, "cost_usd": 8.0 },
                { "token": "ci", "cost_usd": 13.0 },
                { "token": "web", "cost_usd": 1.0 },
            ])
        );
        assert_eq!(
            shown(&rows, &of_scopes, "token,pipeline"),
            json!([
                { "token": null, "pipeline": null, "cost_usd": 8.0 },
                { "token": "ci", "pipeline": null, "cost_usd": 6.0 },
                { "token": "ci", "pipeline": "mail", "cost_usd": 7.0 },
                { "token": "web", "pipeline": null, "cost_usd": 1.0 },
            ])
        );
    }

    #[test]
    fn a_key_is_read_as_it_is_written_and_a_typo_is_corrected() {
        for key in SpendingKey::ALL {
            assert_eq!(key.to_string().parse(), Ok(key));
        }
        let refused = |word: &str| word.parse::<SpendingKey>().unwrap_err().to_string();
        assert_eq!(refused("tokens"), "spending cannot be grouped by \"tokens\": did you mean `token`?");
        assert_eq!(
            refused("month"),
            "spending cannot be grouped by \"month\": use day, provider, token, pipeline"
        );
    }
}
