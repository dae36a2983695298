//! The error type of the program.

/// An error that ends the program. Its text says what is wrong and what to do.
pub(super) type AppError = Box<dyn std::error::Error>;
