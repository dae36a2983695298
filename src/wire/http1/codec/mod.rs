//! Heads and bodies of HTTP/1.1, read and written.

pub(in crate::wire) mod body_decoder;
pub(in crate::wire) mod date;
pub(in crate::wire) mod head_reader;
pub(in crate::wire) mod head_writer;
pub(in crate::wire) mod read_buffer;
pub(in crate::wire) mod write_buffer;
