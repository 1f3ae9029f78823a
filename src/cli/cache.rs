//! `pointsman cache`: shows and prunes the answer cache.

use anyhow::ensure;
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::store::{CacheLimits, CachedTarget};
use crate::terminal_text;
use crate::types::{NanoUsd, utc_time};

use super::args::{Cache, CacheCommand, CacheStore, PruneCache};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail};
use super::print::{print, print_json};
use super::progress::Mode;
use super::progress_text::{count, counted, money};

/// Shows or prunes the answer cache.
pub(super) fn cache(args: &Cache) -> Exit {
    let ended = match &args.command {
        Some(CacheCommand::Prune(prune)) => remove(prune),
        None => show(&args.store, args.json),
    };
    ended.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

/// The cache as JSON. The names of its fields are a compatibility promise.
#[derive(Serialize)]
struct Shown {
    entries: u64,
    bytes: u64,
    hits: u64,
    cost_usd: f64,
    targets: Vec<ShownTarget>,
}

#[derive(Serialize)]
struct ShownTarget {
    #[serde(flatten)]
    target: CachedTarget,
    cost_usd: f64,
    #[serde(with = "utc_time")]
    oldest_at: i64,
    #[serde(with = "utc_time")]
    last_used_at: i64,
}

impl From<CachedTarget> for ShownTarget {
    fn from(target: CachedTarget) -> Self {
        let cost_usd = target.cost.dollars();
        let oldest_at = target.oldest_at;
        let last_used_at = target.last_used_at;
        Self { target, cost_usd, oldest_at, last_used_at }
    }
}

fn show(store: &CacheStore, json: bool) -> anyhow::Result<()> {
    let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&store.into())?;
    let targets = runtime.block_on(store.cached_targets())?;
    let sum = |of: fn(&CachedTarget) -> u64| targets.iter().map(of).sum::<u64>();
    let entries = sum(|target| target.entries);
    let bytes = sum(|target| target.bytes);
    let hits = sum(|target| target.hits);
    let cost_usd = NanoUsd(sum(|target| target.cost.0)).dollars();
    if json {
        let targets = targets.into_iter().map(ShownTarget::from).collect();
        let shown = Shown { entries, bytes, hits, cost_usd, targets };
        return Ok(print_json(&serde_json::to_string_pretty(&shown)?)?);
    }
    if entries == 0 {
        return Ok(print("the answer cache is empty")?);
    }
    let answers = counted(entries, "answer");
    let uses = counted(hits, "time");
    let cost = money(cost_usd);
    let total = format!("{answers}, {}, used {uses}; their requests had cost {cost}", size(bytes));
    Ok(print(&format!("{}\n{total}", table(&targets)))?)
}

fn table(targets: &[CachedTarget]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["target", "answers", "size", "hits", "cost", "oldest (UTC)", "last used (UTC)"]);
    for target in targets {
        table.add_row([
            terminal_text::line(&target.target).into_owned(),
            count(target.entries),
            size(target.bytes),
            count(target.hits),
            money(target.cost.dollars()),
            minute(target.oldest_at),
            minute(target.last_used_at),
        ]);
    }
    for column in 1..=4 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

fn minute(milliseconds: i64) -> String {
    Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| String::new(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// Formats a number of bytes with its unit.
fn size(bytes: u64) -> String {
    for (unit, of) in [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes >= of {
            return format!("{:.1} {unit}", bytes as f64 / of as f64);
        }
    }
    format!("{bytes} B")
}

fn remove(args: &PruneCache) -> anyhow::Result<()> {
    let max_bytes = args.max_size.map(|size| size.0 as u64);
    let limits = CacheLimits { max_age: args.older_than, max_bytes };
    ensure!(limits != CacheLimits::NONE, "name what to remove: --older-than AGE, --max-size SIZE or both");
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&(&args.store).into())?;
    let pruned = runtime.block_on(store.prune_cache(limits))?;
    if pruned.entries > 0 {
        runtime.block_on(store.vacuum())?;
    }
    if args.json {
        return Ok(print_json(&serde_json::to_string(&pruned)?)?);
    }
    let answers = counted(pruned.entries, "answer");
    Ok(print(&format!("{answers} removed, {}; the runs keep their answers", size(pruned.bytes)))?)
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_has_the_largest_unit_that_fits() {
        let shown = [0, 1_023, 1_024, 1_536, 5 << 20, 3 << 30].map(size);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
