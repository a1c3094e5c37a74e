//! Compiles what reaches into libjpeg, against the headers that mozjpeg-sys was built with, and tells the
//! library from which commit it is built.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    let include = env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its headers");
    cc::Build::new()
        .includes(env::split_paths(&include))
        .file("lib/decode/scan.c")
        .compile("s4l_scan");
    println!("cargo:rerun-if-changed=lib/decode/scan.c");
    // The last that changed the programs. Without git, or outside a repository, there is none.
    if let Some(commit) =
        git(&["log", "-1", "--format=%h", "--abbrev=12", "--", "lib", "bins", "Cargo.lock"])
    {
        println!("cargo:rustc-env=S4L_COMMIT={commit}");
    }
    // Every commit and checkout adds a line to it. Where git failed, it is asked again after whatever it
    // does next.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if let Some(log) = log.or_else(|| Path::new(".git").exists().then(|| ".git".to_string())) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn git(words: &[&str]) -> Option<String> {
    let ran = Command::new("git").args(words).output().ok()?;
    let text = String::from_utf8(ran.stdout).ok()?;
    ran.status.success().then(|| text.trim().to_string())
}
