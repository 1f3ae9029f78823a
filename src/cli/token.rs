//! `pointsman token`: creates, lists and revokes tokens of the daemon, in its store.
//!
//! A daemon that is running notices a change within two seconds.

use std::time::Duration;

use anyhow::Context;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::daemon::{Error, Kind, NewToken, TokenLimits, TokenStore, TokenView};
use crate::terminal_text;
use crate::types::{NanoUsd, Secret};

use super::args::{self, RevokeToken, TokenCommand, TokenList};
use super::exit::Exit;
use super::open_store::{OpenedStore, fail};
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};
use super::progress_text::{count, money};
use super::remote::requests::Remote;
use super::remote::server_url::path_segment;

/// Who changes a token from the command line: not a token.
const OPERATOR: &str = "";

/// Creates, lists or revokes tokens.
pub(super) fn token(args: &args::Token) -> Exit {
    let ended = match &args.command {
        TokenCommand::New(new) => create(new),
        TokenCommand::List(args) => list(args),
        TokenCommand::Revoke(args) => revoke(args),
    };
    let Err(error) = ended else { return Exit::Success };
    match error.downcast_ref::<Error>().map(Error::kind) {
        Some(Kind::Invalid) => Mode::Lines.fail(&error, Exit::Usage),
        Some(
            Kind::NotFound
            | Kind::Conflict
            | Kind::Changed
            | Kind::Forbidden
            | Kind::Precondition
            | Kind::Busy
            | Kind::Stopping
            | Kind::Internal,
        )
        | None => fail(Mode::Lines, error),
    }
}

fn create(args: &args::NewToken) -> anyhow::Result<()> {
    let mut limits = TokenLimits::new();
    limits.requests_per_minute = args.rate;
    limits.concurrency = args.concurrency;
    limits.budget = args.budget;
    let mut new = NewToken::new(args.name.clone(), args.permissions.clone()).with_limits(limits);
    new.expires_in = args.expires;
    // Before the store is created.
    new.check()?;
    let (token, secret) = match args.store.remote()? {
        Some(remote) => create_at(&remote, args)?,
        None => {
            let OpenedStore { runtime, store, .. } = OpenedStore::or_new(&args.store)?;
            runtime.block_on(TokenStore::new(store).create(&new, OPERATOR))?
        }
    };
    // Alone on stdout, so that a script can keep it.
    print(secret.expose())?;
    eprint_line(&format!("token {} created: {}", token.name, facts(&token).join(", ")));
    eprint_line("it cannot be shown again; send it in the header `Authorization: Bearer TOKEN`");
    Ok(())
}

/// Returns a lifetime as a daemon reads it. Only in days may it be longer than a year.
fn lifetime_text(lifetime: Duration) -> String {
    let seconds = lifetime.as_secs();
    if seconds.is_multiple_of(86_400) {
        format!("{}d", seconds / 86_400)
    } else {
        format!("{}ms", lifetime.as_millis())
    }
}

/// Asks a daemon for a token.
fn create_at(remote: &Remote, args: &args::NewToken) -> anyhow::Result<(TokenView, Secret)> {
    let expires_in = args.expires.map(lifetime_text);
    let body = json!({
        "name": args.name, "permissions": args.permissions, "requests_per_minute": args.rate,
        "concurrency": args.concurrency, "budget_usd": args.budget.map(NanoUsd::dollars), "expires_in": expires_in,
    });
    let created: Value = remote.post("/tokens", &body)?;
    let secret = created.get("token").and_then(Value::as_str).context("the daemon has sent no token")?;
    let secret = Secret::from(secret.to_owned());
    Ok((remote.parse(created)?, secret))
}

fn list(args: &TokenList) -> anyhow::Result<()> {
    let tokens: Vec<TokenView> = match args.store.remote()? {
        Some(remote) => remote.get("/tokens")?,
        None => {
            let OpenedStore { runtime, store, .. } = OpenedStore::to_read(&args.store)?;
            runtime.block_on(TokenStore::new(store).list())?
        }
    };
    if args.json {
        let lines: Vec<String> = tokens.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        return if lines.is_empty() { Ok(()) } else { Ok(print_json(&lines.join("\n"))?) };
    }
    if tokens.is_empty() {
        eprint_line("there are no tokens");
        return Ok(());
    }
    Ok(print(&table(&tokens))?)
}

fn revoke(args: &RevokeToken) -> anyhow::Result<()> {
    if let Some(remote) = args.store.remote()? {
        remote.delete(&format!("/tokens/{}", path_segment(&args.name)))?;
        eprint_line(&format!("token {} is revoked", args.name));
        return Ok(());
    }
    let OpenedStore { runtime, store, .. } = OpenedStore::of(&args.store)?;
    runtime.block_on(TokenStore::new(store).revoke(&args.name, OPERATOR))?;
    eprint_line(&format!("token {} is revoked; a running daemon refuses it within two seconds", args.name));
    Ok(())
}

/// Returns what a token allows, each as a few words.
fn facts(token: &TokenView) -> Vec<String> {
    let mut facts = vec![permissions(token)];
    facts.extend(token.requests_per_minute.map(|rate| format!("{} requests per minute", count(rate.get()))));
    facts.extend(token.concurrency.map(|requests| format!("{requests} at once")));
    facts.extend(token.budget_usd.map(|dollars| format!("{} a day", money(dollars))));
    facts.push(match token.expires_at {
        Some(at) => format!("valid until {} UTC", time(at)),
        None => "valid until it is revoked".to_owned(),
    });
    facts
}

fn table(tokens: &[TokenView]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "token",
        "ID",
        "state",
        "permissions",
        "per minute",
        "at once",
        "per day",
        "created (UTC)",
        "by",
        "expires (UTC)",
        "last used (UTC)",
    ]);
    for token in tokens {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            terminal_text::line(&token.name).into_owned(),
            terminal_text::line(&token.id).into_owned(),
            token.state.to_owned(),
            permissions(token),
            or_none(token.requests_per_minute.map(|rate| count(rate.get()))),
            or_none(token.concurrency.map(|requests| requests.to_string())),
            or_none(token.budget_usd.map(money)),
            time(token.created_at),
            or_none(Some(token.created_by.clone()).filter(|by| !by.is_empty())),
            or_none(token.expires_at.map(time)),
            or_none(token.last_used_at.map(time)),
        ]);
    }
    table.trim_fmt()
}

fn permissions(token: &TokenView) -> String {
    token.permissions.iter().map(|permission| permission.as_str()).collect::<Vec<_>>().join(",")
}

fn time(at: i64) -> String {
    Timestamp::from_millisecond(at).map(|at| at.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default()
}
