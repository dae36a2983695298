//! The masks that the lexer needs, and the operations that make them.

/// The bytes that the lexer reads in one step.
pub(in crate::scan) type Block = [u8; 64];

/// The bytes that separate or structure values outside of strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct StructureMasks {
    /// Space, tab, line feed and carriage return.
    pub whitespace: u64,
    /// `{ } [ ] : ,`. Control characters may be included although they are no operators.
    pub operators: u64,
}

/// An implementation of the mask operations.
pub(in crate::scan) trait Simd: Copy {
    /// A block in registers.
    type Loaded: Copy;
    /// Loads a block.
    fn load(self, block: &Block) -> Self::Loaded;
    /// The bytes equal to `byte`.
    fn equal(self, block: Self::Loaded, byte: u8) -> u64;
    /// Whether a byte of `one` equals `byte`, and the byte at the same place in `other` equals `others`.
    #[inline(always)]
    fn any_equal_both(self, one: Self::Loaded, byte: u8, other: Self::Loaded, others: u8) -> bool {
        self.equal(one, byte) & self.equal(other, others) != 0
    }
    /// The bytes below 0x20, and the bytes of 0x80 and above.
    fn unusual(self, block: Self::Loaded) -> u64;
    /// The bytes of 0x80 and above.
    fn non_ascii(self, block: Self::Loaded) -> u64;
    /// The bytes that may follow a backslash in a string, except `u`.
    fn simple_escapes(self, block: Self::Loaded) -> u64;
    /// Whitespace and operators.
    fn structure(self, block: Self::Loaded) -> StructureMasks;
    /// Hexadecimal digits. They are rarely needed, so the operation is not inlined into the loop of the lexer.
    fn hex_digits(self, block: &Block) -> u64;
    /// The running parity: each bit of the result is the parity of the bits of `mask` up to and including that bit.
    fn prefix_xor(self, mask: u64) -> u64;
    /// Whether `block` continues as UTF-8 after `before`, the four bytes that precede it; the last one is the most
    /// significant. A sequence that the block does not complete is checked with the next block.
    fn is_utf8(self, block: &Block, before: u32) -> bool;
}
