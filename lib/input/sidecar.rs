//! The label files of WebDataset: `.cls` holds a number from 0 or a name, `.json` a value under `label`,
//! `cls` or `class`.

use super::item::Class;
use super::label;
use serde_json::Value;

const KEYS: [&str; 3] = ["label", "cls", "class"];

/// The content of a label file.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Class(Class),
    /// JSON without a known label key: its keys, and whether one of them seems to hold labels.
    Nothing {
        keys: String,
        like_labels: bool,
    },
}

/// Whether a file of this name is a label file.
pub fn is_label_name(name: &str) -> bool {
    name.ends_with(".cls") || name.ends_with(".json")
}

/// `key`: where JSON has the label, `.` in front of each name within another.
pub fn read(name: &str, text: &[u8], key: Option<&str>) -> Said {
    if name.ends_with(".cls") {
        return Said::Class(label::counted(&String::from_utf8_lossy(text)));
    }
    let Ok(json) = serde_json::from_slice::<Value>(text) else {
        return Said::Class(Class::Bad("a .json file that does not parse".to_string()));
    };
    let value = match key {
        Some(key) => key.split('.').try_fold(&json, |value, name| value.get(name)),
        None => KEYS.iter().find_map(|key| json.get(key)),
    };
    match value {
        Some(value) => Said::Class(label::of_json(value)),
        None => {
            let keys = keys(&json);
            let like_labels = keys.iter().any(|key| label::is_like(key));
            Said::Nothing { keys: keys.join(", "), like_labels }
        }
    }
}

/// The keys of an object and of those in it.
fn keys(json: &Value) -> Vec<String> {
    let of = |value: &Value| -> Vec<(String, Value)> {
        let object = value.as_object().into_iter().flatten();
        object.map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let within = |(key, value): (String, Value)| {
        let inner: Vec<String> =
            of(&value).into_iter().map(|(k, _)| format!("{key}.{k}")).collect();
        if inner.is_empty() { vec![key] } else { inner }
    };
    of(json).into_iter().flat_map(within).collect()
}
