//! `s4l-predict`: predicts the labels of images that need not be sharded first.

use crate::artifact::{self, Target};
use crate::cli::{self, COMPUTING, Limits, Messages, Output, Stage};
use crate::error::{Error, Result};
use crate::evaluate::metrics::softmax;
use crate::evaluate::pictures::{self, Picture, Preparation};
use crate::lineage::{Lineage, UNSEEDED};
use crate::lock::Lock;
use crate::model::folder::Model;
use crate::network::Inference;
use crate::network::device::Device;
use crate::recipe;
use crate::schema;
use crate::tables::table;
use arrow::array::{ArrayRef, Float32Array, StringArray};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const EXAMPLES: &str = "\
EXAMPLES
  s4l-predict --model model photo.jpg more/*.png        path<TAB>label<TAB>probability
  s4l-predict --model model photos new.tar              anything that s4l-shard reads
  s4l-predict --model model --top 3 --format json photos | jq .
  s4l-predict --model model photos --format parquet --out predictions.parquet
  curl -s https://example.org/cat.jpg | s4l-predict --model model -

The model's augment_eval prepares the images, as in s4l-eval. Results come in the order of the input: one line
per image, or K lines with --top K, the most probable label first. In tsv, tabs, newlines and backslashes in names
are written \\t, \\n and \\\\; json is one object per line. The path of an image in a folder or archive begins with
the path of that folder or archive. - reads one image or one archive from stdin. An image that cannot be read
gives a warning (in parquet, a row without a label as well); all others are predicted, and the exit code is 65.
Memory: the model for 256 images, and the files of those images.";

/// Predict the labels of images
#[derive(Debug, clap::Parser)]
#[command(name = TOOL, version, before_help = EXAMPLES)]
pub struct Args {
    /// Image files, folders or archives; - is stdin
    #[arg(required = true, value_name = "IMAGES")]
    images: Vec<PathBuf>,
    /// Model to predict with
    #[arg(long, value_name = "MODEL", env = "S4L_MODEL", default_value = schema::MODEL)]
    model: PathBuf,
    /// Labels to print per image, the most probable first
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    top: u32,
    /// Format of the result; parquet needs --out
    #[arg(long, value_name = "FORMAT", default_value = "tsv")]
    format: Format,
    #[command(flatten)]
    limits: Limits,
    /// Device to compute on: cpu, cuda or cuda:N (a GPU), or auto (a GPU if there is one)
    #[arg(long, default_value = "cpu", value_name = "DEVICE", help_heading = COMPUTING)]
    device: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    messages: Messages,
}

const TOOL: &str = "s4l-predict";

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// path, label and probability, separated by tabs
    Tsv,
    /// one object per line
    Json,
    /// with a header line
    Csv,
    /// a table in the file of --out
    Parquet,
}

/// Images that go through the network at once, and bytes of image files after which a batch ends.
const BATCH: usize = 256;
const BATCH_BYTES: usize = 64 << 20;

impl Stage for Args {
    fn messages(&self) -> &Messages {
        &self.messages
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn run(self) -> Result<()> {
        let start = Instant::now();
        let out = self.table()?;
        for path in self.images.iter().filter(|path| !is_stdin(path)) {
            if !artifact::exists(path)? {
                return Err(Error::missing(path, "input", "name an image, a folder or an archive"));
            }
        }
        let device: Device = self.device.parse()?;
        let model = Model::open(&self.model)?;
        let preparation = Preparation::of(&model)?;
        if self.output.dry_run {
            return cli::print(&self.describe(&model));
        }
        let stdin =
            self.images.iter().any(|path| is_stdin(path)).then(copy_of_stdin).transpose()?;
        let source = |path: &PathBuf| match &stdin {
            Some(file) if is_stdin(path) => file.path().to_path_buf(),
            _ => path.clone(),
        };
        let sources: Vec<_> = self.images.iter().map(|path| (path.clone(), source(path))).collect();
        let mut goal = None;
        if let Some(out) = out {
            let lineage = self.lineage(&model, &sources)?;
            let lock = Lock::of(out, self.output.update)?;
            if artifact::target(&self.output, out, &lineage, table::output(out, TOOL)?)?
                == Target::UpToDate
            {
                return Ok(());
            }
            goal = Some((out, lineage, lock));
        }
        let mut network = model.network(device)?;
        let mut predicting = Predicting {
            classes: &model.config.classes,
            top: (self.top as usize).min(model.config.classes.len()),
            preparation,
            inference: network.inference()?,
            rows: Rows::new(self.format),
            batch: Vec::new(),
            bytes: 0,
            done: 0,
            broken: Vec::new(),
        };
        let done = predicting.all(&sources);
        if predicting.rows.is_closed {
            // A reader that has seen enough (`| head`) is no error.
            return Ok(());
        }
        done?;
        if let Some((out, lineage, _lock)) = &goal {
            predicting.rows.write(out, lineage)?;
            artifact::write_provenance(out, start);
            cli::info(&format!("{}: {} images", out.display(), predicting.done));
        }
        predicting.result()
    }
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Archives are read more than once.
fn copy_of_stdin() -> Result<tempfile::NamedTempFile> {
    let stdin = Path::new("stdin");
    let mut file = tempfile::NamedTempFile::new().map_err(Error::io(stdin))?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).map_err(Error::io(stdin))?;
    Ok(file)
}

impl Args {
    /// The file to make, if one is.
    fn table(&self) -> Result<Option<&Path>> {
        match (self.format, &self.output.out) {
            (Format::Parquet, None) => {
                Err(Error::Usage("--format parquet: needs --out FILE".into()))
            }
            (Format::Parquet, Some(out)) => {
                let inputs = self.images.iter().chain([&self.model]);
                artifact::refuse_inputs(out, inputs.map(|path| Some(path.as_path())))?;
                Ok(Some(out))
            }
            (_, None) => Ok(None),
            (_, Some(out)) => Err(Error::Usage(format!(
                "--out {}: is for --format parquet; the other formats go to stdout",
                out.display()
            ))),
        }
    }

    fn describe(&self, model: &Model) -> String {
        let config = &model.config;
        let names = self.images.iter().map(|path| path.display().to_string());
        format!(
            "model    {}, {} classes\nimages   {}x{}x{} by {}\ninputs   {}\n",
            model.path.display(),
            config.classes.len(),
            config.height,
            config.width,
            config.architecture.channels,
            config.settings.augment_eval,
            names.collect::<Vec<_>>().join(", "),
        )
    }

    fn lineage(&self, model: &Model, sources: &[(PathBuf, PathBuf)]) -> Result<Lineage> {
        let lineage = Lineage::new(TOOL, UNSEEDED, recipe::hash(&self.top))
            .input(schema::input::MODEL, model.hash.clone());
        sources.iter().try_fold(lineage, |lineage, (name, path)| {
            Ok(lineage.input(&name.to_string_lossy(), pictures::hash(path)?))
        })
    }
}

/// Images on their way through the network.
struct Predicting<'a> {
    classes: &'a [String],
    top: usize,
    preparation: Preparation,
    inference: Inference<'a>,
    rows: Rows,
    batch: Vec<Picture>,
    bytes: usize,
    done: usize,
    /// Paths of what could not be read.
    broken: Vec<String>,
}

impl Predicting<'_> {
    fn all(&mut self, sources: &[(PathBuf, PathBuf)]) -> Result<()> {
        for (name, path) in sources {
            let name = name.to_string_lossy();
            match pictures::each(path, &name, &mut |picture| self.add(picture)) {
                Err(Error::BadData { expected, found, .. }) => {
                    self.flush()?;
                    self.broken(&name, &format!("expected {expected}, found {found}"));
                }
                Err(Error::Interrupted { .. }) => {
                    return Err(Error::Unfinished { path: name.as_ref().into(), done: self.done });
                }
                done => done?,
            }
        }
        self.flush()
    }

    fn add(&mut self, picture: Picture) -> Result<()> {
        self.bytes += picture.bytes();
        self.batch.push(picture);
        match self.batch.len() == BATCH || self.bytes >= BATCH_BYTES {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Predicts the batch.
    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if let Some(first) = batch.first().filter(|_| cli::stop_requested()) {
            let path = PathBuf::from(&first.path);
            return Err(Error::Unfinished { path, done: self.done });
        }
        let preparation = &self.preparation;
        let views: Vec<_> = batch
            .into_par_iter()
            .map(|picture| (picture.path.clone(), preparation.view(picture)))
            .collect();
        let good: Vec<f32> =
            views.iter().filter_map(|(_, view)| view.as_ref().ok()).flatten().copied().collect();
        let logits = match good.is_empty() {
            true => Vec::new(),
            false => self.inference.run(&good, schema::head::CLASSES)?,
        };
        let mut logits = logits.chunks_exact(self.classes.len());
        for (path, view) in views {
            match view {
                Ok(_) => {
                    self.done += 1;
                    self.add_rows(&path, logits.next().unwrap_or_default());
                }
                Err(why) => self.broken(&path, &why),
            }
        }
        self.rows.print()
    }

    /// The rows of an image: the labels with the largest logits; of equal ones the first class comes first.
    fn add_rows(&mut self, path: &str, logits: &[f32]) {
        let probabilities = softmax(logits);
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
        for &class in &order[..self.top.min(order.len())] {
            self.rows.add(path, &self.classes[class], probabilities[class] as f32);
        }
    }

    fn broken(&mut self, path: &str, why: &str) {
        cli::warn(&format!("{path}: {why}"));
        self.rows.add_broken(path);
        self.broken.push(path.to_string());
    }

    /// Errors: `BadData` if something could not be read.
    fn result(self) -> Result<()> {
        let Some(first) = self.broken.first() else {
            return Ok(());
        };
        Err(Error::bad_data(
            Path::new(first),
            "images that can be read",
            format!("{} that cannot be read, this is the first", self.broken.len()),
            format!("repair or remove them; the other {} are predicted", self.done),
        ))
    }
}

/// The result: text that is printed as it comes, or the columns of a table.
struct Rows {
    format: Format,
    text: Vec<u8>,
    /// Whether the reader of stdout has gone.
    is_closed: bool,
    paths: Vec<String>,
    labels: Vec<Option<String>>,
    probabilities: Vec<Option<f32>>,
}

impl Rows {
    fn new(format: Format) -> Rows {
        let text = match format {
            Format::Csv => format!("{}\n", NAMES.join(",")).into_bytes(),
            _ => Vec::new(),
        };
        let (paths, labels, probabilities) = Default::default();
        Rows { format, text, is_closed: false, paths, labels, probabilities }
    }

    fn add(&mut self, path: &str, label: &str, probability: f32) {
        let shown = format!("{probability:.6}");
        match self.format {
            Format::Tsv => {
                let line = format!("{}\t{}\t{shown}\n", escaped(path), escaped(label));
                self.text.extend(line.into_bytes());
            }
            Format::Json => {
                let [path, label] = [path, label].map(|text| serde_json::json!(text));
                let [path_name, label_name, probability_name] = NAMES;
                let line = format!(
                    "{{\"{path_name}\":{path},\"{label_name}\":{label},\"{probability_name}\":{shown}}}\n"
                );
                self.text.extend(line.into_bytes());
            }
            Format::Csv => {
                let mut line = csv::Writer::from_writer(&mut self.text);
                // Memory takes all that is written.
                let _ = line.write_record([path, label, &shown]);
            }
            Format::Parquet => {
                self.paths.push(path.to_string());
                self.labels.push(Some(label.to_string()));
                self.probabilities.push(Some(probability));
            }
        }
    }

    /// Printed text has no row for an image that could not be read.
    fn add_broken(&mut self, path: &str) {
        if self.format == Format::Parquet {
            self.paths.push(path.to_string());
            self.labels.push(None);
            self.probabilities.push(None);
        }
    }

    /// Prints the collected text.
    fn print(&mut self) -> Result<()> {
        let text = std::mem::take(&mut self.text);
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&text).and_then(|()| stdout.flush()).map_err(|e| {
            self.is_closed = e.kind() == std::io::ErrorKind::BrokenPipe;
            Error::io(Path::new("stdout"))(e)
        })
    }

    fn write(&mut self, out: &Path, lineage: &Lineage) -> Result<()> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(std::mem::take(&mut self.paths))),
            Arc::new(StringArray::from_iter(std::mem::take(&mut self.labels))),
            Arc::new(Float32Array::from_iter(std::mem::take(&mut self.probabilities))),
        ];
        table::write(out, schema::predictions(), columns, lineage, BTreeMap::new())
    }
}

/// The columns, and the keys of an object.
const NAMES: [&str; 3] = [schema::PATH, schema::LABEL, schema::PROBABILITY];

/// Text in one field of one line.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n")
}
