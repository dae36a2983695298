//! The codec of HTTP/1.1. It parses and writes heads, delimits bodies, and buffers the bytes of a connection.

pub(in crate::wire) mod body_decoder;
pub(in crate::wire) mod date;
pub(in crate::wire) mod head_reader;
pub(in crate::wire) mod head_writer;
pub(in crate::wire) mod message_framing;
pub(in crate::wire) mod read_buffer;
pub(in crate::wire) mod write_buffer;
