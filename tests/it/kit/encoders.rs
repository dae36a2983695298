//! Content codings: functions that compress a body.

use std::io::Write as _;

use flate2::{Compression, write};

/// A function that compresses a body.
pub type Encoder = fn(&[u8]) -> Vec<u8>;

/// The gzip format (RFC 1952).
pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .expect("writing to memory succeeds")
}

/// The zlib format (RFC 1950), which HTTP calls `deflate`.
pub fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .expect("writing to memory succeeds")
}

/// The deflate format without a header (RFC 1951), which some clients send as `deflate`.
pub fn raw_deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder
        .write_all(plain)
        .and_then(|()| encoder.finish())
        .expect("writing to memory succeeds")
}

/// The zstd format (RFC 8878).
pub fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).expect("writing to memory succeeds")
}
