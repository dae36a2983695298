//! The `steadfast` program; everything is in the library.

fn main() -> std::process::ExitCode {
    steadfast::app::run()
}
