//! Remembers where the sources of keys stand, for what is found only when they are read.
//!
//! Holds no key: what may be a secret is covered in the text that its places are of.

use std::collections::HashMap;

use crate::document::{Fault, Faults, Place, Places};
use crate::types::ProviderName;

use super::{Config, hide};

/// Where each source stands: which provider's, and `keys` with its number or `headers` with its name.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyPlaces(HashMap<(ProviderName, &'static str, String), Place>);

impl KeyPlaces {
    pub(super) fn of(config: &Config, places: &Places<'_>) -> Self {
        let mut found = Vec::new();
        let mut faults = Faults::default();
        for (name, settings) in &config.providers {
            let keys = (0..settings.keys.len()).map(|number| ("keys", number.to_string()));
            let headers = settings.headers.keys().map(|header| ("headers", header.to_string()));
            for (kind, which) in keys.chain(headers) {
                let path = ["provider", name.as_str(), kind, which.as_str()];
                if places.has(&path[..3]) {
                    faults.push(places.fault(&path, ""));
                    found.push((name.clone(), kind, which));
                }
            }
        }
        faults.hide(&hide::find(places));
        let place = |(source, fault): (_, Fault)| Some((source, fault.place?));
        Self(found.into_iter().zip(faults.0).filter_map(place).collect())
    }

    pub(super) fn get(&self, provider: &ProviderName, kind: &'static str, which: &str) -> Option<Place> {
        self.0.get(&(provider.clone(), kind, which.to_owned())).cloned()
    }
}

impl PartialEq for KeyPlaces {
    /// Two configurations that say the same are the same, wherever they say it.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
