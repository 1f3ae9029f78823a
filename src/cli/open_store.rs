//! Opens the store for commands that list or change stored runs.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use tokio::runtime::{Builder, Runtime};

use crate::clock;
use crate::config::Config;
use crate::provider::process_env;
use crate::runtime::Error;
use crate::store::{self, Store, StoreUrl};

use super::args::StoreArgs;
#[cfg(feature = "server")]
use super::config::is_file_found;
use super::config::load;
use super::exit::Exit;
use super::progress::Mode;

/// Returns the store's URL, from the command or else from the configuration.
pub(super) fn store_url(argument: Option<&StoreUrl>, config: &Config) -> StoreUrl {
    argument.unwrap_or(&config.store.url).clone()
}

/// An existing store, for commands that list or change stored runs.
pub(super) struct OpenedStore {
    pub(super) runtime: Runtime,
    pub(super) store: Arc<dyn Store>,
    pub(super) url: StoreUrl,
}

impl OpenedStore {
    /// Opens the store for reading. It may be read-only.
    pub(super) fn to_read(args: &StoreArgs) -> anyhow::Result<Self> {
        Self::with(args, async |url| url.open_to_read().await)
    }

    /// Opens the store for writing, and creates it if it does not exist.
    #[cfg(feature = "server")]
    pub(super) fn or_new(args: &StoreArgs) -> anyhow::Result<Self> {
        clock::check()?;
        let url = match &args.store {
            Some(url) => url.clone(),
            None => match load(args.config.as_deref(), false) {
                Ok(config) => config.store.url,
                // The environment alone need not name a provider. A file that is faulty may name another store.
                Err(_) if !is_file_found(args.config.as_deref()) => StoreUrl::default(),
                Err(diagnostics) => return Err(Error::Diagnostics(diagnostics).into()),
            },
        };
        ensure!(
            url.path().is_some(),
            "nothing is stored: [store] url is \"none\"; name a store with --store sqlite:FILE"
        );
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let store = runtime.block_on(url.open())?.context("nothing is stored")?;
        Ok(Self { runtime, store, url })
    }

    /// Opens the store for writing.
    pub(super) fn of(args: &StoreArgs) -> anyhow::Result<Self> {
        Self::with(args, async |url| url.open().await)
    }

    fn with(
        args: &StoreArgs,
        open: impl AsyncFnOnce(&StoreUrl) -> Result<Option<Arc<dyn Store>>, store::Error>,
    ) -> anyhow::Result<Self> {
        clock::check()?;
        let url = match &args.store {
            Some(url) => url.clone(),
            None => match load(args.config.as_deref(), false) {
                Ok(config) => config.store.url,
                // A command that only reads stored runs needs no valid configuration, unless the user names one: it may name
                // another store.
                Err(_) if args.config.is_none() && !Config::is_named_by_environment(&process_env) => {
                    StoreUrl::default()
                }
                Err(diagnostics) => return Err(Error::Diagnostics(diagnostics).into()),
            },
        };
        let Some(path) = url.path() else {
            bail!("runs are not stored: [store] url is \"none\"; name a store with --store sqlite:FILE");
        };
        ensure!(
            path.exists(),
            "no runs are stored here: {} does not exist. Change to the run's directory, or name its store with --store \
             sqlite:FILE",
            path.display()
        );
        // These commands create no run, so that they do not make a database of an empty file.
        ensure!(
            !path.metadata().is_ok_and(|file| file.is_file() && file.len() == 0),
            "no runs are stored here: {} is empty. Name another store with --store sqlite:FILE",
            path.display()
        );
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let store = runtime.block_on(open(&url))?.context("runs are not stored")?;
        Ok(Self { runtime, store, url })
    }
}

/// Shows why a command failed; problems of a configuration in their own format.
pub(super) fn fail(mode: Mode, error: anyhow::Error) -> Exit {
    match error.downcast::<Error>() {
        Ok(Error::Diagnostics(diagnostics)) => mode.report_diagnostics(&diagnostics),
        Ok(error) => mode.fail(&error.into(), Exit::IoError),
        Err(error) => mode.fail(&error, Exit::IoError),
    }
}
