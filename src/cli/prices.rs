//! `pointsman prices`: the prices of the configured models and their sources.

use comfy_table::{CellAlignment, Table, presets};
use jiff::civil::Date;
use serde::Serialize;

use crate::config::{Config, PriceList};
use crate::types::{Format, Price};

use super::args::Prices;
use super::config::load;
use super::exit::Exit;
use super::open_store::fail;
use super::print::{cell, print, print_json};
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
                let shown = prices_of(&remote, args.json);
                return shown.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success);
            }
            Ok(None) => {}
            Err(error) => return fail(Mode::Lines, error),
        }
    }
    let built_in_list_of = PriceList::built_in().map(|list| list.read.to_string());
    let shown = if args.all {
        show(&built_in_prices(), built_in_list_of, args.json)
    } else {
        match load(args.config.as_deref(), false) {
            Ok(config) => show(&configured_prices(&config), built_in_list_of, args.json),
            Err(diagnostics) => return Mode::Lines.report_diagnostics(&diagnostics),
        }
    };
    shown.map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

/// Shows the prices of the models of a daemon.
#[cfg(feature = "server")]
fn prices_of(remote: &Remote, as_json: bool) -> anyhow::Result<()> {
    let PricesView { built_in_list_of, prices } = remote.get("/prices")?;
    let rows =
        prices.into_iter().map(|PriceView { target, price, source }| TargetPrice { target, price, source });
    show(&rows.collect::<Vec<_>>(), built_in_list_of, as_json)
}

/// The price of a configured model, as the daemon describes it.
#[derive(Debug, Serialize)]
struct TargetPrice {
    target: String,
    price: Option<Price>,
    /// One of [`SOURCES`].
    source: String,
}

/// The words for the sources of prices, each with what the table shows.
const SOURCES: [(&str, &str); 4] = [
    ("built_in_list", "built-in list"),
    ("configuration", "configuration"),
    ("simulated", "simulated: costs nothing"),
    ("unknown", "unknown: set price under its model"),
];

/// A price of the built-in list.
#[derive(Debug, Serialize)]
struct ListPrice {
    vendor: &'static str,
    model: String,
    price: Price,
    /// The first day of an announced price; `None` for today's.
    from: Option<Date>,
    /// The address of the vendor's list.
    source: String,
}

/// A price, as the table shows it.
trait Row: Serialize {
    /// Returns the model or target.
    fn name(&self) -> String;
    /// Returns the price, if it is known.
    fn price(&self) -> Option<Price>;
    /// Returns where it is from.
    fn source(&self) -> String;
}

impl Row for TargetPrice {
    fn name(&self) -> String {
        self.target.clone()
    }

    fn price(&self) -> Option<Price> {
        self.price
    }

    fn source(&self) -> String {
        let known = SOURCES.iter().find(|(word, _)| *word == self.source);
        known.map_or_else(|| self.source.clone(), |(_, shown)| (*shown).to_owned())
    }
}

impl Row for ListPrice {
    fn name(&self) -> String {
        self.model.clone()
    }

    fn price(&self) -> Option<Price> {
        Some(self.price)
    }

    fn source(&self) -> String {
        match self.from {
            Some(day) => format!("{} from {day} on", self.source),
            None => self.source.clone(),
        }
    }
}

fn show(rows: &[impl Row], built_in_list_of: Option<String>, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let lines: Vec<String> = rows.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    }
    print(&table(rows))?;
    if let Some(day) = built_in_list_of {
        eprint_line(&format!(
            "US dollars per million tokens; over: the price of a call with a longer prompt. The built-in list is of {day}: \
             prices change, and price = {{ input = .., output = .. }} under a model overrides it"
        ));
    }
    Ok(())
}

fn configured_prices(config: &Config) -> Vec<TargetPrice> {
    let models = config.providers.iter().flat_map(|(provider, settings)| {
        settings.models.iter().map(move |(model, known)| {
            let source = match known.price {
                Some(_) if known.has_builtin_price => "built_in_list",
                Some(_) => "configuration",
                None if settings.is_simulated() => "simulated",
                None => "unknown",
            };
            TargetPrice {
                target: format!("{provider}/{model}"),
                price: known.price,
                source: source.to_owned(),
            }
        })
    });
    models.collect()
}

fn built_in_prices() -> Vec<ListPrice> {
    let Some(list) = PriceList::built_in() else { return Vec::new() };
    let rows = [Format::Anthropic, Format::Openai, Format::Gemini].into_iter().flat_map(|format| {
        let vendor = list.vendor(format);
        vendor.models.iter().flat_map(move |(model, price)| {
            let row = |price: Price, from: Option<Date>| ListPrice {
                vendor: format.as_str(),
                model: model.clone(),
                price,
                from,
                source: vendor.source.clone(),
            };
            let then = vendor.then.get(model).map(|then| row(then.price, Some(then.from)));
            [Some(row(*price, None)), then].into_iter().flatten()
        })
    });
    rows.collect()
}

fn table(rows: &[impl Row]) -> String {
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
    for row in rows {
        let price = row.price();
        let number =
            |dollars: Option<f64>| dollars.map_or_else(|| "-".to_owned(), |dollars| dollars.to_string());
        let long = price.and_then(|price| price.long);
        let over = long.map_or_else(String::new, |long| {
            format!("{}k: {} in, {} out", long.over / 1_000, long.input, long.output)
        });
        table.add_row([
            cell(&row.name()),
            number(price.map(|price| price.input)),
            number(price.map(|price| price.output)),
            number(price.and_then(|price| price.cached)),
            number(price.and_then(|price| price.cache_write)),
            number(price.and_then(|price| price.cache_write_1h)),
            over,
            row.source(),
        ]);
    }
    for column in 1..6 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
