//! `metrics.parquet`: the learning curves of a run.

use crate::error::Result;
use crate::lineage::Lineage;
use crate::schema;
use crate::tables::table;
use arrow::array::{ArrayRef, Float64Array, Int64Array, StringArray};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// One point of a learning curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Steps done.
    pub step: u64,
    /// Name of the curve.
    pub name: String,
    pub value: f64,
}

/// Writes the metrics into a model folder.
pub fn write(model: &Path, metrics: &[Metric], lineage: &Lineage) -> Result<()> {
    let steps = metrics.iter().map(|m| m.step as i64);
    let names = metrics.iter().map(|m| m.name.as_str());
    let values = metrics.iter().map(|m| m.value);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(steps)),
        Arc::new(StringArray::from_iter_values(names)),
        Arc::new(Float64Array::from_iter_values(values)),
    ];
    let path = model.join(schema::METRICS);
    table::write(&path, schema::metrics(), columns, lineage, BTreeMap::new())
}
