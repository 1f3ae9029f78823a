//! Books what calls cost, by day, provider and run.
//!
//! A record replaces what its session had of a step, so only what it has beyond that is booked. Reads no clock.

use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::store::error::Error;
use crate::store::record::{Record, StepRecord};
use crate::store::run::RunNumber;
use crate::types::{Booked, Day, NanoUsd, ProviderName, Trail};

use super::Sqlite;
use super::row::{Odd, Seal};
use super::write::CHUNKS;

/// A step of an item in a session.
type Place<'a> = (i64, i64, i64, &'a str);

type ByProvider = BTreeMap<ProviderName, Booked>;

/// Books what the steps of `records` cost more than is recorded of them; to be called before they are written.
pub(super) async fn book_records(
    change: &mut SqliteConnection,
    records: &[Record],
    day: Day,
) -> Result<(), Odd> {
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
) -> Result<(), Odd> {
    let query = "INSERT OR REPLACE INTO spending (day, provider, run, cost, perhaps, checksum) \
                 VALUES (?, ?, ?, ?, ?, ?)";
    for ((run, provider), booked) in more {
        if booked == Booked::default() {
            continue;
        }
        let found = "SELECT * FROM spending WHERE day = ? AND provider = ? AND run = ?";
        let found = sqlx::query(found).bind(day.0).bind(provider.as_str()).bind(run);
        let found = found.fetch_optional(&mut *change).await?;
        let before = found.as_ref().map(SpendingRow::read).transpose()?;
        let (cost, perhaps) = before.map_or((0, 0), |before| (before.cost, before.perhaps));
        let sum =
            |before: i64, more: NanoUsd| before.saturating_add(i64::try_from(more.0).unwrap_or(i64::MAX));
        let row = SpendingRow {
            day: day.0,
            provider: provider.as_str().to_owned(),
            run,
            cost: sum(cost, booked.cost),
            perhaps: sum(perhaps, booked.perhaps),
        };
        let query = sqlx::query(query).bind(row.day).bind(&row.provider).bind(run);
        query.bind(row.cost).bind(row.perhaps).bind(row.checksum()).execute(&mut *change).await?;
    }
    Ok(())
}

/// A row of `spending`.
struct SpendingRow {
    day: i64,
    provider: String,
    run: i64,
    cost: i64,
    perhaps: i64,
}

impl SpendingRow {
    /// Reads a row, without a look at its checksum.
    fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            day: row.try_get("day")?,
            provider: row.try_get("provider")?,
            run: row.try_get("run")?,
            cost: row.try_get("cost")?,
            perhaps: row.try_get("perhaps")?,
        })
    }

    /// Reads a row that is what was written.
    fn read(row: &SqliteRow) -> Result<Self, Odd> {
        let read = Self::of(row)?;
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(Odd::Seal) }
    }

    fn checksum(&self) -> i64 {
        let mut sum = Seal::default();
        sum.numbers(&[self.day, self.run, self.cost, self.perhaps]);
        sum.text(Some(&self.provider));
        sum.close()
    }
}

/// Gives every row of an earlier version, which has none, its checksum.
pub(super) async fn add_checksums(change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let query = "UPDATE spending SET checksum = ? WHERE day = ? AND provider = ? AND run = ?";
    for row in sqlx::query("SELECT * FROM spending").fetch_all(&mut *change).await? {
        let row = SpendingRow::of(&row)?;
        let query = sqlx::query(query).bind(row.checksum()).bind(row.day).bind(&row.provider).bind(row.run);
        query.execute(&mut *change).await?;
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
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM spending WHERE ");
        query.push(column).push(" = ").push_bind(is);
        let rows = query.build().fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        let mut sums = ByProvider::new();
        for row in rows {
            let row = SpendingRow::read(&row).map_err(|odd| self.odd_spending(&odd))?;
            let amount = |money: i64| NanoUsd(u64::try_from(money).unwrap_or(0));
            let booked = Booked { cost: amount(row.cost), perhaps: amount(row.perhaps) };
            *sums.entry(ProviderName::from(row.provider.as_str())).or_default() += booked;
        }
        Ok(sums)
    }

    pub(super) async fn book_more(&self, run: RunNumber, day: Day, spent: &ByProvider) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let more = spent.iter().map(|(provider, booked)| ((run.0, provider.clone()), *booked)).collect();
        let mut writer = self.writer().await;
        // At once: it reads before it writes, and must not find then that another process has written meanwhile.
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        add(&mut change, day, more).await.map_err(|odd| self.odd_spending(&odd))?;
        change.commit().await.map_err(failed)
    }

    /// Says that a row of `spending` is odd, or that it could not be read or written.
    pub(super) fn odd_spending(&self, odd: &Odd) -> Error {
        match odd {
            Odd::Column(error) => self.unwritten(error),
            Odd::Json(_) | Odd::Seal | Odd::Word(_) => self.damaged(format!("a row of spending: {odd}")),
        }
    }
}
