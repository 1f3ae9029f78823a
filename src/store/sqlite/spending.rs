//! Books what calls cost, by day, provider and run.
//!
//! A record replaces what its session had of a step, so only what it has beyond that is booked. Reads no clock.

use std::collections::{BTreeMap, HashMap};

use sqlx::{Connection, QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::store::error::Error;
use crate::store::record::{Record, StepRecord};
use crate::store::run::RunNumber;
use crate::types::{Booked, Day, NanoUsd, ProviderName, Trail};

use super::Sqlite;
use super::write::CHUNKS;

/// A step of an item in a session.
type Place<'a> = (i64, i64, i64, &'a str);

type ByProvider = BTreeMap<ProviderName, Booked>;

/// Books what the steps of `records` cost more than is recorded of them; to be called before they are written.
pub(super) async fn book_records(
    change: &mut SqliteConnection,
    records: &[Record],
    day: Day,
) -> Result<(), sqlx::Error> {
    let steps = records.iter().flat_map(|record| record.steps.iter().map(move |step| (record, step)));
    let priced: Vec<(Place<'_>, ByProvider)> = steps
        .map(|(record, step)| (place(record, step), Booked::by_provider(&step.trail)))
        .filter(|(_, money)| !money.is_empty())
        .collect();
    let mut known = recorded(change, &priced).await?;
    let mut more = BTreeMap::<(i64, ProviderName), Booked>::new();
    for (place, money) in priced {
        let before = known.insert(place, money.clone()).unwrap_or_default();
        for (provider, now) in money {
            let beyond = now.beyond(before.get(&provider).copied().unwrap_or_default());
            *more.entry((place.0, provider)).or_default() += beyond;
        }
    }
    add(change, day, more).await
}

fn place<'a>(record: &Record, step: &'a StepRecord) -> Place<'a> {
    (record.run.0, record.item.number.0, record.session, step.step.as_str())
}

/// Returns what is recorded of these steps, of those that are.
async fn recorded<'a>(
    change: &mut SqliteConnection,
    priced: &[(Place<'a>, ByProvider)],
) -> Result<HashMap<Place<'a>, ByProvider>, sqlx::Error> {
    let mut known = HashMap::new();
    let mut rest = priced;
    while let Some(size) = CHUNKS.into_iter().find(|size| *size <= rest.len()) {
        let (now, later) = rest.split_at(size);
        let columns = "run, item, session, step";
        let mut query = QueryBuilder::<Driver>::new(format!("SELECT {columns}, trail FROM steps WHERE "));
        query.push(format!("({columns}) IN ("));
        query.push_values(now, |mut to, ((run, item, session, step), _)| {
            to.push_bind(*run).push_bind(*item).push_bind(*session).push_bind((*step).to_owned());
        });
        query.push(")");
        for row in query.build().fetch_all(&mut *change).await? {
            let found = (row.try_get("run")?, row.try_get("item")?, row.try_get("session")?);
            let step: &str = row.try_get("step")?;
            let is_it = |(place, _): &&(Place<'a>, ByProvider)| {
                (place.0, place.1, place.2) == found && place.3 == step
            };
            // One that cannot be read is damaged, which whoever reads it says. It is booked once more then.
            let trail: Trail = serde_json::from_str(row.try_get("trail")?).unwrap_or_default();
            if let Some((place, _)) = now.iter().find(is_it) {
                known.insert(*place, Booked::by_provider(&trail));
            }
        }
        rest = later;
    }
    Ok(known)
}

async fn add(
    change: &mut SqliteConnection,
    day: Day,
    more: BTreeMap<(i64, ProviderName), Booked>,
) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO spending (day, provider, run, cost, perhaps) VALUES (?, ?, ?, ?, ?) \
                 ON CONFLICT (day, provider, run) DO UPDATE SET cost = cost + excluded.cost, \
                 perhaps = perhaps + excluded.perhaps";
    for ((run, provider), booked) in more {
        if booked == Booked::default() {
            continue;
        }
        let amount = |money: NanoUsd| i64::try_from(money.0).unwrap_or(i64::MAX);
        let query = sqlx::query(query).bind(day.0).bind(provider.as_str()).bind(run);
        query.bind(amount(booked.cost)).bind(amount(booked.perhaps)).execute(&mut *change).await?;
    }
    Ok(())
}

impl Sqlite {
    pub(super) async fn booked_on(&self, day: Day) -> Result<ByProvider, Error> {
        self.booked("day", day.0).await
    }

    pub(super) async fn booked_by(&self, run: RunNumber) -> Result<ByProvider, Error> {
        self.booked("run", run.0).await
    }

    async fn booked(&self, column: &'static str, is: i64) -> Result<ByProvider, Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT provider, sum(cost) AS cost, ");
        query.push("sum(perhaps) AS perhaps FROM spending WHERE ").push(column).push(" = ").push_bind(is);
        query.push(" GROUP BY provider");
        let rows = query.build().fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        let read = |row: sqlx::sqlite::SqliteRow| -> Result<_, sqlx::Error> {
            let amount =
                |column: &str| Ok::<_, sqlx::Error>(NanoUsd(row.try_get::<i64, _>(column)?.max(0) as u64));
            let provider = ProviderName::from(row.try_get::<&str, _>("provider")?);
            Ok((provider, Booked { cost: amount("cost")?, perhaps: amount("perhaps")? }))
        };
        rows.into_iter().map(read).collect::<Result<_, _>>().map_err(|error| self.unread(&error))
    }

    pub(super) async fn book_more(&self, run: RunNumber, day: Day, spent: &ByProvider) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let more = spent.iter().map(|(provider, booked)| ((run.0, provider.clone()), *booked)).collect();
        let mut writer = self.writer().await;
        let mut change = Connection::begin(&mut *writer).await.map_err(failed)?;
        add(&mut change, day, more).await.map_err(failed)?;
        change.commit().await.map_err(failed)
    }
}
