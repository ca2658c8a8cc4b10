//! The `folkmoot` program: arguments, configuration, run, exit code.

/// A message is many small allocations on its way through the nodes, often freed by another thread
/// than made them: with the system's allocator a node took a fifth more time for each.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    folkmoot::cli::main(std::env::args_os().collect())
}
