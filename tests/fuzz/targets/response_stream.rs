//! Fuzz target for responses, as event streams and as JSON. The facts of a response must not depend on where it is cut. The first
//! byte of the input is the size of the pieces.

use steadfast::scan::{ResponseReader, Terminal, Usage};

/// The id, how the response ended, the usage, whether there is encrypted content (0 or 1), and the data of its failures.
type ResponseFacts = (
    Option<String>,
    Option<Terminal>,
    Option<Usage>,
    usize,
    Vec<Option<Vec<u8>>>,
);

fn read<'a>(mut reader: ResponseReader, chunks: impl Iterator<Item = &'a [u8]>) -> ResponseFacts {
    let mut encrypted = 0;
    for chunk in chunks {
        reader.feed(chunk);
        encrypted += reader.take_encrypted().len();
    }
    let failures = reader.failure().map_or_else(Vec::new, |failure| {
        let data = [failure.error, failure.last].into_iter();
        data.map(|data| data.map(<[u8]>::to_vec)).collect()
    });
    reader.finish();
    encrypted += reader.take_encrypted().len();
    let usage = reader.usage();
    assert!(usage.is_none_or(|usage| usage.total() >= usage.input_tokens.max(usage.output_tokens)));
    // The number of contents that are kept depends on when they are taken. Whether there are any contents does not depend on it.
    (
        reader.response_id().map(str::to_owned),
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
    for make in [
        ResponseReader::events,
        ResponseReader::json,
        ResponseReader::json_to_end,
    ] {
        let whole = read(make(), std::iter::once(body));
        assert_eq!(read(make(), body.chunks(size)), whole);
        assert_eq!(read(make(), body.chunks(1)), whole);
    }
}
