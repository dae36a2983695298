use super::*;
use flate2::{Compression, write};
use proptest::prelude::*;

fn compress(encoding: Encoding, text: &[u8]) -> Vec<u8> {
    match encoding {
        Encoding::Zstd => zstd::encode_all(text, 3).unwrap(),
        Encoding::Gzip => {
            let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        Encoding::Deflate => {
            let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn compress_raw(text: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn decompress<'a>(encoding: Encoding, chunks: impl IntoIterator<Item = &'a [u8]>) -> io::Result<Vec<u8>> {
    let mut decoder = ContentDecoder::new(Some(encoding), Vec::new())?;
    for mut chunk in chunks {
        loop {
            let (left, before) = (chunk.len(), decoder.sink_mut().len());
            let end = decoder.step(&mut chunk)?;
            let (read, written) = (left - chunk.len(), decoder.sink_mut().len() - before);
            assert!(
                read <= STEP && written <= 2 * SCRATCH,
                "a step of {read} and {written} bytes"
            );
            if end == StepEnd::PieceDone {
                break;
            }
            assert!(read + written > 0, "each step makes progress");
        }
    }
    decoder.finish()?;
    Ok(std::mem::take(decoder.sink_mut()))
}

const ALL: [Encoding; 3] = [Encoding::Zstd, Encoding::Gzip, Encoding::Deflate];

#[test]
fn content_encoding_headers_are_parsed() {
    use EncodingKind::{Identity, Known, Unknown};
    for (value, kind) in [
        ("", Identity),
        (" Identity\t", Identity),
        ("zstd", Known(Encoding::Zstd)),
        ("GZIP", Known(Encoding::Gzip)),
        ("x-gzip", Known(Encoding::Gzip)),
        ("deflate ", Known(Encoding::Deflate)),
        ("br", Unknown),
        ("gzip, zstd", Unknown),
        ("gzip,", Unknown),
        ("identity, gzip", Unknown),
    ] {
        assert_eq!(Encoding::from_header(value), kind, "{value:?}");
    }
}

#[test]
fn truncated_bodies_and_bytes_after_the_end_are_errors() {
    for encoding in ALL {
        let whole = compress(encoding, b"some text, some text, some text");
        for end in 0..whole.len() {
            assert!(decompress(encoding, [&whole[..end]]).is_err(), "{encoding:?} {end}");
            assert!(
                decompress(encoding, whole[..end].chunks(1)).is_err(),
                "{encoding:?} {end}"
            );
        }
        let twice = [&whole[..], &whole].concat();
        let garbage = [&whole[..], b"x"].concat();
        for more in [&twice, &garbage] {
            assert!(decompress(encoding, [&more[..]]).is_err(), "{encoding:?}");
            assert!(decompress(encoding, more.chunks(1)).is_err(), "{encoding:?}");
            assert!(
                decompress(encoding, [&whole[..], &more[whole.len()..]]).is_err(),
                "{encoding:?}"
            );
        }
        assert!(decompress(encoding, [b"{}".as_slice()]).is_err());
    }
    // A skippable frame counts as a frame, so the frame after it is one too many.
    let skippable = [b"\x50\x2a\x4d\x18\x01\0\0\0x", &compress(Encoding::Zstd, b"text")[..]].concat();
    assert!(decompress(Encoding::Zstd, [&skippable[..]]).is_err());
}

#[test]
fn wrong_checksums_are_errors() {
    for encoding in [Encoding::Gzip, Encoding::Deflate] {
        let mut whole = compress(encoding, b"some text");
        *whole
            .iter_mut()
            .nth_back(if encoding == Encoding::Gzip { 4 } else { 0 })
            .unwrap() ^= 1;
        assert!(decompress(encoding, [&whole[..]]).is_err(), "{encoding:?}");
    }
}

#[test]
fn a_window_over_eight_mebibytes_is_refused() {
    for (log, accepted) in [(21, true), (23, true), (24, false), (27, false)] {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(b"text").unwrap();
        let body = encoder.finish().unwrap();
        assert_eq!(decompress(Encoding::Zstd, [&body[..]]).is_ok(), accepted, "{log}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn compressed_text_is_decompressed_to_the_same_text(
        text in prop::collection::vec(prop_oneof![Just(b'a'), any::<u8>()], 0..5000),
        repeat in 1usize..60,
        size in prop_oneof![1usize..40, 40usize..100_000],
        level in 0u32..10,
    ) {
        let text = text.repeat(repeat);
        for encoding in ALL {
            let body = compress(encoding, &text);
            prop_assert_eq!(&decompress(encoding, body.chunks(size)).unwrap(), &text);
        }
        let body = compress_raw(&text, level);
        prop_assert_eq!(&decompress(Encoding::Deflate, body.chunks(size)).unwrap(), &text);
    }
}
