//! The file of settings: TOML whose keys are the names of flags.

use std::{collections::BTreeMap, ffi::OsString, fs, path::PathBuf};

use clap::Command;
use toml::de::{DeTable, DeValue};

use super::variables::nearest;
use crate::settings::SettingsError;

/// A file of settings that was read.
#[derive(Debug)]
pub(super) struct ConfigFile {
    pub(super) path: PathBuf,
    /// The settings by name.
    entries: BTreeMap<String, FileEntry>,
}

/// A setting in a file.
#[derive(Debug)]
pub(super) struct FileEntry {
    /// The line it begins at, from 1.
    pub(super) line: usize,
    /// The values, as they would be written after the flag.
    values: Vec<String>,
}

impl FileEntry {
    /// The flags that set the same.
    pub(super) fn flags(&self, name: &str) -> impl Iterator<Item = OsString> {
        self.values.iter().map(move |value| format!("--{name}={value}").into())
    }
}

impl ConfigFile {
    /// Reads a file whose keys are flags of a command.
    ///
    /// # Errors
    ///
    /// Returns a [`SettingsError`] if the file cannot be read or is not TOML, or if a key is no setting.
    pub(super) fn read(path: PathBuf, command: &Command) -> Result<Self, SettingsError> {
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(SettingsError::Unreadable { path, source }),
        };
        let entries = entries_of(&text, command);
        let entries = entries.map_err(|(at, message)| {
            let line = line_of(&text, at);
            SettingsError::Malformed { path: path.clone(), line, message }
        })?;
        Ok(Self { path, entries })
    }

    /// The setting of a name, if the file has it.
    pub(super) fn get(&self, name: &str) -> Option<&FileEntry> {
        self.entries.get(name)
    }

    /// The settings by name.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &FileEntry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

/// The settings of a text; or the byte at which it is wrong, and the reason.
fn entries_of(
    text: &str,
    command: &Command,
) -> Result<BTreeMap<String, FileEntry>, (usize, String)> {
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (at, error.message().to_owned())
    })?;
    let names = setting_names(command);
    let mut entries = BTreeMap::new();
    for (key, value) in table.get_ref() {
        let (at, name) = (key.span().start, key.get_ref());
        if !names.contains(&name.as_ref()) {
            return Err((at, unknown(name, &names)));
        }
        let values = values_of(value.get_ref()).map_err(|why| (at, format!("{name} {why}")))?;
        entries.insert(name.to_string(), FileEntry { line: line_of(text, at), values });
    }
    Ok(entries)
}

/// The names of the settings that may stand in a file: all flags but `--config` itself.
pub(super) fn setting_names(command: &Command) -> Vec<&str> {
    let flags = command.get_arguments().filter(|arg| arg.get_env().is_some());
    flags.filter_map(clap::Arg::get_long).filter(|name| *name != "config").collect()
}

fn unknown(name: &str, names: &[&str]) -> String {
    let meant = nearest(name, names.iter().copied());
    let meant = meant.map(|meant| format!("is {meant:?} meant? ")).unwrap_or_default();
    format!("there is no setting {name:?}: {meant}`keypool-server config show` lists all")
}

/// The values of a setting, as they would be written after its flag; or the reason why it has none.
fn values_of(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::Array(values) if values.is_empty() => {
            Err("is an empty list: leave the line out for the default".to_owned())
        }
        DeValue::Array(values) => values.iter().map(|value| scalar(value.get_ref())).collect(),
        value => scalar(value).map(|value| vec![value]),
    }
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "is a number that is too large".to_owned()),
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err("is not a text, a whole number, a boolean, or a list of these".to_owned())
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}
