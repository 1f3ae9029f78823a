//! `pointsman prices`: the prices of the configured models and their sources.

use comfy_table::{CellAlignment, Table, presets};

use crate::config::{Config, PriceList};
use crate::types::{Format, Price};

use super::args::Prices;
use super::config::load;
use super::exit::Exit;
use super::print::print;
use super::progress::{Mode, eprint_line};

/// Shows the prices of the configured models, or the whole built-in list.
pub(super) fn prices(args: &Prices) -> Exit {
    let rows = if args.all {
        built_in_prices()
    } else {
        match load(args.config.as_deref(), false) {
            Ok(config) => configured_prices(&config),
            Err(diagnostics) => return Mode::Lines.report_diagnostics(&diagnostics),
        }
    };
    if let Err(error) = print(&table(rows)) {
        return Mode::Lines.fail(&error.into(), Exit::IoError);
    }
    if let Some(list) = PriceList::built_in() {
        eprint_line(&format!(
            "US dollars per million tokens; over: the price of a call with a longer prompt. The built-in list is of {}: \
             prices change, and price = {{ input = .., output = .. }} under a model overrides it",
            list.read
        ));
    }
    Exit::Success
}

type Row = (String, Option<Price>, String);

fn configured_prices(config: &Config) -> Vec<Row> {
    let models = config.providers.iter().flat_map(|(provider, settings)| {
        settings.models.iter().map(move |(model, known)| {
            let source = match known.price {
                Some(_) if known.has_builtin_price => "built-in list",
                Some(_) => "configuration",
                None if settings.is_simulated() => "simulated: costs nothing",
                None => "unknown: set price under its model",
            };
            (format!("{provider}/{model}"), known.price, source.to_owned())
        })
    });
    models.collect()
}

fn built_in_prices() -> Vec<Row> {
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
    table.set_header([
        "model",
        "input",
        "output",
        "cached",
        "cache write",
        "cache write 1h",
        "over",
        "source",
    ]);
    for (model, price, source) in rows {
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
            number(price.and_then(|price| price.cache_write_1h)),
            over,
            source,
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
