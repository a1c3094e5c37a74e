//! `README.md` of a model folder.

use super::config::Config;
use super::metrics::Metric;
use crate::lineage::Lineage;
use crate::markdown::escape;
use crate::schema::metric;
use crate::settings::method_name;

/// Describes the weights, their training and their best figures, as Markdown.
pub fn markdown(config: &Config, lineage: &Lineage, metrics: &[Metric]) -> String {
    let s = &config.settings;
    let last = |name: &str| metrics.iter().rev().find(|m| m.name == name);
    let mut text = format!(
        "# {} classifier\n\n\
         ResNet-v2, {:?} units, width factor {}, for {}x{}x{} images; {} classes: {}.\n\n\
         Trained by `{}` with method `{}`, seed {}, for {} steps.\n",
        method_name(s.method),
        s.units,
        s.width_factor,
        config.height,
        config.width,
        config.architecture.channels,
        config.classes.len(),
        escape(&config.classes.join(", ")),
        lineage.tool,
        method_name(s.method),
        config.seed,
        last(metric::LOSS).map_or(0, |m| m.step),
    );
    for (name, what) in
        [(metric::LOSS, "training loss"), (metric::VALIDATION_TOP1, "validation top-1")]
    {
        if let Some(metric) = last(name) {
            text += &format!("Last {what}: {:.4}.\n", metric.value);
        }
    }
    text += "\nMade from:\n\n| input | hash |\n|---|---|\n";
    for (name, hash) in &lineage.inputs {
        text += &format!("| {name} | `{hash}` |\n");
    }
    text += &format!("| settings | `{}` |\n", lineage.recipe);
    text += "\nSettings: `config.json`. Learning curves: `metrics.parquet`, or TensorBoard on this folder.\n";
    text
}
