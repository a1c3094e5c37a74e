//! Recipes, and the pipes of image steps in them.
#![no_main]

mod input;

use s4l::augment::{Mode, Pipe};
use s4l::recipe::Recipe;
use s4l::settings::Settings;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = input::folder(&[("recipe.toml", bytes)]).join("recipe.toml");
    let recipe = Recipe { file: Some(path), set: Vec::new() };
    let pipes = match recipe.load::<Settings>() {
        Ok(s) => vec![s.augment_labelled, s.augment_unlabelled, s.augment_eval],
        // A bare pipe.
        Err(_) => vec![String::from_utf8_lossy(bytes).into_owned()],
    };
    for pipe in pipes {
        for mode in [Mode::Train, Mode::Eval] {
            if let Ok(pipe) = Pipe::parse(&pipe, mode) {
                let _ = (pipe.output(1), pipe.output(3), pipe.first_view());
            }
        }
    }
});
