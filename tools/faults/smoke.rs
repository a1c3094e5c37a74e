//! The stages of the smoke pipeline, each small enough for thousands of runs.

/// A stage, with paths relative to the folder in which it runs.
#[derive(Debug)]
pub struct Stage {
    pub name: &'static str,
    pub program: &'static str,
    /// The command line. `{smoke}` is the folder of the pipeline, `{small}` the settings for a quick
    /// training.
    pub line: &'static str,
    /// The command line of another output of the same name is `line` with one text replaced by another.
    pub other: (&'static str, &'static str),
    /// The inputs.
    pub inputs: &'static [&'static str],
    /// An existing output from which the stage continues, under another name in the world.
    pub begun: Option<(&'static str, &'static str)>,
    pub outputs: &'static [&'static str],
    /// The stage leaves a checkpoint when it is stopped.
    pub trains: bool,
    /// Commands for inputs that no earlier stage makes.
    pub before: &'static [(&'static str, &'static str)],
}

const STAGE: Stage = Stage {
    name: "",
    program: "",
    line: "",
    other: ("--seed 0", "--seed 1"),
    inputs: &[],
    begun: None,
    outputs: &[],
    trains: false,
    before: &[],
};

pub const SMALL: &str = "-s units=[1] -s stem=small_stride2 -s checkpoint_every=2 -s log_every=1 \
                         -s batch=10 --threads 1 --seed 0";

/// File sizes that give the same number of files, cut elsewhere.
const FILE_BYTES: (&str, &str) = ("file_bytes=100000", "file_bytes=90000");

pub static STAGES: [Stage; 15] = [
    Stage {
        name: "shard",
        program: "s4l-shard",
        line: "--in {smoke}/data --out shards -s file_bytes=100000 --threads 1",
        other: FILE_BYTES,
        outputs: &["shards"],
        ..STAGE
    },
    Stage {
        name: "part",
        program: "s4l-shard",
        line: "--in {smoke}/data --out parts --part 1/2 -s file_bytes=100000 --threads 1",
        other: FILE_BYTES,
        outputs: &["parts.part-1-of-2"],
        ..STAGE
    },
    Stage {
        name: "merge",
        program: "s4l-shard",
        line: "--merge --out parts --threads 1",
        other: ("--merge", "--in {smoke}/data -s file_bytes=90000"),
        inputs: &["parts.part-1-of-2", "parts.part-2-of-2"],
        outputs: &["parts"],
        before: &[(
            "s4l-shard",
            "--in {smoke}/data --out parts --part 2/2 -s file_bytes=100000 --threads 1",
        )],
        ..STAGE
    },
    Stage {
        name: "subset",
        program: "s4l-subset",
        line: "--in shards --per-class 10 --out labelled.parquet \
               --val-per-class 5 --val-out val.parquet --threads 1 --seed 0",
        inputs: &["shards"],
        outputs: &["labelled.parquet", "val.parquet"],
        ..STAGE
    },
    Stage {
        name: "pretrain",
        program: "s4l-pretrain",
        line: "--in shards --labelled labelled.parquet --val val.parquet \
               --recipe {smoke}/moam_step1.toml {small} -s unlabelled_batch=10 -s schedule=[0,0.6] \
               --out model",
        inputs: &["shards", "labelled.parquet", "val.parquet"],
        outputs: &["model"],
        trains: true,
        ..STAGE
    },
    Stage {
        name: "resume",
        program: "s4l-pretrain",
        line: "--in shards --labelled labelled.parquet --val val.parquet \
               --recipe {smoke}/moam_step1.toml {small} -s unlabelled_batch=10 -s schedule=[0,0.6] \
               --out model",
        inputs: &["shards", "labelled.parquet", "val.parquet"],
        begun: Some(("stopped", "model")),
        outputs: &["model"],
        trains: true,
        ..STAGE
    },
    Stage {
        name: "pseudolabel",
        program: "s4l-pseudolabel",
        line: "--in shards --model model --labelled labelled.parquet --out labels.parquet \
               -s views=resize(28)|-1_to_1 --threads 1 --seed 0",
        inputs: &["shards", "model", "labelled.parquet"],
        outputs: &["labels.parquet"],
        ..STAGE
    },
    Stage {
        name: "label-part",
        program: "s4l-pseudolabel",
        line: "--in shards --model model --labelled labelled.parquet --out pieces.parquet \
               --part 1/2 -s views=resize(28)|-1_to_1 --threads 1 --seed 0",
        inputs: &["shards", "model", "labelled.parquet"],
        outputs: &["pieces.parquet.part-1-of-2"],
        ..STAGE
    },
    Stage {
        name: "label-merge",
        program: "s4l-pseudolabel",
        line: "--merge --out pieces.parquet --threads 1",
        other: ("--merge", "--in shards --model model --seed 1 -s views=resize(28)|-1_to_1"),
        inputs: &["pieces.parquet.part-1-of-2", "pieces.parquet.part-2-of-2", "shards", "model"],
        outputs: &["pieces.parquet"],
        before: &[(
            "s4l-pseudolabel",
            "--in shards --model model --labelled labelled.parquet --out pieces.parquet \
             --part 2/2 -s views=resize(28)|-1_to_1 --threads 1 --seed 0",
        )],
        ..STAGE
    },
    Stage {
        name: "retrain",
        program: "s4l-moam",
        line: "--step retrain --in shards --labels labels.parquet --init model --val val.parquet \
               --recipe {smoke}/moam_step2.toml {small} -s schedule=[0,0.15] --out model2",
        inputs: &["shards", "labels.parquet", "model", "val.parquet"],
        outputs: &["model2"],
        trains: true,
        ..STAGE
    },
    Stage {
        name: "finetune",
        program: "s4l-moam",
        line: "--step finetune --in shards --labelled labelled.parquet --init model2 \
               --val val.parquet --recipe {smoke}/moam_step3.toml {small} -s schedule=[0,0.6] \
               --out model3",
        inputs: &["shards", "labelled.parquet", "model2", "val.parquet"],
        outputs: &["model3"],
        trains: true,
        ..STAGE
    },
    Stage {
        name: "distill",
        program: "s4l-moam",
        line: "--step distill --in shards --labels labels.parquet --val val.parquet \
               --recipe {smoke}/pseudo_labels.toml {small} -s schedule=[0,0.15] --out student",
        inputs: &["shards", "labels.parquet", "val.parquet"],
        outputs: &["student"],
        trains: true,
        ..STAGE
    },
    Stage {
        name: "eval",
        program: "s4l-eval",
        line: "--in shards --split test --model model --out moam_step1/eval.parquet \
               --threads 1 --seed 0",
        inputs: &["shards", "model"],
        // The row in the table has the name of the folder.
        outputs: &["moam_step1"],
        ..STAGE
    },
    Stage {
        name: "report",
        program: "s4l-report",
        line: "--in runs --out report",
        other: ("--in runs", "--in runs/seed0"),
        inputs: &["runs"],
        outputs: &["report"],
        before: &[
            (
                "s4l-pretrain",
                "--in shards --labelled labelled.parquet --recipe {smoke}/supervised_10p.toml \
                 {small} -s schedule=[0,0.6] --out runs/seed0/supervised_10p/model",
            ),
            (
                "s4l-eval",
                "--in shards --model runs/seed0/supervised_10p/model --threads 1 \
                 --out runs/seed0/supervised_10p/eval.parquet",
            ),
            (
                "s4l-eval",
                "--in shards --model model --threads 1 --out runs/seed1/moam_step1/eval.parquet",
            ),
        ],
        ..STAGE
    },
    Stage {
        name: "export",
        program: "s4l-export",
        line: "--model wide --to timm --out timm",
        other: ("--model wide", "--model wide1"),
        inputs: &["wide", "wide1"],
        outputs: &["timm"],
        before: &[
            (
                "s4l-pretrain",
                "--in shards --labelled labelled.parquet --recipe {smoke}/supervised_10p.toml \
                 {small} -s stem=imagenet -s schedule=[0,0.1] --out wide",
            ),
            (
                "s4l-pretrain",
                "--in shards --labelled labelled.parquet --recipe {smoke}/supervised_10p.toml \
                 {small} -s stem=imagenet -s schedule=[0,0.2] --out wide1",
            ),
        ],
        ..STAGE
    },
];

impl Stage {
    /// Whether the stage joins parts and removes them.
    pub fn is_merge(&self) -> bool {
        self.line.starts_with("--merge")
    }

    pub fn named(name: &str) -> Option<&'static Stage> {
        STAGES.iter().find(|stage| stage.name == name)
    }

    /// The arguments of the command line.
    pub fn words(&self) -> Vec<String> {
        words(self.line)
    }

    /// The arguments of the command line for another output.
    pub fn other_words(&self) -> Vec<String> {
        // `{small}` contains the seed.
        let line = self.line.replace("{small}", SMALL);
        words(&line.replace(self.other.0, self.other.1))
    }
}

/// The arguments in a line, with the names in braces replaced.
pub fn words(line: &str) -> Vec<String> {
    let smoke = concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines/smoke");
    let line = line.replace("{small}", SMALL).replace("{smoke}", smoke);
    line.split_whitespace().map(str::to_string).collect()
}
