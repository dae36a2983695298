//! The JSON scanner.

pub(super) mod capture;
mod encrypted;
pub(super) mod error;
mod grammar;
pub(super) mod lexer;
mod scalar;
pub(super) mod scanner;
mod simd;
pub(super) mod visitor;
