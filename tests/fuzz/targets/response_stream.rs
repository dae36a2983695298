//! Fuzz target for responses, as event streams and as JSON. The facts of a response must not depend on where it is cut. The first
//! byte of the input is the size of the pieces.

use steadfast::{
    ids::ObjectId,
    scan::{ResponseReader, Terminal, Usage},
};

/// The ids of the response, whether it is made in the background, the objects that it names, how it ended, the usage, whether there is encrypted content (0 or 1), and the data of its failures.
type ResponseFacts = (
    ([Option<ObjectId>; 2], bool),
    Vec<ObjectId>,
    Option<Terminal>,
    Option<Usage>,
    usize,
    Vec<Option<Vec<u8>>>,
);

fn read<'a>(mut reader: ResponseReader, chunks: impl Iterator<Item = &'a [u8]>) -> ResponseFacts {
    let (mut encrypted, mut objects) = (0, Vec::new());
    for chunk in chunks {
        reader.feed(chunk);
        encrypted += reader.take_encrypted().len();
        objects.extend(reader.drain_objects());
    }
    let failures = reader.failure().map_or_else(Vec::new, |failure| {
        let data = [failure.error, failure.last].into_iter();
        data.map(|data| data.map(<[u8]>::to_vec)).collect()
    });
    reader.finish();
    encrypted += reader.take_encrypted().len();
    objects.extend(reader.drain_objects());
    // At most this many objects wait to be taken.
    objects.truncate(256);
    let usage = reader.usage();
    assert!(usage.is_none_or(|usage| usage.total() >= usage.input_tokens.max(usage.output_tokens)));
    // The number of contents that are kept depends on when they are taken. Whether there are any contents does not depend on it.
    (
        (reader.response_ids(), reader.is_background()),
        objects,
        reader.terminal(),
        usage,
        encrypted.min(1),
        failures,
    )
}

/// Runs one input.
pub fn run(input: &[u8]) {
    let (size, body) = input
        .split_first()
        .map_or((1, input), |(size, body)| (usize::from(*size).max(1), body));
    for make in [ResponseReader::events, ResponseReader::json, ResponseReader::object] {
        let whole = read(make(), std::iter::once(body));
        assert_eq!(read(make(), body.chunks(size)), whole);
        assert_eq!(read(make(), body.chunks(1)), whole);
    }
}
