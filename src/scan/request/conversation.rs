//! Hashes the beginning of a conversation, as it streams by.
//!
//! The digest is made of the meaning of the body, not of its bytes: the roles of the items, and their texts and data as
//! written between the quotes. So it does not change where a client writes the same conversation in another way: a text as
//! a string or as a list of parts, members in another order, other whitespace, or with and without ids, annotations and
//! marks for the cache. The parts of the body may stand in any order. Each text is hashed with its position in its item, and
//! the hashes of an item are added up. So the order of the members does not matter, but that of the parts does.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::{ids::ContentDigest, scan::json::unescape::unescape};

/// The members of the root that contain the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `instructions` of the Responses API.
    Instructions,
    /// `system` of the Messages API. Its array contains parts of one item.
    System,
    /// `input` of the Responses API.
    Input,
    /// `messages` of the chat completions and the Messages API.
    Messages,
}

/// What a text of an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf {
    /// Text, or the arguments or the output of a tool.
    Text,
    /// An image, recording or file, or its URL or id.
    Media,
}

/// The maximum length in bytes, as written, of a role that is read. `user` may be written with escapes like `\u0000`.
pub(super) const MAX_ROLE: usize = 64;
/// The depth of the deepest members that are read.
pub(super) const MAX_DEPTH: u32 = 8;
/// The role of the user.
const USER: u64 = 1;

/// The hash of a text as written.
pub(super) fn hash_of(raw: &[u8]) -> u64 {
    XxHash3_64::oneshot(raw)
}

/// Reads the beginning of a conversation.
#[derive(Default)]
pub(super) struct ConversationReader {
    digest: DigestBuilder,
    /// The part that is being read.
    open: Option<Part>,
    item: Item,
    /// The number of the objects in the current array of parts that have begun.
    parts: u64,
    /// The members deeper than this depth belong to annotations or the like, if it is not 0.
    skipped_below: u32,
    text: StreamedText,
}

/// A text that is read in pieces.
#[derive(Default)]
struct StreamedText {
    /// The position of the text in its item.
    position: u64,
    /// The state of the hash, if the text has several pieces. The hash of one piece needs none.
    hasher: Option<Box<XxHash3_64>>,
    /// The length of the pieces in bytes.
    length: u64,
}

/// The digest of an item.
#[derive(Clone, Copy, Default)]
pub struct Item {
    role: u64,
    leaves: u64,
}

impl Item {
    /// An item of the user.
    pub const USER: Self = Self { role: USER, leaves: 0 };

    /// Sets the role, given as written.
    pub fn set_role(&mut self, raw: &[u8]) {
        let is_user = raw == b"user" || unescape(raw).is_ok_and(|role| role == "user");
        self.role = if is_user { USER } else { XxHash3_64::oneshot(raw) };
    }

    /// Adds the text with this hash at a position.
    fn add(&mut self, leaf: Leaf, position: u64, hash: u64) {
        let seed = position << 1 | u64::from(leaf == Leaf::Media);
        let hash = XxHash3_64::oneshot_with_seed(seed, &hash.to_le_bytes());
        self.leaves = self.leaves.wrapping_add(hash);
    }

    /// Adds a text, given as written, at a position.
    pub fn add_text(&mut self, leaf: Leaf, position: u64, raw: &[u8]) {
        if !raw.is_empty() {
            self.add(leaf, position, XxHash3_64::oneshot(raw));
        }
    }

    /// Whether the item says nothing that is hashed.
    fn is_empty(self) -> bool {
        self.role == 0 && self.leaves == 0
    }
}

/// Makes a digest of the items of each part.
#[derive(Default)]
pub struct DigestBuilder {
    /// The hash of the items of each part, or 0 if the part is empty.
    parts: [u64; 4],
}

impl DigestBuilder {
    /// Appends an item to a part.
    pub fn push(&mut self, part: Part, item: Item) {
        if !item.is_empty() {
            let hash = &mut self.parts[part as usize];
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&item.role.to_le_bytes());
            bytes[8..].copy_from_slice(&item.leaves.to_le_bytes());
            *hash = XxHash3_64::oneshot_with_seed(*hash, &bytes).max(1);
        }
    }

    /// The digest, or `None` if all parts are empty.
    pub fn finish(&self) -> Option<ContentDigest> {
        let hash = |seed, part: &u64| XxHash3_64::oneshot_with_seed(seed, &part.to_le_bytes());
        let is_some = self.parts.iter().any(|part| *part != 0);
        is_some.then(|| ContentDigest::from_hash(self.parts.iter().fold(0, hash)))
    }
}

impl ConversationReader {
    /// Whether a part is being read.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The digest of what has been read.
    pub fn finish(&self) -> Option<ContentDigest> {
        self.digest.finish()
    }

    /// The value of a part begins with the byte `first`. Returns whether it is read.
    pub fn begin(&mut self, part: Part, first: u8) -> bool {
        self.item = match part {
            Part::Input | Part::Messages if first == b'"' => Item::USER,
            _ => Item::default(),
        };
        self.parts = 0;
        self.skipped_below = 0;
        let is_read = matches!(first, b'"' | b'[');
        self.open = is_read.then_some(part);
        is_read
    }

    /// The depth of the values that are the parts of an item.
    fn part_depth(&self) -> u32 {
        match self.open {
            Some(Part::System) => 2,
            Some(Part::Instructions | Part::Input | Part::Messages) | None => 4,
        }
    }

    /// Whether the members at `depth` are read.
    #[inline(always)]
    pub fn reads(&self, depth: u32) -> bool {
        self.open.is_some()
            && (3..=MAX_DEPTH).contains(&depth)
            && (self.skipped_below == 0 || depth <= self.skipped_below)
    }

    /// Whether the member `role` at `depth` is the role of an item.
    pub fn is_role(&self, depth: u32) -> bool {
        depth == 3 && !matches!(self.open, Some(Part::System))
    }

    /// Whether a string without a key at `depth` is a text of the conversation.
    #[inline(always)]
    pub fn is_item_text(&self, depth: u32) -> bool {
        depth == 2 && self.open.is_some()
    }

    /// Visits the beginning of a value in the open part.
    pub fn visit_value(&mut self, depth: u32, first: u8) {
        if depth == 2 && self.part_depth() == 4 {
            self.item = Item::default();
        }
        if depth == self.part_depth() {
            self.parts += u64::from(first == b'{');
        } else if depth == self.part_depth() - 1 {
            self.parts = 0;
        }
    }

    /// The members of the value that begins at `depth` are skipped.
    pub fn skip(&mut self, depth: u32) {
        self.skipped_below = depth;
    }

    /// Visits the end of a value in the open part. Returns whether the beginning of the conversation ends with it.
    pub fn visit_value_end(&mut self, depth: u32) -> bool {
        if depth == self.skipped_below {
            self.skipped_below = 0;
        }
        let Some(part) = self.open else {
            return false;
        };
        match (depth, part) {
            (1, _) => {
                // The items of an array have been pushed, except for that of `system`.
                self.push(part);
                self.open = None;
                true
            }
            (2, Part::Instructions | Part::Input | Part::Messages) => {
                let is_first_question = self.item.role == USER && part != Part::Instructions;
                self.push(part);
                if is_first_question {
                    self.open = None;
                }
                is_first_question
            }
            _ => false,
        }
    }

    fn push(&mut self, part: Part) {
        self.digest.push(part, std::mem::take(&mut self.item));
    }

    /// Visits the role of the item, as written, or `None` if it is too long to be read.
    pub fn visit_role(&mut self, raw: Option<&[u8]>) {
        if self.open.is_some() {
            self.item.set_role(raw.unwrap_or(b"?"));
        }
    }

    /// A text at `depth` begins.
    pub fn begin_text(&mut self, depth: u32) {
        self.text = StreamedText {
            position: self.position(depth),
            ..StreamedText::default()
        };
    }

    /// The position in the item of a text at `depth`.
    fn position(&self, depth: u32) -> u64 {
        match depth > self.part_depth() {
            true => self.parts.saturating_sub(1),
            false => 0,
        }
    }

    /// Visits a piece of a text that is not its last one.
    pub fn visit_piece(&mut self, piece: &[u8]) {
        let hasher = self.text.hasher.get_or_insert_with(|| Box::new(XxHash3_64::new()));
        hasher.write(piece);
        self.text.length += piece.len() as u64;
    }

    /// Visits the last piece of a text. Returns the length of the text and its hash.
    pub fn visit_last_piece(&mut self, leaf: Leaf, piece: &[u8]) -> (u64, u64) {
        let text = std::mem::take(&mut self.text);
        let hash = match text.hasher {
            Some(mut hasher) => {
                hasher.write(piece);
                hasher.finish()
            }
            None => XxHash3_64::oneshot(piece),
        };
        let length = text.length + piece.len() as u64;
        if length > 0 {
            self.item.add(leaf, text.position, hash);
        }
        (length, hash)
    }

    /// Visits a text at `depth` that has been captured as a whole.
    pub fn visit_text(&mut self, leaf: Leaf, depth: u32, raw: &[u8]) {
        self.item.add_text(leaf, self.position(depth), raw);
    }
}
