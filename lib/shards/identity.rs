//! The identity of a run of `s4l-shard`. Runs of one identity make the same bytes, so a run may continue
//! with the files of another, and parts of one identity may be joined.

use crate::decode::encoded::Resized;
use crate::input::survey::Survey;
use crate::input::taken::Taken;
use crate::lineage::Lineage;
use crate::part::Part;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that decides the bytes of the files, and which files are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub classes: Vec<String>,
    /// Height, width and channels of pixels; `None` for encoded images.
    pub shape: Option<[usize; 3]>,
    /// Number of files of each split.
    pub splits: BTreeMap<String, usize>,
    /// Images of the input, rejects with them.
    pub items: u64,
    /// As `Lineage::metadata` has it.
    pub lineage: BTreeMap<String, String>,
    pub resized: Option<Resized>,
    pub taken: Taken,
    pub part: Part,
}

impl Identity {
    pub fn new(
        survey: &Survey,
        lineage: &Lineage,
        resized: Option<Resized>,
        part: Part,
    ) -> Identity {
        let splits = survey.spans.iter().map(|s| (s.split.name().to_string(), s.files));
        Identity {
            classes: survey.classes.clone(),
            shape: survey.shape,
            splits: splits.collect(),
            items: survey.items(),
            lineage: lineage.metadata(),
            resized,
            taken: survey.taken.clone(),
            part,
        }
    }
}
