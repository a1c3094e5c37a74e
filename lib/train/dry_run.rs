//! What the settings of a training stage amount to, in steps, images and memory: for `--dry-run` and for
//! the start of a run.

use crate::cli;
use crate::error::Result;
use crate::memory;
use crate::methods;
use crate::methods::views::Views;
use crate::network::cpu::{self, Isa};
use crate::network::cuda;
use crate::network::device::Device;
use crate::network::engine::Precision;
use crate::network::layout::Layout;
use crate::settings::{Settings, method_name};
use crate::train::schedule::Schedule;
use serde_json::json;

/// What is known of the data before training.
pub struct Data {
    pub channels: usize,
    pub classes: usize,
    pub labelled: usize,
    pub unlabelled: usize,
    /// Processes that share each step.
    pub ranks: usize,
    pub device: Device,
}

/// The learning rate, and that of the recipe if it is given for another batch.
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

/// Batches of images beside the one that is trained on: those that are ready before their turn.
const BATCHES_AHEAD: usize = 3;
/// Copies of all parameters: weights, gradient, velocity, average; and of the first, third and fourth two
/// more each, of a checkpoint and of the bytes that it is written as, one at a time in between.
const PARAMETER_COPIES: usize = 4 + 2 * 3 + 1;
/// Of a process without images and network: its code and its tables; each thread, with its scratch.
const BASE: usize = 20 << 20;
const THREAD: usize = 4 << 20;

/// Bytes of the host's memory that training takes, about, in each rank.
pub fn memory(s: &Settings, data: &Data) -> Result<usize> {
    let views = methods::views(s, data.channels)?;
    let (layout, images, first) =
        (layout(s, data), images(s, &views, data), views.labelled.first());
    let size = (first.height, first.width);
    let activations = match data.device {
        Device::Cpu => cpu::training_bytes(&layout, size, s.precision, images),
        Device::Cuda(_) => 0,
    };
    let ahead = BATCHES_AHEAD * images.0 * size.0 * size.1 * first.channels;
    let base = BASE + THREAD * rayon::current_num_threads();
    Ok(base + activations + 4 * (ahead + PARAMETER_COPIES * layout.parameters))
}

/// Bytes of a GPU's memory that training takes, about; `None` on the CPU.
fn device_memory(s: &Settings, data: &Data) -> Result<Option<usize>> {
    let Device::Cuda(_) = data.device else {
        return Ok(None);
    };
    let views = methods::views(s, data.channels)?;
    let (images, first) = (images(s, &views, data), views.labelled.first());
    let size = (first.height, first.width);
    Ok(Some(cuda::training_bytes(&layout(s, data), size, s.precision, images)))
}

/// Images of a step in each rank, and those of them that VAT moves.
fn images(s: &Settings, views: &Views, data: &Data) -> (usize, usize) {
    let all = [views.images_a_step(s), methods::moved_images(s, views)];
    let [all, moved] = all.map(|images| images.div_ceil(data.ranks));
    (all, moved)
}

/// Bytes that training by these settings takes.
type Taken<'a> = &'a dyn Fn(&Settings) -> Result<usize>;

/// The largest `batch`, with `unlabelled_batch` in proportion, that takes no more than `most` bytes.
fn largest_batch(s: &Settings, data: &Data, taken: Taken, most: u64) -> Result<Option<Settings>> {
    let of = |batch: usize| Settings {
        batch,
        unlabelled_batch: (s.unlabelled_batch * batch)
            .div_ceil(s.batch)
            .next_multiple_of(data.ranks),
        ..s.clone()
    };
    let fits = |batch: usize| -> Result<bool> { Ok(taken(&of(batch))? as u64 <= most) };
    let (mut low, mut high) = (0, s.batch);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        match fits(middle)? {
            true => low = middle,
            false => high = middle,
        }
    }
    low -= low % data.ranks;
    Ok((low > 0).then(|| of(low)).filter(|smaller| methods::check(smaller).is_ok()))
}

/// Errors unless the memory that this process may take is enough for training, and so is `of_device`, what it may take
/// of a GPU's.
pub fn check_memory(s: &Settings, data: &Data, of_device: Option<usize>) -> Result<()> {
    if let Some((most, who)) = memory::most() {
        check(s, data, &|s| memory(s, data), most, who)?;
    }
    match of_device {
        Some(most) => {
            let taken = |s: &Settings| Ok(device_memory(s, data)?.unwrap_or(0));
            check(s, data, &taken, most as u64, "the GPU")
        }
        None => Ok(()),
    }
}

/// Errors if training takes more than `most` bytes, which is what `who` allows.
fn check(s: &Settings, data: &Data, taken: Taken, most: u64, who: &str) -> Result<()> {
    let bytes = taken(s)? as u64;
    if bytes <= most {
        return Ok(());
    }
    let hint = match largest_batch(s, data, taken, most)? {
        Some(fits) if s.unlabelled_batch > 0 => format!(
            "the largest that would fit is -s batch={} -s unlabelled_batch={}",
            fits.batch, fits.unlabelled_batch
        ),
        Some(fits) => format!("the largest that would fit is -s batch={}", fits.batch),
        None => {
            "no batch would fit, lower width_factor, units or the size of the images".to_string()
        }
    };
    let what = format!(
        "training with batch={} needs about {} MB of memory, and {who} allows {} MB",
        s.batch,
        bytes >> 20,
        most >> 20
    );
    Err(memory::refused(what, hint))
}

fn layout(s: &Settings, data: &Data) -> Layout {
    Layout::new(&methods::architecture(s, data.channels, data.classes))
}

/// Images in the main pass of a step, each view one.
pub fn images_a_step(s: &Settings, data: &Data) -> Result<usize> {
    Ok(methods::views(s, data.channels)?.images_a_step(s))
}

/// The trunk and the images that it takes, in words.
fn network(s: &Settings, views: &Views, data: &Data) -> String {
    let first = views.labelled.first();
    format!(
        "{:?} units, width factor {}, {:?} stem, {}x{}x{} images",
        s.units, s.width_factor, s.stem, first.height, first.width, data.channels
    )
}

/// What computes.
fn instructions(s: &Settings, device: Device) -> String {
    if device != Device::Cpu {
        return device.to_string();
    }
    let isa = Isa::best();
    let products = match s.precision {
        Precision::F32 => "products in float32",
        Precision::Bf16 if isa.has_pairs() => "products of bfloat16",
        Precision::Bf16 => "bfloat16 widened to float32 before its products",
    };
    format!("{}, {products}", isa.name())
}

fn megabytes(bytes: usize) -> String {
    format!("about {} MB", bytes >> 20)
}

/// What `--dry-run` prints: steps, images, parameters, memory, instructions.
pub fn describe(s: &Settings, data: &Data) -> Result<String> {
    let views = methods::views(s, data.channels)?;
    let memory = memory(s, data)?;
    let schedule = Schedule::new(s, data.labelled);
    let images = views.images_a_step(s);
    let lines = [
        ("method", method_name(s.method)),
        ("network", network(s, &views, data)),
        ("parameters", layout(s, data).parameters.to_string()),
        ("labelled images", format!("{} ({} a step)", data.labelled, s.batch)),
        ("unlabelled images", format!("{} ({} a step)", data.unlabelled, s.unlabelled_batch)),
        ("views of an image", views_of_an_image(s, &views)),
        ("images a step", format!("{images} in the main pass")),
        ("steps", format!("{} ({} an epoch)", schedule.total_steps, schedule.steps_per_epoch)),
        ("images seen", (schedule.total_steps * images as u64).to_string()),
        ("learning rate", learning_rate(s, &schedule)),
        ("weight decay", s.weight_decay.to_string()),
        ("memory", megabytes(memory)),
        ("instructions", instructions(s, data.device)),
    ];
    let device = device_memory(s, data)?.map(|bytes| ("memory of the GPU", megabytes(bytes)));
    let lines = lines.into_iter().chain(device);
    Ok(lines.map(|(name, value)| format!("{name:<22}{value}\n")).collect())
}

/// Prints the plan in four lines; the expected time follows once the rate of steps is known.
pub fn say_plan(s: &Settings, data: &Data) -> Result<()> {
    let views = methods::views(s, data.channels)?;
    let (layout, memory) = (layout(s, data), memory(s, data)?);
    let device = device_memory(s, data)?;
    let and_device = device.map(|bytes| format!(", {} of the GPU's", megabytes(bytes)));
    let schedule = Schedule::new(s, data.labelled);
    let (steps, epoch) = (schedule.total_steps, schedule.steps_per_epoch);
    let images = views.images_a_step(s);
    let (method, network) = (method_name(s.method), network(s, &views, data));
    let rate = learning_rate(s, &schedule);
    let text = format!(
        "method     {method}, learning rate {rate}\n\
         network    {network}, {} parameters, {} of memory{}\n\
         data       {} classes, {} labelled images ({} a step), {} unlabelled ({} a step)\n\
         steps      {steps} ({epoch} an epoch), {images} images each",
        layout.parameters,
        megabytes(memory),
        and_device.unwrap_or_default(),
        data.classes,
        data.labelled,
        s.batch,
        data.unlabelled,
        s.unlabelled_batch,
    );
    let fields = json!({
        "message": "plan",
        "method": method,
        "learning_rate": schedule.base(),
        "network": network,
        "parameters": layout.parameters,
        "memory": memory,
        "device_memory": device,
        "classes": data.classes,
        "labelled_images": data.labelled,
        "unlabelled_images": data.unlabelled,
        "batch": s.batch,
        "unlabelled_batch": s.unlabelled_batch,
        "steps": steps,
        "steps_an_epoch": epoch,
        "images_a_step": images,
    });
    cli::report(&text, fields);
    warn_of_one_value(&views, &layout, images);
    Ok(())
}

/// Says so if the last layers see one value of each channel a step.
fn warn_of_one_value(views: &Views, layout: &Layout, images: usize) {
    let first = views.labelled.first();
    if images * layout.last_side(first.height) * layout.last_side(first.width) == 1 {
        cli::warn(
            "a step has one image, and its last layers see one pixel: batch normalization leaves nothing of \
             it; raise batch",
        );
    }
}
