//! Turns blocks of 64 bytes into masks with one bit for each byte. Bit 0 stands for the first byte.
//!
//! [`Simd`] is the set of operations that the lexer needs. [`Portable`] implements it for every processor, and `Avx2`
//! with vector instructions of x86-64. The tests compare both with checks of single bytes.

mod masks;
mod portable;
mod utf8;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(test)]
mod tests;

#[cfg(target_arch = "x86_64")]
pub(in crate::scan) use avx2::Avx2;
pub(in crate::scan) use masks::{Block, Simd};
pub(in crate::scan) use portable::Portable;
pub(in crate::scan) use utf8::find_invalid_utf8;
