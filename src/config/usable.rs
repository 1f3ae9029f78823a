//! Reads the keys, and leaves out what cannot be used without one.
//!
//! Made-up answers never mix with real ones: a route practises only when it can do nothing else.

use std::fmt::Write;
use std::path::PathBuf;

use http::HeaderMap;
use indexmap::IndexMap;

use crate::document::{Fault, Faults};
use crate::provider::{self, Env, HeaderSource, Key, KeyError, KeySource};
use crate::router::Route;
use crate::types::{KeyLabel, ProviderName, RouteName, Secret};

use super::Config;
use super::check::meant;
use super::key_places::KeyPlaces;

/// What is left of a [`Config`] when the keys have been read.
#[derive(Debug, Clone)]
pub struct Usable {
    /// The providers that calls can go to.
    pub providers: IndexMap<ProviderName, ReadyProvider>,
    /// The routes with the lanes that remain, at least one each.
    pub routes: IndexMap<RouteName, Route>,
    /// One line for everything that was left out, and where answers will be made up.
    pub notes: Vec<String>,
    /// Routes of which no lane remains, each with the variables that it lacks.
    closed: IndexMap<RouteName, Vec<String>>,
}

/// A provider with its keys.
#[derive(Debug, Clone)]
pub struct ReadyProvider {
    /// Its settings.
    pub settings: provider::Settings,
    /// Its keys, best first; none where none is needed.
    pub keys: Vec<Key>,
    /// Its extra headers, marked as sensitive.
    pub headers: HeaderMap,
}

impl Config {
    /// Reads the keys. A provider whose variables are not set is left out with a note.
    ///
    /// # Errors
    /// Every key file and command that cannot be read.
    pub fn usable(&self, env: Env<'_>) -> Result<Usable, Faults> {
        self.read(env, Commands::Run)
    }

    /// Returns the notes that [`usable`](Self::usable) would give, without running a command: each is
    /// taken to have a key.
    ///
    /// # Errors
    /// Every key file that cannot be read.
    pub fn preview(&self, env: Env<'_>) -> Result<Vec<String>, Faults> {
        self.read(env, Commands::Trust).map(|usable| usable.notes)
    }

    fn read(&self, env: Env<'_>, commands: Commands) -> Result<Usable, Faults> {
        let mut faults = Faults::default();
        let mut notes = self.notes.clone();
        let mut providers = IndexMap::new();
        let mut missing = IndexMap::new();
        for (name, settings) in &self.providers {
            match read_keys((name, settings), &self.key_places, env, commands, &mut notes) {
                Ok(Found::Ready(ready)) => {
                    providers.insert(name.clone(), *ready);
                }
                Ok(Found::Missing(variables)) => {
                    let why: Vec<String> = variables.iter().map(|any| not_set(any)).collect();
                    notes.push(format!("{name}: skipped, {}", why.join(", and ")));
                    missing.insert(name.clone(), variables.concat());
                }
                Err(more) => faults.extend(more),
            }
        }
        let mut usable = Usable { providers, routes: IndexMap::new(), notes, closed: IndexMap::new() };
        usable.open_routes(&self.routes, &missing);
        faults.or(usable)
    }
}

impl Usable {
    /// Returns the route of this name.
    ///
    /// # Errors
    /// Why no question can go there.
    pub fn route(&self, name: &RouteName) -> Result<&Route, Fault> {
        if let Some(route) = self.routes.get(name) {
            return Ok(route);
        }
        Err(match self.closed.get(name) {
            Some(variables) => {
                let mut advice = "add a lane to it".to_owned();
                if !variables.is_empty() {
                    let _ = write!(advice, ", or set {}", variables.join(" or "));
                }
                Fault::new(format!("route `{name}` has no lane that can be used")).advise(advice)
            }
            None => {
                let known = self.routes.keys().chain(self.closed.keys()).map(RouteName::as_str);
                Fault::new(format!("there is no route `{name}`")).advise(meant(
                    name.as_str(),
                    known,
                    "routes",
                ))
            }
        })
    }

    fn open_routes(
        &mut self,
        routes: &IndexMap<RouteName, Route>,
        missing: &IndexMap<ProviderName, Vec<String>>,
    ) {
        let mut practising = Vec::new();
        for (name, route) in routes {
            let mut lanes = route.lanes.clone();
            lanes.retain(|lane| self.providers.contains_key(&lane.name.provider));
            let is_practice = |provider: &ProviderName| {
                self.providers.get(provider).is_some_and(|ready| ready.settings.is_practice())
            };
            if lanes.iter().any(|lane| !is_practice(&lane.name.provider)) {
                lanes.retain(|lane| !is_practice(&lane.name.provider));
            } else if !lanes.is_empty() {
                practising.push(name.as_str());
            }
            if lanes.is_empty() {
                let lanes = route.lanes.iter().filter_map(|lane| missing.get(&lane.name.provider));
                self.closed.insert(name.clone(), lanes.flatten().cloned().collect());
                self.notes.push(format!("route {name}: closed, none of its lanes can be used"));
            } else {
                self.routes.insert(name.clone(), Route { lanes, ..route.clone() });
            }
        }
        let routes = match practising.as_slice() {
            [] => return,
            [one] => format!("route {one}"),
            [some @ .., last] => format!("routes {} and {last}", some.join(", ")),
        };
        self.notes.push(format!("practice: answers on {routes} are made up on this machine"));
    }
}

/// What to do about keys that a command gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commands {
    Run,
    /// Take them to be there, and run nothing.
    Trust,
}

impl Commands {
    fn key(self, source: &KeySource, env: Env<'_>) -> Result<Option<Secret>, KeyError> {
        match source {
            KeySource::Command(line) if self == Self::Trust => Ok(Some(Secret::from(line.clone()))),
            KeySource::Env(_) | KeySource::File(_) | KeySource::Command(_) => source.read(env),
        }
    }

    fn trusts(self, header: &HeaderSource) -> bool {
        self == Self::Trust && matches!(header, HeaderSource::Read(KeySource::Command(_)))
    }
}

enum Found {
    Ready(Box<ReadyProvider>),
    /// The variables that are not set; of each list one would do.
    Missing(Vec<Vec<String>>),
}

fn read_keys(
    (name, settings): (&ProviderName, &provider::Settings),
    places: &KeyPlaces,
    env: Env<'_>,
    commands: Commands,
    notes: &mut Vec<String>,
) -> Result<Found, Faults> {
    let mut faults = Faults::default();
    let mut keys: Vec<Key> = Vec::new();
    let mut unset = Vec::new();
    for (number, source) in settings.keys.iter().enumerate() {
        match commands.key(source, env) {
            // A file may hold another key tomorrow.
            Ok(Some(secret))
                if file(source).is_none()
                    && keys.iter().any(|key| key.secret.expose() == secret.expose()) => {}
            Ok(Some(secret)) => keys.push(Key { label: label(source, &keys), secret, file: file(source) }),
            Ok(None) => unset.push(variable(source)),
            Err(error) => {
                let place = places.get(name, "keys", &number.to_string());
                faults.push(Fault { place, ..unreadable(name, &error) });
            }
        }
    }
    let mut headers = HeaderMap::new();
    let mut missing = Vec::new();
    for (header, source) in &settings.headers {
        if commands.trusts(source) {
            continue;
        }
        match source.read(env) {
            Ok(Some(value)) => {
                headers.insert(header.clone(), value);
            }
            Ok(None) => {
                if let HeaderSource::Read(source) = source {
                    missing.push(vec![variable(source)]);
                }
            }
            Err(error) => {
                let place = places.get(name, "headers", header.as_str());
                faults.push(Fault { place, ..unreadable(name, &error) });
            }
        }
    }
    if keys.is_empty() && settings.needs_key() {
        missing.push(std::mem::take(&mut unset));
    }
    if !missing.is_empty() {
        return faults.or(Found::Missing(missing));
    }
    if !unset.is_empty() {
        let others = keys.iter().map(|key| key.label.as_str()).collect::<Vec<_>>().join(", ");
        notes.push(format!("{name}: {}, going on with {others}", not_set(&unset)));
    }
    faults.or(Found::Ready(Box::new(ReadyProvider { settings: settings.clone(), keys, headers })))
}

/// Two commands may run the same program: a number tells them apart.
fn label(source: &KeySource, taken: &[Key]) -> KeyLabel {
    let label = source.label();
    let same =
        taken.iter().filter(|key| key.label.as_str().split('#').next() == Some(label.as_str())).count();
    if same == 0 { label } else { format!("{label}#{}", same + 1).into() }
}

fn file(source: &KeySource) -> Option<PathBuf> {
    match source {
        KeySource::File(path) => Some(path.clone()),
        KeySource::Env(_) | KeySource::Command(_) => None,
    }
}

fn variable(source: &KeySource) -> String {
    match source {
        KeySource::Env(name) => name.clone(),
        KeySource::File(_) | KeySource::Command(_) => source.label().to_string(),
    }
}

fn unreadable(name: &ProviderName, error: &KeyError) -> Fault {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = error.to_string();
    let (wrong, advice) = text.split_once("; ").unwrap_or((&text, error.advice()));
    Fault::new(format!("provider `{name}`: {wrong}{cause}")).advise(advice)
}

fn not_set(variables: &[String]) -> String {
    match variables {
        [one] => format!("{one} is not set"),
        [one, other] => format!("neither {one} nor {other} is set"),
        many => format!("none of {} is set", many.join(", ")),
    }
}
