//! `--dry-run` of a training stage: what the settings come to.

use crate::error::Result;
use crate::methods;
use crate::methods::views::Views;
use crate::network::cpu;
use crate::network::layout::Layout;
use crate::settings::{Settings, method_name};
use crate::train::schedule::Schedule;

/// What is known of the data before training.
pub struct Data {
    pub channels: usize,
    pub classes: usize,
    pub labelled: usize,
    pub unlabelled: usize,
}

/// The rate in force, and the recipe's if that is given for another batch.
fn learning_rate(s: &Settings, schedule: &Schedule) -> String {
    let rate = schedule.base();
    match s.learning_rate_batch {
        batch if batch > 0 && batch != s.batch => {
            format!("{rate} ({} for {batch} labelled images)", s.learning_rate)
        }
        _ => rate.to_string(),
    }
}

/// The number, or both if the halves of a batch differ.
fn views_of_an_image(s: &Settings, views: &Views) -> String {
    match (views.labelled.count(), views.unlabelled.count()) {
        (labelled, unlabelled) if s.unlabelled_batch > 0 && labelled != unlabelled => {
            format!("{labelled} of a labelled, {unlabelled} of an unlabelled one")
        }
        (labelled, _) => labelled.to_string(),
    }
}

/// Bytes of memory: of the CPU engine's buffers, the parameters, their gradients, velocities and
/// averages.
pub fn memory(s: &Settings, data: &Data) -> Result<usize> {
    let views = methods::views(s, data.channels)?;
    let layout = Layout::new(&methods::architecture(s, data.channels, data.classes));
    let images = images_of_a_step(s, &views);
    let size = (views.labelled.first().height, views.labelled.first().width);
    let activations = cpu::training_bytes(&layout, size, s.precision, images);
    Ok(activations + 4 * layout.parameters * 4)
}

fn images_of_a_step(s: &Settings, views: &Views) -> usize {
    s.batch * views.labelled.count() + s.unlabelled_batch * views.unlabelled.count()
}

/// What `--dry-run` prints: steps, images, parameters, memory.
pub fn describe(s: &Settings, data: &Data) -> Result<String> {
    let views = methods::views(s, data.channels)?;
    let layout = Layout::new(&methods::architecture(s, data.channels, data.classes));
    let memory = memory(s, data)?;
    let schedule = Schedule::new(s, data.labelled);
    let images = images_of_a_step(s, &views);
    let (height, width) = (views.labelled.first().height, views.labelled.first().width);
    let lines = [
        ("method", method_name(s.method)),
        (
            "network",
            format!(
                "{:?} units, width factor {}, {:?} stem, {}x{}x{} images",
                s.units, s.width_factor, s.stem, height, width, data.channels
            ),
        ),
        ("parameters", layout.parameters.to_string()),
        ("labelled images", format!("{} ({} a step)", data.labelled, s.batch)),
        ("unlabelled images", format!("{} ({} a step)", data.unlabelled, s.unlabelled_batch)),
        ("views of an image", views_of_an_image(s, &views)),
        ("images a step", format!("{images} in the main pass")),
        ("steps", format!("{} ({} an epoch)", schedule.total_steps, schedule.steps_per_epoch)),
        ("images seen", (schedule.total_steps * images as u64).to_string()),
        ("learning rate", learning_rate(s, &schedule)),
        ("weight decay", s.weight_decay.to_string()),
        ("memory", format!("about {} MB", memory >> 20)),
    ];
    Ok(lines.map(|(name, value)| format!("{name:<22}{value}\n")).concat())
}
