//! `pointsman prices`: what the configured models cost, and where that is known from.

use comfy_table::{CellAlignment, Table, presets};

use crate::config::{Config, PriceList};
use crate::types::Price;
use crate::wire::Format;

use super::args::Prices;
use super::exit::Exit;
use super::live::{Mode, say};
use super::print::print;
use super::run::load;

/// Shows the prices of the configured models, or the whole built-in list.
pub(super) fn prices(args: &Prices) -> Exit {
    let rows = if args.all {
        listed()
    } else {
        match load(args.config.as_deref(), false) {
            Ok(config) => configured(&config),
            Err(faults) => return Mode::Lines.refuse(&faults),
        }
    };
    if let Err(error) = print(&table(rows)) {
        return Mode::Lines.fail(&error.into(), Exit::Broken);
    }
    if let Some(list) = PriceList::built_in() {
        say(&format!(
            "US dollars per million tokens; over: what a call with a longer prompt costs. The built-in list is of {}: \
             prices change, and price = {{ input = .., output = .. }} under a model overrides it",
            list.read
        ));
    }
    Exit::Done
}

type Row = (String, Option<Price>, String);

fn configured(config: &Config) -> Vec<Row> {
    let models = config.providers.iter().flat_map(|(provider, settings)| {
        settings.models.iter().map(move |(model, known)| {
            let whence = match known.price {
                Some(_) if known.is_listed => "built-in list",
                Some(_) => "configuration",
                None if settings.is_practice() => "simulated: costs nothing",
                None => "not known: set price under its model",
            };
            (format!("{provider}/{model}"), known.price, whence.to_owned())
        })
    });
    models.collect()
}

fn listed() -> Vec<Row> {
    let Some(list) = PriceList::built_in() else { return Vec::new() };
    let vendors = [Format::Anthropic, Format::Openai, Format::Gemini].map(|format| list.vendor(format));
    let rows = vendors.into_iter().flat_map(|vendor| {
        vendor.models.iter().flat_map(|(model, price)| {
            let then = vendor.then.get(model).map(|then| {
                (model.clone(), Some(then.price), format!("{} from {} on", vendor.source, then.from))
            });
            [Some((model.clone(), Some(*price), vendor.source.clone())), then].into_iter().flatten()
        })
    });
    rows.collect()
}

fn table(rows: Vec<Row>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["model", "input", "output", "cached", "cache write", "over", "known from"]);
    for (model, price, whence) in rows {
        let number =
            |dollars: Option<f64>| dollars.map_or_else(|| "-".to_owned(), |dollars| dollars.to_string());
        let long = price.and_then(|price| price.long);
        let over = long.map_or_else(String::new, |long| {
            format!("{}k: {} in, {} out", long.over / 1_000, long.input, long.output)
        });
        table.add_row([
            model,
            number(price.map(|price| price.input)),
            number(price.map(|price| price.output)),
            number(price.and_then(|price| price.cached)),
            number(price.and_then(|price| price.cache_write)),
            over,
            whence,
        ]);
    }
    for column in 1..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
