//! An input of files, read as `s4l-shard` does.

use s4l::input::{Format, Plan, encoded};
use std::path::PathBuf;
use std::sync::OnceLock;

/// Writes `files` into a folder of this process, and reads its entry `name`.
pub fn read(files: &[(&str, &[u8])], name: &str, format: Format, labels: Option<&str>) {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| tempfile::tempdir().unwrap().keep());
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    let labels = labels.map(|name| folder.join(name));
    let Ok(source) = s4l::input::open(&folder.join(name), Some(format), labels.as_deref(), None)
    else {
        return;
    };
    let Ok(plan) = Plan::new(&source, 1 << 16, true) else {
        return;
    };
    for shard in &plan.shards {
        let _ = plan.read(&source, shard, &mut |record| {
            let _ = record.image.map(|image| encoded::check(&image));
            Ok(())
        });
    }
}
