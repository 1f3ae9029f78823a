//! Finds the configuration file that a caller has not named.
//!
//! In this order: the variable `POINTSMAN_CONFIG`; `pointsman.toml` and `config.toml` in the working directory; the same
//! names in the folder of the pipeline; `pointsman/config.toml` in the user's folder for configurations. `config.toml` is
//! a common name: one without any of our tables belongs to another program.

use std::path::{Path, PathBuf};

use crate::diagnostics::nearest;
use crate::provider::Env;

/// The tables at the top of a configuration.
const TABLES: &[&str] = &[
    "provider",
    "route",
    "retry",
    "defaults",
    #[cfg(feature = "simulator")]
    "simulator",
    "run",
    "files",
    "store",
    "budget",
    "scope",
    "supervisor",
    "serve",
];

/// The variable that names the configuration.
pub(super) const VARIABLE: &str = "POINTSMAN_CONFIG";

/// The name of a configuration that is always ours.
const OWN_NAME: &str = "pointsman.toml";

/// The name of a configuration that other programs have, too.
const COMMON_NAME: &str = "config.toml";

/// The names of a configuration in a folder, the preferred one first.
pub(crate) const FILE_NAMES: [&str; 2] = [OWN_NAME, COMMON_NAME];

/// The largest file that is examined. A larger one is no configuration of ours, or its error names it.
const MAX_EXAMINED_BYTES: u64 = 4 << 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Discovered {
    /// The configuration, if there is one.
    pub(super) file: Option<PathBuf>,
    /// Whether the variable names it.
    pub(super) is_from_variable: bool,
    /// A note for each file that belongs to another program.
    pub(super) notes: Vec<String>,
}

/// Finds the configuration: the one that a caller has `named`, or else the first that exists.
pub(super) fn find(named: Option<&Path>, pipeline: Option<&Path>, env: Env<'_>) -> Discovered {
    if let Some(named) = named {
        return Discovered { file: Some(named.to_owned()), ..Discovered::default() };
    }
    if let Some(named) = path_in(VARIABLE, env) {
        return Discovered { file: Some(named), is_from_variable: true, notes: Vec::new() };
    }
    let beside_pipeline = pipeline.and_then(Path::parent).filter(|folder| !is_working_directory(folder));
    find_in([Some(Path::new("")), beside_pipeline].into_iter().flatten(), env)
}

/// Finds the configuration in these folders, or else that of the user.
fn find_in<'f>(folders: impl Iterator<Item = &'f Path>, env: Env<'_>) -> Discovered {
    let mut found = Discovered::default();
    for folder in folders {
        for name in FILE_NAMES {
            let file = folder.join(name);
            if !file.is_file() {
                continue;
            }
            match (name == COMMON_NAME).then(|| foreign(&file)).flatten() {
                Some(note) => found.notes.push(note),
                None => {
                    found.file = Some(file);
                    return found;
                }
            }
        }
    }
    found.file = user_file(env).filter(|file| file.exists());
    found
}

/// Returns the user's configuration, whether it exists or not.
fn user_file(env: Env<'_>) -> Option<PathBuf> {
    // A relative path is invalid in this variable.
    let configured = path_in("XDG_CONFIG_HOME", env).filter(|folder| folder.is_absolute());
    let folder = configured.or_else(|| Some(path_in("HOME", env)?.join(".config")))?;
    Some(folder.join("pointsman").join(COMMON_NAME))
}

fn path_in(variable: &str, env: Env<'_>) -> Option<PathBuf> {
    env(variable).filter(|value| !value.trim().is_empty()).map(PathBuf::from)
}

fn is_working_directory(folder: &Path) -> bool {
    if folder.as_os_str().is_empty() || folder == Path::new(".") {
        return true;
    }
    let real = |path: &Path| path.canonicalize().ok();
    real(folder).is_some_and(|folder| real(Path::new(".")) == Some(folder))
}

/// Returns why a `config.toml` belongs to another program; `None` if it is ours. One that cannot be read is ours, so that
/// its error is shown.
fn foreign(file: &Path) -> Option<String> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_EXAMINED_BYTES {
        return None;
    }
    let text = String::from_utf8_lossy(&std::fs::read(file).ok()?).into_owned();
    let advice = format!("rename it to {OWN_NAME} if it is meant");
    match text.parse::<toml::Table>() {
        Ok(table) if table.is_empty() || has_our_table(&table) => None,
        Ok(_) => Some(format!(
            "{} has none of the tables of a configuration and is skipped; {advice}",
            file.display()
        )),
        Err(_) if has_our_header(&text) => None,
        Err(_) => Some(format!("{} is no configuration and is skipped; {advice}", file.display())),
    }
}

fn has_our_table(table: &toml::Table) -> bool {
    table.iter().any(|(name, value)| TABLES.contains(&name.as_str()) || is_misspelled(name, value))
}

/// The tables that most configurations have, with keys of theirs that other programs hardly have in such a table.
const TYPICAL_TABLES: [(&str, &[&str]); 2] =
    [("provider", &["base_url", "keys", "models"]), ("route", &["targets"])];

/// Returns whether a table is one of ours with a misspelled name: its error then suggests the name.
fn is_misspelled(name: &str, value: &toml::Value) -> bool {
    TYPICAL_TABLES.iter().any(|(ours, keys)| {
        let tables = value.as_table().into_iter().flat_map(toml::Table::values);
        let mut tables = tables.filter_map(toml::Value::as_table);
        nearest(name, [*ours].into_iter()).is_some()
            && tables.any(|table| keys.iter().any(|key| table.contains_key(*key)))
    })
}

/// Returns whether a text that is not TOML has a line that begins one of our tables.
fn has_our_header(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        let name = line.trim_start_matches('[').trim_start();
        let end = name.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(name.len());
        let rest = name[end..].trim_start();
        let is_header = line.starts_with('[') && rest.starts_with(['.', ']']);
        let is_dotted = !line.starts_with('[') && rest.starts_with('.');
        (is_header || is_dotted) && TABLES.contains(&&name[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_toml_without_our_tables_belongs_to_another_program() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(COMMON_NAME);
        let is_foreign = |text: &str| {
            std::fs::write(&file, text).unwrap();
            foreign(&file).is_some()
        };
        for ours in [
            "",
            "# nothing yet\n",
            "[provider.a]\n",
            "[other]\na = 1\n[route.r]\ntargets = []\n",
            "provider.a.keys = []\n",
            "[providers.openai]\nkeys = ['env:KEY']\n",
            "[rotue.main]\ntargets = ['a/b']\n",
            "[provider.a\nkeys = [",
            "[ provider.a ]\nkeys = = 1",
            "provider.a.models.m = {\n",
        ] {
            assert!(!is_foreign(ours), "{ours}");
        }
        for foreign in [
            "baseURL = 'https://example.org'\ntitle = 'My page'\n",
            "[server]\nport = 80\n",
            "[providers.docker]\nnetwork = 'web'\n",
            "<html>\n",
            "provider: openai\n",
            "key = value\n",
        ] {
            assert!(is_foreign(foreign), "{foreign}");
        }
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        assert_eq!(foreign(&file), None, "its error is shown");
    }

    #[test]
    fn a_variable_precedes_the_folders_and_the_users_file_is_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let pipeline = folder.path().join("p").join("pipeline.toml");
        std::fs::create_dir(folder.path().join("p")).unwrap();
        let user = folder.path().join("pointsman").join(COMMON_NAME);
        std::fs::create_dir(folder.path().join("pointsman")).unwrap();
        std::fs::write(&user, "").unwrap();
        let home = folder.path().display().to_string();
        let env = |name: &str| (name == "XDG_CONFIG_HOME").then(|| home.clone());
        let here = folder.path().join("here");
        std::fs::create_dir(&here).unwrap();
        let folders = || [here.as_path(), pipeline.parent().unwrap()].into_iter();
        assert_eq!(find_in(folders(), &env).file, Some(user.clone()));
        assert_eq!(find_in(folders(), &|_| None), Discovered::default());
        std::fs::write(pipeline.with_file_name(COMMON_NAME), "title = 'x'\n").unwrap();
        let found = find_in(folders(), &env);
        assert_eq!(found.file, Some(user));
        assert!(found.notes[0].contains("is skipped"), "{found:?}");
        for place in [pipeline.parent().unwrap(), &here] {
            std::fs::write(place.join(COMMON_NAME), "[provider.a]\n").unwrap();
            std::fs::write(place.join(OWN_NAME), "title = 'x'\n").unwrap();
        }
        assert_eq!(find_in(folders(), &env).file, Some(here.join(OWN_NAME)));
        std::fs::remove_file(here.join(OWN_NAME)).unwrap();
        assert_eq!(find_in(folders(), &env).file, Some(here.join(COMMON_NAME)));
        std::fs::remove_file(here.join(COMMON_NAME)).unwrap();
        assert_eq!(find_in(folders(), &env).file, Some(pipeline.with_file_name(OWN_NAME)));
        let with_variable = |name: &str| match name {
            VARIABLE => Some("other.toml".to_owned()),
            _ => env(name),
        };
        let found = find(None, Some(&pipeline), &with_variable);
        assert_eq!((found.file, found.is_from_variable), (Some("other.toml".into()), true));
        let named = find(Some(Path::new("c.toml")), Some(&pipeline), &with_variable);
        assert_eq!((named.file, named.is_from_variable), (Some("c.toml".into()), false));
        let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(user_file(&home), Some("/home/me/.config/pointsman/config.toml".into()));
        let relative = |name: &str| (name == "XDG_CONFIG_HOME").then(|| "here".to_owned());
        assert_eq!(user_file(&relative), None);
    }
}
