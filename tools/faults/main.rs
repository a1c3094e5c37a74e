//! Fault injection for s4l: see `faults --help`.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[path = "mod.rs"]
mod faults;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> std::process::ExitCode {
    faults::cli::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {
    eprintln!("faults: injects by ptrace and seccomp, which need Linux on x86-64");
    std::process::exit(125);
}
