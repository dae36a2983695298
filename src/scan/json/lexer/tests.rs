use super::*;
use proptest::prelude::*;

/// What the lexer should say, byte by byte.
#[derive(Default)]
struct Slow {
    in_string: bool,
    escaped: bool,
    in_scalar: bool,
}

impl Slow {
    fn step(&mut self, block: &Block) -> Tokens {
        let mut tokens = Tokens::default();
        for (index, byte) in block.iter().enumerate() {
            let bit = 1u64 << index;
            let scalar = !self.in_string && !b" \t\r\n{}[]:,\"".contains(byte);
            let blank = b" \t\r\n".contains(byte);
            if !(self.in_string || blank || scalar && self.in_scalar) {
                tokens.begins |= bit;
            }
            self.in_scalar = scalar;
            if self.in_string && !self.escaped && *byte == b'"' {
                tokens.closes |= bit;
                self.in_string = false;
            } else if !self.in_string {
                self.in_string = *byte == b'"';
            } else {
                self.escaped = !self.escaped && *byte == b'\\';
            }
        }
        tokens
    }
}

fn paths() -> Vec<Path> {
    let mut paths = vec![Path::Portable];
    #[cfg(target_arch = "x86_64")]
    paths.extend(Avx2::detect().map(Path::Avx2));
    paths
}

/// Text in which nothing is wrong: escapes are whole and only inside strings.
fn sound() -> impl Strategy<Value = Vec<u8>> {
    let inner = prop::sample::select(vec![
        "\\\"",
        "\\\\",
        "\\n",
        "\\u0041",
        "\\ud83d\\ude00",
        "a",
        "{",
        ":",
        " ",
        "é",
        "漢",
    ]);
    let outer = prop::sample::select(vec!["{", "}", "[", "]", ":", ",", " ", "\n", "1", "true", "x"]);
    let string = prop::collection::vec(inner, 0..40).prop_map(|parts| format!("\"{}\"", parts.concat()));
    let part = prop_oneof![string, outer.prop_map(str::to_owned)];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat().into_bytes())
}

fn blocks_of(mut bytes: Vec<u8>) -> Vec<Block> {
    bytes.resize(bytes.len().next_multiple_of(64), b' ');
    bytes.as_chunks().0.to_vec()
}

proptest! {
    #[test]
    fn tokens_are_those_of_a_byte_by_byte_reading(bytes in sound()) {
        let blocks = blocks_of(bytes);
        for path in paths() {
            let (mut lexer, mut slow) = (Lexer::default(), Slow::default());
            for batch in blocks.chunks(BATCH) {
                let mut tokens = [Tokens::default(); BATCH];
                prop_assert_eq!(lexer.read(path, batch, &mut tokens), None);
                for (block, tokens) in batch.iter().zip(tokens) {
                    prop_assert_eq!(tokens, slow.step(block));
                }
            }
        }
    }

    #[test]
    fn every_path_finds_the_same_flaw(bytes in sound(), at: prop::sample::Index, byte: u8) {
        let mut bytes = [b"\"".as_slice(), &bytes].concat();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let blocks = blocks_of(bytes);
        let read = |path| {
            let mut lexer = Lexer::default();
            let mut answers = Vec::new();
            for batch in blocks.chunks(BATCH) {
                let mut tokens = [Tokens::default(); BATCH];
                let flaw = lexer.read(path, batch, &mut tokens);
                answers.push((flaw, tokens));
                if flaw.is_some() {
                    break;
                }
            }
            answers
        };
        let portable = read(Path::Portable);
        for path in paths() {
            prop_assert_eq!(&read(path), &portable);
        }
    }
}

#[test]
fn flaws_are_named_and_placed_at_every_alignment() {
    let cases: &[(&[u8], Problem, usize)] = &[
        (b"\x01", Problem::ControlCharacter, 0),
        (b"a\\x", Problem::BadEscape, 2),
        (b"\\u12g4", Problem::BadEscape, 4),
        (b"\\ud800.......", Problem::LoneSurrogate, 0),
        (b"..\\udc00", Problem::LoneSurrogate, 2),
        (b"\\ud800\\ud800\\udc00", Problem::LoneSurrogate, 0),
        (b"\xc3.", Problem::InvalidUtf8, 0),
        (b"a\xe6\xbc.", Problem::InvalidUtf8, 1),
        (b"\xf0\x9f\x98.", Problem::InvalidUtf8, 0),
    ];
    for path in paths() {
        for (text, problem, place) in cases {
            for shift in 0..130 {
                let mut bytes = vec![b'.'; shift + 1];
                bytes[0] = b'"';
                bytes.extend_from_slice(text);
                let mut tokens = [Tokens::default(); BATCH];
                let flaw = Lexer::default().read(path, &blocks_of([&bytes[..], b"          "].concat()), &mut tokens);
                let offset = (shift + 1 + place) as isize;
                assert_eq!(
                    flaw,
                    Some(Flaw {
                        problem: *problem,
                        offset
                    }),
                    "{text:?} {shift}"
                );
            }
        }
    }
}
