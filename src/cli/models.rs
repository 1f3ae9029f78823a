//! `pointsman models`: the models that the configured providers offer.

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use tokio::runtime::Builder;

use crate::config::{Config, LoadOptions};
use crate::diagnostics::nearest;
use crate::provider::process_env;
use crate::runtime::{Error, ListedModel, ProviderModels, list_models};
use crate::types::ProviderName;

use super::config_args::Models;
use super::exit::Exit;
use super::open_store::fail;
use super::print::{cell, print, print_json};
use super::progress::{Mode, eprint_line};

/// Lists the models.
pub(super) fn models(args: &Models) -> Exit {
    let listed = list(args).and_then(|listed| {
        show(args, &listed)?;
        Ok(listed)
    });
    match listed {
        Ok(listed) if listed.iter().any(|provider| provider.was_asked && provider.error.is_some()) => {
            Exit::IoError
        }
        Ok(listed) if listed.iter().all(|provider| provider.error.is_some()) => Exit::Configuration,
        Ok(_) => Exit::Success,
        Err(error) => fail(Mode::Lines, error),
    }
}

fn list(args: &Models) -> anyhow::Result<Vec<ProviderModels>> {
    let options = LoadOptions::new().with_file(args.config.as_deref()).with_optional_models();
    let mut config = Config::load_as(options, &process_env).map_err(Error::Diagnostics)?;
    if let Some(wanted) = &args.provider {
        config.keep_provider(wanted).map_err(|known| unknown(wanted, &known))?;
    }
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    Ok(runtime.block_on(list_models(&config, &process_env)).map_err(Error::Diagnostics)?)
}

fn unknown(wanted: &ProviderName, known: &[ProviderName]) -> anyhow::Error {
    let near = nearest(wanted.as_str(), known.iter().map(ProviderName::as_str));
    match near {
        Some(near) => anyhow::anyhow!("there is no provider `{wanted}`; did you mean {near}?"),
        None if known.is_empty() => anyhow::anyhow!("there is no provider `{wanted}`: none is configured"),
        None => {
            let known: Vec<&str> = known.iter().map(ProviderName::as_str).collect();
            anyhow::anyhow!("there is no provider `{wanted}`; the providers are {}", known.join(", "))
        }
    }
}

fn show(args: &Models, listed: &[ProviderModels]) -> anyhow::Result<()> {
    if args.json {
        return Ok(print_json(&serde_json::to_string_pretty(listed)?)?);
    }
    let rows =
        listed.iter().flat_map(|provider| provider.models.iter().map(|model| (&provider.provider, model)));
    let rows: Vec<_> = rows.collect();
    if !rows.is_empty() {
        print(&table(&rows))?;
    }
    for provider in listed {
        if let Some(error) = &provider.error {
            eprint_line(&format!("{}: {error}", provider.provider));
        } else if provider.models.is_empty() {
            eprint_line(&format!("{}: it offers no models", provider.provider));
        }
    }
    if !rows.is_empty() {
        eprint_line(
            "context and output in tokens, prices in US dollars per million tokens; `-`: not known. `pointsman run --model \
             PROVIDER/MODEL` uses a model",
        );
    }
    Ok(())
}

fn table(rows: &[(&ProviderName, &ListedModel)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["model", "context", "output", "input $", "output $", "configured as"]);
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    for (provider, model) in rows {
        let price =
            |part: fn(&crate::types::Price) -> f64| model.price.as_ref().map(|price| part(price).to_string());
        let alias = model.configured_as.as_ref().filter(|alias| **alias != model.name);
        let configured = match (&model.configured_as, alias) {
            (_, Some(alias)) => format!("{provider}/{alias}"),
            (Some(_), None) => "this name".to_owned(),
            (None, None) => String::new(),
        };
        table.add_row([
            cell(&format!("{provider}/{}", model.name)),
            text(model.context.map(|tokens| tokens.to_string())),
            text(model.max_output.map(|tokens| tokens.to_string())),
            text(price(|price| price.input)),
            text(price(|price| price.output)),
            cell(&configured),
        ]);
    }
    for column in 1..5 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}
