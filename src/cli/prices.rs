//! `pointsman prices`: the prices of the configured models and their sources.

use comfy_table::{CellAlignment, Table, presets};

use crate::config::{Config, PriceList};
use crate::types::{Format, Price};

use super::args::Prices;
use super::config::load;
use super::exit::Exit;
use super::open_store::fail;
use super::print::print;
use super::progress::{Mode, eprint_line};
#[cfg(feature = "server")]
use super::remote::requests::Remote;
#[cfg(feature = "server")]
use super::remote::views::{PriceView, PricesView};

/// Shows the prices of the configured models, or the whole built-in list.
pub(super) fn prices(args: &Prices) -> Exit {
    #[cfg(feature = "server")]
    if !args.all {
        match args.server.remote(args.config.is_some()) {
            Ok(Some(remote)) => {
                let shown = prices_of(&remote);
                return shown.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success);
            }
            Ok(None) => {}
            Err(error) => return fail(Mode::Lines, error),
        }
    }
    let rows = if args.all {
        built_in_prices()
    } else {
        match load(args.config.as_deref(), false) {
            Ok(config) => configured_prices(&config),
            Err(diagnostics) => return Mode::Lines.report_diagnostics(&diagnostics),
        }
    };
    let shown = show(rows, PriceList::built_in().map(|list| list.read.to_string()));
    shown.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

/// Shows the prices of the models of a daemon.
#[cfg(feature = "server")]
fn prices_of(remote: &Remote) -> anyhow::Result<()> {
    let PricesView { built_in_list_of, prices } = remote.get("/prices")?;
    let rows = prices.into_iter().map(|PriceView { target, price, source }| {
        let source = match source.as_str() {
            "built_in_list" => BUILT_IN.to_owned(),
            "simulated" => SIMULATED.to_owned(),
            "unknown" => UNKNOWN.to_owned(),
            _ => source,
        };
        (target, price, source)
    });
    show(rows.collect(), built_in_list_of)
}

fn show(rows: Vec<Row>, built_in_list_of: Option<String>) -> anyhow::Result<()> {
    print(&table(rows))?;
    if let Some(day) = built_in_list_of {
        eprint_line(&format!(
            "US dollars per million tokens; over: the price of a call with a longer prompt. The built-in list is of {day}: \
             prices change, and price = {{ input = .., output = .. }} under a model overrides it"
        ));
    }
    Ok(())
}

type Row = (String, Option<Price>, String);

/// The sources of prices.
const BUILT_IN: &str = "built-in list";
const CONFIGURED: &str = "configuration";
const SIMULATED: &str = "simulated: costs nothing";
const UNKNOWN: &str = "unknown: set price under its model";

fn configured_prices(config: &Config) -> Vec<Row> {
    let models = config.providers.iter().flat_map(|(provider, settings)| {
        settings.models.iter().map(move |(model, known)| {
            let source = match known.price {
                Some(_) if known.has_builtin_price => BUILT_IN,
                Some(_) => CONFIGURED,
                None if settings.is_simulated() => SIMULATED,
                None => UNKNOWN,
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
