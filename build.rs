//! Compiles what reaches into libjpeg, against the headers that mozjpeg-sys was built with.

use std::env;

fn main() {
    let include = env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its headers");
    cc::Build::new()
        .includes(env::split_paths(&include))
        .file("lib/decode/scan.c")
        .compile("s4l_scan");
    println!("cargo:rerun-if-changed=lib/decode/scan.c");
}
