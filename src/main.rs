//! The `folkmoot` program: arguments, configuration, run, exit code.

fn main() -> std::process::ExitCode {
    folkmoot::cli::main(std::env::args_os())
}
