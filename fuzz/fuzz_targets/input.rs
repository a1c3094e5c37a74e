//! An input of files, read as `s4l-shard` does.

// Each target is a program of its own and uses a part of this.
#![allow(dead_code)]

use s4l::decode::encoded;
use s4l::input::survey::Survey;
use s4l::input::{Format, Options};
use std::path::PathBuf;
use std::sync::OnceLock;

/// An empty folder of this process with `files` in it.
pub fn folder(files: &[(&str, &[u8])]) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap().keep());
    for entry in std::fs::read_dir(folder).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    folder.clone()
}

/// Reads the entry `name` of a folder of `files`.
pub fn read(files: &[(&str, &[u8])], name: &str, format: Format, labels: Option<&str>) {
    let folder = folder(files);
    let labels = labels.map(|name| folder.join(name));
    let options =
        Options { format: Some(format), labels: labels.as_deref(), ..Options::default() };
    let Ok(input) = s4l::input::open(&folder.join(name), &options) else {
        return;
    };
    let Ok(survey) = Survey::new(&input, 1 << 16, true) else {
        return;
    };
    for span in &survey.spans {
        let _ = survey.read(&input, span, &mut |sample| {
            let _ = sample.image.map(|image| encoded::check(&image));
            Ok(())
        });
    }
}
