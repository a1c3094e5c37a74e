//! The network and the steps that fit into the time, and the text of `pipeline.mk`.

use super::contents::{Contents, Counts};
use super::rate;
use super::recipes::{self, Data, Recipe, Shape};
use crate::cli;
use crate::error::{Error, Result};
use crate::input::SplitName;
use crate::labelled::draw::{Validation, sizes};
use crate::memory;
use crate::network::device::Device;
use crate::network::layout::Stem;
use crate::settings::{Method, Settings};
use crate::train::dry_run;
use std::fmt::Write;
use std::path::Path;

/// Share of the labelled images that is held out if there is no test set.
const HELD_OUT: f64 = 0.2;

/// Share of the time that training may take; evaluations, pseudo labels and shards take the rest.
const TRAINING: f64 = 0.85;

/// A plan with less than this share of the worthwhile steps of MOAM is refused.
const LEAST: f64 = 0.1;

/// Networks from the smallest on, for images of a size.
const SMALL_IMAGES: usize = 48;
const NARROW: &[usize] = &[1, 1, 1];
const DEEP: &[usize] = &[1, 1, 1, 1];
const DEEPER: &[usize] = &[2, 2, 2, 2];
const RESNET50: &[usize] = &[3, 4, 6, 3];

const PHOTOGRAPHS: [Shape; 7] = [
    shape(64, Stem::SmallStride2, DEEP, 1),
    shape(64, Stem::SmallStride2, DEEP, 2),
    shape(96, Stem::Imagenet, DEEPER, 2),
    shape(128, Stem::Imagenet, DEEPER, 2),
    shape(128, Stem::Imagenet, RESNET50, 4),
    shape(160, Stem::Imagenet, RESNET50, 4),
    shape(224, Stem::Imagenet, RESNET50, 4),
];

/// With fewer images, networks and sizes beyond the first four cost time and show nothing more.
const MANY_IMAGES: usize = 10_000;
const OF_FEW: usize = 4;

const fn shape(side: usize, stem: Stem, units: &'static [usize], width_factor: usize) -> Shape {
    Shape { side, stem, units, width_factor }
}

/// Which images the rows are compared on.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Tested {
    Split(SplitName),
    /// A share of the labelled images, which is not trained on.
    HeldOut,
}

/// What is written.
pub struct Plan {
    pub recipes: [Recipe; 4],
    pub pipeline: String,
    /// In one line.
    pub summary: String,
}

/// Plans for the images of `path`, with so many minutes and threads.
///
/// Errors: `BadData` if nothing can be learnt from the images, `Usage` if the time is too short.
pub fn plan(path: &Path, minutes: f64, threads: usize) -> Result<Plan> {
    let contents = Contents::read(path)?;
    let train = contents.training(path)?;
    contents.warn(path, train);
    let tested = tested(&contents);
    let data = data(&contents, train, tested);
    let chosen = choose(&contents, &data, minutes, threads)?;
    let pipeline = pipeline(path, minutes, &contents, tested, &data, &chosen)?;
    let Shape { side, units, width_factor, .. } = chosen.shape;
    Ok(Plan {
        recipes: recipes::all(&chosen.shape, &data, chosen.share),
        pipeline,
        summary: format!(
            "{} of {} images labelled, {} classes; {side}x{side}, units {units:?}, width factor \
             {width_factor}; about {:.0} minutes",
            data.labelled,
            data.all,
            data.classes,
            minutes_of(chosen.seconds).ceil(),
        ),
    })
}

/// A split all of whose images have a label; a share of the training images if there is none.
fn tested(contents: &Contents) -> Tested {
    let whole = |split: &SplitName| {
        contents.splits.get(split).is_some_and(|counts| counts.known() == counts.images)
    };
    let split = [SplitName::Test, SplitName::Val].into_iter().find(whole);
    split.map_or(Tested::HeldOut, Tested::Split)
}

fn data(contents: &Contents, train: &Counts, tested: Tested) -> Data {
    let held_out = match tested {
        Tested::Split(_) => 0,
        Tested::HeldOut => sizes(Validation::Fraction(HELD_OUT), &train.labelled).0.iter().sum(),
    };
    Data {
        channels: contents.shape.map_or(3, |[_, _, channels]| channels),
        squares: contents.squares,
        classes: contents.classes.len(),
        labelled: train.known() - held_out,
        all: train.images - held_out,
    }
}

/// The networks that such images may have, from the smallest on.
fn shapes(contents: &Contents, images: usize) -> Vec<Shape> {
    let side = contents.side();
    if side <= SMALL_IMAGES {
        // A multiple of 4, which the strides halve.
        let side = (side / 4).max(2) * 4;
        return [1, 2, 4].map(|width| shape(side, Stem::SmallStride2, NARROW, width)).to_vec();
    }
    let most = if images < MANY_IMAGES { OF_FEW } else { PHOTOGRAPHS.len() };
    let fits = |shape: &&Shape| shape.side <= PHOTOGRAPHS[0].side.max(side);
    PHOTOGRAPHS[..most].iter().filter(fits).copied().collect()
}

/// What was chosen, and why.
struct Chosen {
    shape: Shape,
    /// Of the worthwhile steps of MOAM's steps 1 and 2.
    share: f64,
    /// Of all training, and of the rows that are never shortened.
    seconds: f64,
    fixed: f64,
    /// Images a second, forward and backward.
    rate: f64,
    memory: usize,
    /// Share of the time that goes into decoding.
    loading: f64,
    /// What the next larger network would have taken.
    why: String,
}

/// Minutes of all stages if training takes so many seconds.
fn minutes_of(seconds: f64) -> f64 {
    seconds / 60.0 / TRAINING
}

/// The largest network whose worthwhile steps fit into the time and the memory; the smallest with fewer
/// steps if none does.
fn choose(contents: &Contents, data: &Data, minutes: f64, threads: usize) -> Result<Chosen> {
    let budget = 60.0 * minutes * TRAINING;
    let decoding = rate::decoding(&contents.samples) / threads as f64;
    memory::preparing(true);
    let mut best: Option<Chosen> = None;
    for shape in shapes(contents, data.all) {
        let (name, rows) = (describe(&shape), rows(&shape, data)?);
        if let Err(lacking) = enough_memory(&rows) {
            let before = best.as_mut().ok_or(lacking)?;
            before.why = format!("{name} would take more memory than there is");
            break;
        }
        let chosen = measured(data, shape, &rows, decoding)?;
        let (fits, need) = (chosen.seconds <= budget, minutes_of(chosen.seconds));
        cli::info(&format!("{name}: {:.0} images a second, {need:.1} minutes", chosen.rate));
        if let Some(before) = best.as_mut().filter(|_| !fits) {
            before.why = format!("{name} would take {need:.0} minutes");
            break;
        }
        best = Some(chosen);
        if !fits {
            break;
        }
    }
    let best = best.ok_or_else(|| Error::Internal("no network to choose from".into()))?;
    shortened(best, budget, minutes)
}

/// With as much of steps 1 and 2 as there is time for. The supervised rows are the shorter ones, and keep
/// what they need, so that they compare.
fn shortened(mut plan: Chosen, budget: f64, minutes: f64) -> Result<Chosen> {
    let (all, fixed) = (plan.seconds, plan.fixed);
    plan.share = ((budget - fixed) / (all - fixed)).min(1.0);
    if plan.share < LEAST {
        return Err(Error::Usage(format!(
            "--minutes {minutes}: the smallest plan takes about {:.1} here, and nothing is learnt in less than {:.1}",
            minutes_of(all),
            minutes_of(fixed + LEAST * (all - fixed)),
        )));
    }
    plan.seconds = fixed + plan.share * (all - fixed);
    if plan.share < 1.0 {
        plan.why =
            format!("the smallest; all worthwhile steps would take {:.0} minutes", minutes_of(all));
    }
    Ok(plan)
}

/// A recipe with the number of images that have a label in it.
struct Row {
    settings: Settings,
    labelled: usize,
    /// Whether it keeps its steps however short the time is.
    whole: bool,
    /// Bytes to train.
    memory: usize,
}

/// The rows with all steps that are worthwhile.
fn rows(shape: &Shape, data: &Data) -> Result<Vec<Row>> {
    let row = |recipe: &Recipe| {
        let settings = recipe.settings()?;
        let labelled = if recipe.row == "moam_step2" { data.all } else { data.labelled };
        let of = dry_run::Data {
            ranks: 1,
            device: Device::Cpu,
            channels: data.channels,
            classes: data.classes,
            labelled,
            unlabelled: data.all,
        };
        let memory = dry_run::memory(&settings, &of)?;
        let whole = !recipes::SHORTENED.contains(&recipe.row);
        Ok(Row { whole, settings, labelled, memory })
    };
    recipes::all(shape, data, 1.0).iter().map(row).collect()
}

fn most_memory(rows: &[Row]) -> usize {
    rows.iter().map(|row| row.memory).max().unwrap_or(0)
}

fn enough_memory(rows: &[Row]) -> Result<()> {
    let bytes = most_memory(rows) as u64;
    let most = memory::most().map(|(most, _)| most).into_iter().chain(available()).min();
    match most {
        Some(most) if bytes > most => Err(memory::lacking("training needs about", bytes)),
        _ => Ok(()),
    }
}

/// The time of a network for all steps that are worthwhile.
fn measured(data: &Data, shape: Shape, rows: &[Row], decoding: f64) -> Result<Chosen> {
    // Step 1 has all kinds of passes.
    let moam = rows.iter().find(|row| row.settings.method == Method::Moam);
    let moam = moam.ok_or_else(|| Error::Internal("a plan without MOAM".into()))?;
    let rate = rate::measure(&moam.settings, data.channels, data.classes)?;
    let (mut seconds, mut fixed, mut loading) = (0.0, 0.0, 0.0);
    for row in rows {
        let [computes, decodes] =
            rate::seconds(&row.settings, data.channels, row.labelled, rate, decoding)?;
        seconds += computes + decodes;
        loading += decodes;
        fixed += if row.whole { computes + decodes } else { 0.0 };
    }
    Ok(Chosen {
        shape,
        share: 1.0,
        seconds,
        fixed,
        rate,
        memory: most_memory(rows),
        loading: loading / seconds,
        why: "the largest that this number of images and labels is worth".to_string(),
    })
}

/// Bytes of memory that are free on this machine.
fn available() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

fn describe(shape: &Shape) -> String {
    let Shape { side, units, width_factor, .. } = shape;
    format!("{side}x{side}, units {units:?}, width factor {width_factor}")
}

/// `pipeline.mk`: what make needs to know, and the reasons.
fn pipeline(
    path: &Path,
    minutes: f64,
    contents: &Contents,
    tested: Tested,
    data: &Data,
    chosen: &Chosen,
) -> Result<String> {
    let Chosen { shape, share, seconds, rate, memory, loading, why, .. } = chosen;
    let mut text = format!(
        "{MARK} --minutes {minutes}.\n#\n# Images   {}.\n#          {} classes; smaller side {} (median), {} to {}.\n",
        contents.words(),
        data.classes,
        contents.side(),
        contents.sides.first().unwrap_or(&0),
        contents.sides.last().unwrap_or(&0),
    );
    let stem = match shape.stem {
        Stem::Imagenet => "a quarter of the side behind the stem, as for photographs",
        Stem::Small | Stem::SmallStride2 => "half of the side behind the stem, as for small images",
    };
    let about = minutes_of(*seconds).ceil();
    let _ = write!(
        text,
        "# Network  {}: {why}.\n#          {stem}.\n\
         # Time     about {about} minutes, of {minutes}: {rate:.0} images a second forward and backward, measured\n\
         #          on this machine as busy as it was, {:.0} % of the time for decoding.\n\
         #          {:.0} % of the steps 1 and 2 of MOAM that are worthwhile.\n\
         # Memory   {} MB to train.\n\n",
        describe(shape),
        100.0 * loading,
        100.0 * share,
        memory >> 20,
    );
    let data_path = std::path::absolute(path).map_err(Error::io(path))?;
    let _ = write!(text, "DATA ?= {}\n\n", for_make(&data_path)?);
    text += "# All labelled images are trained on.\nSUBSET_10P := --all\n\n";
    match tested {
        Tested::Split(SplitName::Test) => text += "# The rows are compared on the split test.\n",
        Tested::Split(split) => {
            let name = split.name();
            let _ = write!(text, "# The rows are compared on the split {name}.\nTEST := {name}\n");
        }
        Tested::HeldOut => {
            let held_out =
                sizes(Validation::Fraction(HELD_OUT), &contents.splits[&SplitName::Train].labelled);
            let _ = write!(
                text,
                "# There is no split test, so {} labelled images, {:.0} % of each class, are held out, and the rows \
                 are\n# compared on them: a figure of so few is rough.\nVAL_FRACTION := {HELD_OUT}\n\
                 TEST := validation\n",
                held_out.0.iter().sum::<usize>(),
                100.0 * HELD_OUT,
            );
        }
    }
    text += "\n# Step 1 goes on from the supervised model: so few steps need a start.\nMOAM_STEP1_INIT := supervised\n";
    Ok(text)
}

/// The first line of a pipeline that `s4l-init` wrote.
pub const MARK: &str = "# Written by s4l-init";

/// A path as the value of a variable of make.
fn for_make(path: &Path) -> Result<String> {
    let bad = |found: &str| {
        Error::bad_data(path, "a path that make can use", found, "rename it, or name a link to it")
    };
    let text = path.to_str().ok_or_else(|| bad("a path that is not UTF-8"))?;
    if text.contains(['\n', '\r', '\\']) || text.trim() != text {
        return Err(bad("a line break, a backslash, or a space at an end"));
    }
    Ok(text.replace('$', "$$").replace('#', "\\#"))
}
