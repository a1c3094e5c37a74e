//! `meta.mat` of the ILSVRC-2012 devkit.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = s4l::input::synsets(bytes);
});
