//! Settings of a stage: defaults < recipe file (TOML) < `--set key=value`.
//!
//! A recipe is flat: one key a line. An unknown key is an error, each override is printed.

use crate::cli;
use crate::error::{Error, Result};
use crate::schema;
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// Options of the stages that have settings.
#[derive(Debug, Default, clap::Args)]
pub struct Recipe {
    /// Settings, a TOML file
    #[arg(long = "recipe", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Override one setting of the recipe; repeatable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Recipe {
    /// Reads settings of type `T`, which should derive `Default` through `#[serde(default,
    /// deny_unknown_fields)]`, so that an absent key keeps its default.
    ///
    /// Errors: `Missing` for an absent file, `Recipe` for a syntax error, an unknown key or a wrong
    /// type.
    pub fn load<T: DeserializeOwned>(&self) -> Result<T> {
        let mut table = toml::Table::new();
        let mut name = "--set".to_string();
        if let Some(path) = &self.file {
            name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
                std::io::ErrorKind::NotFound => {
                    Error::missing(path, "recipe", "name a TOML file, see pipelines/")
                }
                _ => Error::io(path)(e),
            })?;
            table = text.parse().map_err(|e: toml::de::Error| bad(&name, &e.to_string()))?;
        }
        for set in &self.set {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| Error::Usage(format!("--set {set}: expected key=value")))?;
            let value = parse_value(value);
            match table.insert(key.to_string(), value.clone()) {
                Some(old) => cli::info(&format!("{key} = {value} (recipe has {old})")),
                None => cli::info(&format!("{key} = {value}")),
            }
        }
        table.try_into().map_err(|e: toml::de::Error| bad(&name, &e.to_string()))
    }

    /// An error about a setting: `what` is wrong, and what to do.
    pub fn error(&self, what: String, hint: &str) -> Error {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        Error::Recipe { recipe: file.unwrap_or_else(|| "settings".into()), what, hint: hint.into() }
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

fn bad(recipe: &str, message: &str) -> Error {
    Error::Recipe {
        recipe: recipe.to_string(),
        what: message.trim().replace('\n', " "),
        hint: "correct or remove the key".to_string(),
    }
}

/// Short hash of the settings in force: comments, order and defaults spelled out make no difference.
pub fn hash<T: Serialize>(settings: &T) -> String {
    let json = serde_json::to_vec(settings).unwrap_or_default();
    schema::short_hash(&blake3::hash(&json))
}
