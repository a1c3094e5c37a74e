//! The rows of the paper's table: order, titles, published figures, and the estimates of our runs.

use super::outcomes::Outcomes;
use super::runs::{Budget, Run};
use crate::evaluate::metrics::{Summary, balanced_accuracy};
use std::collections::BTreeMap;

/// Figures in percent on ImageNet (ILSVRC-2012 validation, ResNet-50v2): those of the paper, and those that
/// its authors measured with their published code (README of google-research/s4l).
#[derive(Debug, Clone, Copy)]
pub struct Published {
    pub paper_top5: Option<f64>,
    pub paper_top1: Option<f64>,
    pub rerun_top5: Option<f64>,
    pub rerun_top1: Option<f64>,
}

impl Published {
    const NOTHING: Published =
        Published { paper_top5: None, paper_top1: None, rerun_top5: None, rerun_top1: None };

    /// The paper gives only top-5, the re-run both.
    const fn both(paper_top5: f64, rerun_top5: f64, rerun_top1: f64) -> Published {
        Published {
            paper_top5: Some(paper_top5),
            paper_top1: None,
            rerun_top5: Some(rerun_top5),
            rerun_top1: Some(rerun_top1),
        }
    }

    /// The authors did not publish a re-run.
    const fn paper(top5: f64, top1: Option<f64>) -> Published {
        Published { paper_top5: Some(top5), paper_top1: top1, rerun_top5: None, rerun_top1: None }
    }
}

/// A row of the paper's table.
struct PaperRow {
    /// Of the recipe, and so of the folder.
    name: &'static str,
    title: &'static str,
    published: Published,
}

const fn row(name: &'static str, title: &'static str, published: Published) -> PaperRow {
    PaperRow { name, title, published }
}

/// The paper's table in its order: first 10% of the labels, then 1%; behind each the rows that the paper does
/// not have. MOAM's figures are of a network four times as wide.
const PAPER: &[PaperRow] = &[
    row("supervised_10p", "Supervised (10% labels)", Published::both(80.43, 80.42, 56.36)),
    // Made by s4l-init, on all labels.
    row("supervised", "Supervised", Published::NOTHING),
    row("pseudo_labels", "Pseudo labels", Published::both(82.41, 82.86, 60.24)),
    row("vat", "VAT", Published::both(82.78, 82.71, 59.98)),
    row("vat_entmin", "VAT + EntMin", Published::both(83.39, 83.28, 60.87)),
    row("s4l_rotation", "S4L-Rotation", Published::both(83.82, 83.85, 61.37)),
    row("s4l_exemplar", "S4L-Exemplar", Published::both(83.72, 83.71, 62.17)),
    row("moam_step1", "MOAM step 1", Published::both(88.80, 88.70, 69.46)),
    row("moam_step2", "MOAM step 2", Published::paper(89.96, None)),
    row("moam_step3", "MOAM step 3", Published::paper(91.23, Some(73.21))),
    row("distill", "MOAM distilled", Published::NOTHING),
    row("fixmatch", "FixMatch", Published::NOTHING),
    row("supervised_1p", "Supervised (1% labels)", Published::both(48.43, 48.31, 25.09)),
    row("pseudo_labels_1p", "Pseudo labels (1%)", Published::paper(51.56, None)),
    row("vat_1p", "VAT (1%)", Published::paper(44.05, None)),
    row("vat_entmin_1p", "VAT + EntMin (1%)", Published::paper(46.96, None)),
    row("s4l_rotation_1p", "S4L-Rotation (1%)", Published::paper(53.37, None)),
    row("s4l_exemplar_1p", "S4L-Exemplar (1%)", Published::paper(47.02, None)),
    row("moam_step1_1p", "MOAM step 1 (1%)", Published::NOTHING),
    row("moam_step2_1p", "MOAM step 2 (1%)", Published::NOTHING),
    row("moam_step3_1p", "MOAM step 3 (1%)", Published::NOTHING),
    row("distill_1p", "MOAM distilled (1%)", Published::NOTHING),
    row("fixmatch_1p", "FixMatch (1%)", Published::NOTHING),
];

/// Place of a row in the report: the paper's rows in its order, then all others.
pub fn place(name: &str) -> usize {
    PAPER.iter().position(|row| row.name == name).unwrap_or(PAPER.len())
}

/// The runs of one method, one per seed.
pub struct TableRow<'a> {
    pub name: &'a str,
    pub title: &'a str,
    pub published: Published,
    /// In order of the seeds; at least one.
    pub runs: Vec<&'a Run>,
    /// What does not belong together, as text.
    pub notes: Vec<String>,
    /// Difference to the supervised row with as many labels, once `paired::compare` has set it.
    pub difference: Option<Difference>,
}

/// How much higher the top-1 of a row is than that of another, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    pub mean: f64,
    /// 95% percentile bootstrap interval, over the seeds and the images together.
    pub low: f64,
    pub high: f64,
}

/// Mean over the runs of a row, and for two or more runs the sample standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub mean: f64,
    pub sd: Option<f64>,
}

impl TableRow<'_> {
    /// The mark after the title of a row with notes.
    pub fn mark(&self) -> &'static str {
        if self.notes.is_empty() { "" } else { " *" }
    }

    /// Estimate of a figure of the unrotated evaluation.
    pub fn estimate(&self, figure: impl Fn(&Summary) -> f64) -> Estimate {
        let values: Vec<f64> = self.summaries().map(figure).collect();
        estimate(&values)
    }

    /// Estimate of the balanced accuracy.
    pub fn balanced_accuracy(&self) -> Estimate {
        self.estimate(|s| balanced_accuracy(&s.per_class))
    }

    /// The outcomes of all runs together.
    pub fn outcomes(&self) -> Outcomes {
        let mut all = Outcomes::default();
        self.runs.iter().for_each(|run| all.add(&run.outcomes));
        all
    }

    /// Mean number of labels, if known for every run.
    pub fn labels(&self) -> Option<f64> {
        let counts: Option<Vec<f64>> = self.runs.iter().map(|r| Some(r.labels? as f64)).collect();
        Some(estimate(&counts?).mean)
    }

    /// Mean budget, if known for every run.
    pub fn budget(&self, count: impl Fn(&Budget) -> u64) -> Option<f64> {
        let counts = self.runs.iter().map(|run| Some(count(run.budget.as_ref()?) as f64));
        Some(estimate(&counts.collect::<Option<Vec<_>>>()?).mean)
    }

    /// Top-1 of the mean over four rotations, if every run of the row has it.
    pub fn rotation_averaged_top1(&self) -> Option<Estimate> {
        let averaged = self.runs.iter().map(|r| r.summary.rotation_averaged.as_ref());
        let values: Option<Vec<f64>> = averaged.map(|s| Some(s?.top1)).collect();
        Some(estimate(&values?))
    }

    /// The bootstrap interval of top-1, if the row has a single run.
    pub fn bootstrap(&self) -> Option<(f64, f64)> {
        match self.runs[..] {
            [run] => Some((run.summary.unrotated.top1_low, run.summary.unrotated.top1_high)),
            _ => None,
        }
    }

    /// The uncertainty of top-1: one standard deviation over seeds, else the bootstrap interval.
    pub fn top1_interval(&self) -> (f64, f64) {
        let top1 = self.estimate(|s| s.top1);
        let sd = top1.sd.unwrap_or(0.0);
        self.bootstrap().unwrap_or((top1.mean - sd, top1.mean + sd))
    }

    /// Mean accuracy per class over the runs, in the order of the classes.
    pub fn per_class(&self) -> Vec<Option<f64>> {
        let classes = self.runs[0].summary.unrotated.per_class.len();
        (0..classes)
            .map(|c| {
                let values: Option<Vec<f64>> =
                    self.summaries().map(|s| s.per_class[c].top1).collect();
                Some(estimate(&values?).mean)
            })
            .collect()
    }

    fn summaries(&self) -> impl Iterator<Item = &Summary> {
        self.runs.iter().map(|r| &r.summary.unrotated)
    }
}

/// Groups runs into rows, without notes: first the rows of the paper, in its order, then all others by
/// name.
pub fn group(runs: &[Run]) -> Vec<TableRow<'_>> {
    let mut by_name: BTreeMap<&str, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        by_name.entry(&run.row).or_default().push(run);
    }
    let mut rows: Vec<TableRow> = by_name
        .into_iter()
        .map(|(name, mut runs)| {
            runs.sort_by_key(|r| r.summary.seed);
            // A row that is not in the paper is named after its recipe.
            let (title, published) = PAPER
                .get(place(name))
                .map_or((name, Published::NOTHING), |row| (row.title, row.published));
            TableRow { name, title, published, runs, notes: Vec::new(), difference: None }
        })
        .collect();
    // A stable sort: rows that are not in the paper stay in the order of their names.
    rows.sort_by_key(|row| place(row.name));
    rows
}

/// Whether classes differ in their number of images, so that balanced accuracy is not top-1.
pub fn uneven(rows: &[TableRow]) -> bool {
    let classes = &rows[0].runs[0].summary.unrotated.per_class;
    let mut images = classes.iter().map(|class| class.images).filter(|&images| images > 0);
    let first = images.next();
    images.any(|images| Some(images) != first)
}

/// Mean and sample standard deviation of at least one value.
pub fn estimate(values: &[f64]) -> Estimate {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Estimate { mean, sd: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_by_hand() {
        let e = estimate(&[1.0, 2.0, 6.0]);
        assert_eq!((e.mean, e.sd), (3.0, Some(7f64.sqrt())));
        assert_eq!(estimate(&[0.5]), Estimate { mean: 0.5, sd: None });
    }
}
