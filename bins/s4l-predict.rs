fn main() -> std::process::ExitCode {
    s4l::cli::main::<s4l::stages::predict::Args>()
}
