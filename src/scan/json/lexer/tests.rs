//! The tokens and errors of the lexer with every instruction set, compared with an oracle.

use super::*;
use proptest::prelude::*;

/// A slow and obvious lexer, which reads byte by byte.
#[derive(Default)]
struct OracleLexer {
    in_string: bool,
    escaped: bool,
    in_scalar: bool,
}

impl OracleLexer {
    fn step(&mut self, block: &Block) -> BlockTokens {
        let mut tokens = BlockTokens::default();
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

fn instruction_sets() -> Vec<InstructionSet> {
    let mut sets = vec![InstructionSet::Portable];
    #[cfg(target_arch = "x86_64")]
    sets.extend(Avx2::detect().map(InstructionSet::Avx2));
    sets
}

/// Text without lexical errors: escapes are complete and stand only inside strings.
fn valid_text() -> impl Strategy<Value = Vec<u8>> {
    let inner = prop::sample::select(vec![
        "\\\"",
        "\\\\",
        "\\n",
        "\\u0041",
        "\\ud83d\\ude00",
        "\\ud83d",
        "\\uDC00",
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
    fn the_tokens_are_those_of_the_oracle(bytes in valid_text()) {
        let blocks = blocks_of(bytes);
        for set in instruction_sets() {
            let (mut lexer, mut oracle) = (Lexer::default(), OracleLexer::default());
            for batch in blocks.chunks(BATCH) {
                let mut tokens = [BlockTokens::default(); BATCH];
                prop_assert_eq!(lexer.read(set, batch, &mut tokens), None);
                for (block, tokens) in batch.iter().zip(tokens) {
                    prop_assert_eq!(tokens, oracle.step(block));
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_finds_the_same_error(bytes in valid_text(), at: prop::sample::Index, byte: u8) {
        let mut bytes = [b"\"".as_slice(), &bytes].concat();
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let blocks = blocks_of(bytes);
        let read = |set| {
            let mut lexer = Lexer::default();
            let mut answers = Vec::new();
            for batch in blocks.chunks(BATCH) {
                let mut tokens = [BlockTokens::default(); BATCH];
                let error = lexer.read(set, batch, &mut tokens);
                answers.push((error, tokens));
                if error.is_some() {
                    break;
                }
            }
            answers
        };
        let portable = read(InstructionSet::Portable);
        for set in instruction_sets() {
            prop_assert_eq!(&read(set), &portable);
        }
    }
}

#[test]
fn errors_have_their_kind_and_offset_at_every_alignment() {
    let cases: &[(&[u8], JsonErrorKind, usize)] = &[
        (b"\x01", JsonErrorKind::ControlCharacter, 0),
        (b"a\\x", JsonErrorKind::InvalidEscape, 2),
        (b"\\u12g4", JsonErrorKind::InvalidEscape, 4),
        (b"\xc3.", JsonErrorKind::InvalidUtf8, 0),
        (b"a\xe6\xbc.", JsonErrorKind::InvalidUtf8, 1),
        (b"\xf0\x9f\x98.", JsonErrorKind::InvalidUtf8, 0),
    ];
    for set in instruction_sets() {
        for (text, kind, place) in cases {
            for shift in 0..130 {
                let mut bytes = vec![b'.'; shift + 1];
                bytes[0] = b'"';
                bytes.extend_from_slice(text);
                let mut tokens = [BlockTokens::default(); BATCH];
                let error = Lexer::default().read(set, &blocks_of([&bytes[..], b"          "].concat()), &mut tokens);
                let offset = (shift + 1 + place) as isize;
                assert_eq!(error, Some(LexicalError { kind: *kind, offset }), "{text:?} {shift}");
            }
        }
    }
}
