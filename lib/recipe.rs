//! Settings of a stage: defaults < recipe file (TOML) < `--set key=value`.
//!
//! A recipe is flat: one key per line. An unknown key is an error; each override is printed.

use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// Heading in a help text of the options about settings.
pub const SETTINGS: &str = "Settings";

/// Options of the stages that have settings.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = SETTINGS)]
pub struct Recipe {
    /// Recipe: a TOML file of settings
    #[arg(long = "recipe", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Override one setting of the recipe; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

/// Settings that recipes hold. An absent key keeps its default: `#[serde(default,
/// deny_unknown_fields)]`.
pub trait Keys: Serialize + DeserializeOwned + Default {
    /// What other programs call a setting, and what it is here.
    const ELSEWHERE: &'static [(&'static str, &'static str)] = &[];
    /// The option that lists the keys.
    const LISTED_BY: &'static str = "--help";
}

/// The similarity from which an unknown key is taken for a known one.
const ALIKE: f64 = 0.7;

impl Recipe {
    /// Whether neither a recipe nor `--set` is given.
    pub fn is_absent(&self) -> bool {
        self.file.is_none() && self.set.is_empty()
    }

    /// Reads the settings.
    ///
    /// Errors: `Missing` for an absent file, `Recipe` for a syntax error, an unknown key or a wrong
    /// type.
    pub fn load<T: Keys>(&self) -> Result<T> {
        let mut table = self.read()?;
        for set in &self.set {
            let (key, value) = split(set)?;
            let value = parse_value(value);
            match table.insert(key.to_string(), value.clone()) {
                Some(old) => cli::info(&format!("{key} = {value} (recipe has {old})")),
                None => cli::info(&format!("{key} = {value}")),
            }
        }
        T::deserialize(table.clone()).map_err(|e| self.fault::<T>(table, &e.to_string()))
    }

    /// The file's keys.
    fn read(&self) -> Result<toml::Table> {
        let Some(path) = &self.file else {
            return Ok(toml::Table::new());
        };
        let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                Error::missing(path, "recipe", "name a TOML file, see pipelines/")
            }
            _ => Error::io(path)(e),
        })?;
        text.parse().map_err(|e: toml::de::Error| Error::Recipe {
            recipe: path.display().to_string(),
            what: one_line(&e.to_string()),
            hint: "a recipe is TOML, one key = value per line".to_string(),
        })
    }

    /// The error of a table that is not of type `T`: the first key that is wrong by itself.
    fn fault<T: Keys>(&self, table: toml::Table, whole: &str) -> Error {
        let alone = |(key, value): (String, toml::Value)| {
            let fault =
                T::deserialize(toml::Table::from_iter([(key.clone(), value.clone())])).err()?;
            Some((key, value, fault))
        };
        let Some((key, value, fault)) = table.into_iter().find_map(alone) else {
            return self.error(one_line(whole), "correct the recipe");
        };
        let known = keys::<T>();
        match known.contains(&key) {
            true => {
                let what = format!("{key} = {value}: {}", one_line(&fault.to_string()));
                let hint = format!("correct it, {} tells what it takes", T::LISTED_BY);
                self.error_of(&key, what, &hint)
            }
            false => self.error_of(&key, format!("unknown key {key}"), &meant::<T>(&key, &known)),
        }
    }

    /// An error about a setting: `what` is wrong, and what to do.
    pub fn error_of(&self, key: &str, what: String, hint: &str) -> Error {
        let is_set = self.set.iter().any(|set| split(set).is_ok_and(|(name, _)| name == key));
        let recipe = match &self.file {
            _ if is_set => "--set".to_string(),
            Some(path) => path.display().to_string(),
            None => "settings".to_string(),
        };
        Error::Recipe { recipe, what, hint: hint.to_string() }
    }

    /// An error about several settings together.
    pub fn error(&self, what: String, hint: &str) -> Error {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        let recipe = match (file, self.set.is_empty()) {
            (Some(file), true) => file,
            (Some(file), false) => format!("{file} with --set"),
            (None, false) => "--set".to_string(),
            (None, true) => "settings".to_string(),
        };
        Error::Recipe { recipe, what, hint: hint.to_string() }
    }
}

/// Key and value of `--set`.
fn split(set: &str) -> Result<(&str, &str)> {
    let (key, value) = set
        .split_once('=')
        .ok_or_else(|| Error::Usage(format!("--set {set}: expected key=value")))?;
    Ok((key.trim(), value.trim()))
}

/// The keys of settings.
fn keys<T: Keys>() -> Vec<String> {
    let defaults = serde_json::to_value(T::default()).unwrap_or_default();
    defaults.as_object().map_or(Vec::new(), |map| map.keys().cloned().collect())
}

/// A hint about an unknown key.
fn meant<T: Keys>(key: &str, known: &[String]) -> String {
    let plain = key.to_lowercase().replace(['-', ' '], "_");
    if let Some((_, here)) = T::ELSEWHERE.iter().find(|(name, _)| *name == plain) {
        return format!("here that is {here}");
    }
    let alike = known.iter().map(|known| (strsim::jaro_winkler(&plain, known), known));
    match alike.max_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((alike, known)) if alike > ALIKE => {
            format!("did you mean {known}? {} lists all", T::LISTED_BY)
        }
        _ => format!("remove it; {} lists all keys", T::LISTED_BY),
    }
}

/// A value as TOML would read it; anything else is a bare string.
fn parse_value(text: &str) -> toml::Value {
    format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_string()))
}

/// Messages of the TOML reader take several.
fn one_line(message: &str) -> String {
    message.trim().replace('\n', " ")
}

/// Short hash of the settings in force: comments, order and defaults spelled out make no difference.
pub fn hash<T: Serialize>(settings: &T) -> String {
    let json = serde_json::to_vec(settings).unwrap_or_default();
    schema::short_hash(&blake3::hash(&json))
}
