//! `--dry-run` of a training stage: what the settings come to.

use crate::augment::{Mode, Pipe};
use crate::error::Result;
use crate::methods;
use crate::network::cpu;
use crate::network::layout::{Architecture, Layout};
use crate::settings::{Settings, method_name};
use crate::train::schedule::Schedule;

/// What is known of the data before training.
pub struct Data {
    pub channels: usize,
    pub classes: usize,
    pub labelled: usize,
    pub unlabelled: usize,
}

/// The rate in force, and the recipe's where that is given for another batch.
fn learning_rate(s: &Settings, schedule: &Schedule) -> String {
    let rate = schedule.base();
    match s.learning_rate_batch {
        batch if batch > 0 && batch != s.batch => {
            format!("{rate} ({} for {batch} labelled images)", s.learning_rate)
        }
        _ => rate.to_string(),
    }
}

/// What `--dry-run` prints: steps, images, parameters, memory. Memory is that of the CPU engine's
/// buffers, the parameters, their gradients, velocities and averages.
pub fn describe(s: &Settings, data: &Data) -> Result<String> {
    let output = Pipe::parse(&s.augment_labelled, Mode::Train)?.output(data.channels)?;
    let layout = Layout::new(&Architecture {
        channels: output.channels,
        units: s.units.clone(),
        width_factor: s.width_factor,
        stem: s.stem,
        heads: methods::heads(s.method, data.classes, s.embedding_dim),
    });
    let schedule = Schedule::new(s, data.labelled);
    let images = (s.batch + s.unlabelled_batch) * output.views;
    let (height, width) = (output.height, output.width);
    let activations = cpu::training_bytes(&layout, (height, width), s.precision, images);
    let memory = activations + 4 * layout.parameters * 4;
    let lines = [
        ("method", method_name(s.method)),
        (
            "network",
            format!(
                "{:?} units, width factor {}, {:?} stem, {}x{}x{} images",
                s.units, s.width_factor, s.stem, output.height, output.width, output.channels
            ),
        ),
        ("parameters", layout.parameters.to_string()),
        ("labelled images", format!("{} ({} a step)", data.labelled, s.batch)),
        ("unlabelled images", format!("{} ({} a step)", data.unlabelled, s.unlabelled_batch)),
        ("views of an image", output.views.to_string()),
        ("images a step", format!("{images} in the main pass")),
        ("steps", format!("{} ({} an epoch)", schedule.total_steps, schedule.steps_per_epoch)),
        ("images seen", (schedule.total_steps * images as u64).to_string()),
        ("learning rate", learning_rate(s, &schedule)),
        ("weight decay", s.weight_decay.to_string()),
        ("memory", format!("about {} MB", memory >> 20)),
    ];
    Ok(lines.map(|(name, value)| format!("{name:<22}{value}\n")).concat())
}
