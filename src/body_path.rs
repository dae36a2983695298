//! Paths to the texts in a JSON body that may name a session, such as `prompt_cache_key` or `metadata.user_id`.

use std::{fmt, str::FromStr};

/// The path to a text in a JSON body: one to [`BodyPath::MAX_NAMES`] names of members, from the root object inwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyPath(Box<[Box<str>]>);

impl BodyPath {
    /// The maximum number of names.
    pub const MAX_NAMES: usize = 3;
    /// The maximum length of a name in bytes.
    pub const MAX_NAME: usize = 64;

    /// The names, the outermost first.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

/// The error for a text that is not a [`BodyPath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBodyPath;

impl fmt::Display for InvalidBodyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a path has 1 to {} names with a \".\" between them, each of 1 to {} letters, digits, \"_\" or \"-\"",
            BodyPath::MAX_NAMES,
            BodyPath::MAX_NAME
        )
    }
}

impl std::error::Error for InvalidBodyPath {}

impl FromStr for BodyPath {
    type Err = InvalidBodyPath;

    fn from_str(text: &str) -> Result<Self, InvalidBodyPath> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_name = |name: &str| (1..=Self::MAX_NAME).contains(&name.len()) && name.bytes().all(is_allowed);
        let names: Box<[Box<str>]> = text.split('.').map(Box::from).collect();
        match names.len() <= Self::MAX_NAMES && names.iter().all(|name| is_name(name)) {
            true => Ok(Self(names)),
            false => Err(InvalidBodyPath),
        }
    }
}

impl fmt::Display for BodyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Distinct paths, in a fixed order: at most [`BodyPaths::MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyPaths(Box<[BodyPath]>);

impl BodyPaths {
    /// The maximum number of paths.
    pub const MAX: usize = 64;

    /// The distinct paths among `paths`, in the order of their first occurrence. Paths after the first [`Self::MAX`] are left
    /// out; the configuration refuses so many.
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a BodyPath>) -> Self {
        let mut distinct: Vec<BodyPath> = Vec::new();
        for path in paths {
            if !distinct.contains(path) && distinct.len() < Self::MAX {
                distinct.push(path.clone());
            }
        }
        Self(distinct.into())
    }

    /// The paths with their indexes.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (usize, &BodyPath)> {
        self.0.iter().enumerate()
    }

    /// The index of `path`.
    pub fn index_of(&self, path: &BodyPath) -> Option<usize> {
        self.0.iter().position(|known| known == path)
    }
}

/// The texts that a body has at the paths of a [`BodyPaths`]. Only strings count.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct BodyTexts(Vec<(usize, String)>);

impl BodyTexts {
    /// The text at the path with this index.
    pub fn get(&self, path: usize) -> Option<&str> {
        let found = self.0.iter().find(|(index, _)| *index == path);
        found.map(|(_, text)| text.as_str())
    }

    /// Sets the text at the path with this index.
    pub fn set(&mut self, path: usize, text: String) {
        // The texts are sorted, so that equal texts are equal in whatever order a body has them.
        match self.0.binary_search_by_key(&path, |(index, _)| *index) {
            Ok(at) => self.0[at].1 = text,
            Err(at) => self.0.insert(at, (path, text)),
        }
    }
}

/// Prints only the lengths, because clients choose the texts.
impl fmt::Debug for BodyTexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lengths = self.0.iter().map(|(path, text)| (path, text.len()));
        f.debug_map().entries(lengths).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_to_three_names() {
        for good in ["user", "metadata.user_id", "a.b-c.D_1"] {
            let path: BodyPath = good.parse().expect(good);
            assert_eq!(path.to_string(), good);
            assert!(path.names().eq(good.split('.')));
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "a.", ".a", "a..b", "a.b.c.d", "a b", "\"", "\u{e9}", &long] {
            assert_eq!(bad.parse::<BodyPath>(), Err(InvalidBodyPath), "{bad}");
        }
    }

    #[test]
    fn each_distinct_path_has_an_index() {
        let [a, b, c] = ["a", "b.c", "d"].map(|path| path.parse::<BodyPath>().expect("a path"));
        let paths = BodyPaths::new([&a, &b, &a]);
        assert_eq!([&a, &b, &c].map(|path| paths.index_of(path)), [Some(0), Some(1), None]);
        assert_eq!(paths.iter().len(), 2);
    }

    #[test]
    fn a_text_is_found_by_the_index_of_its_path_and_never_printed() {
        let mut texts = BodyTexts::default();
        texts.set(1, "first".to_owned());
        texts.set(0, "secret".to_owned());
        texts.set(1, "second".to_owned());
        assert_eq!(
            [0, 1, 2].map(|path| texts.get(path)),
            [Some("secret"), Some("second"), None]
        );
        assert_eq!(format!("{texts:?}"), "{0: 6, 1: 6}");
        let mut others = BodyTexts::default();
        others.set(0, "secret".to_owned());
        others.set(1, "second".to_owned());
        assert_eq!(texts, others);
        let mut reversed = BodyTexts::default();
        reversed.set(1, "second".to_owned());
        reversed.set(0, "secret".to_owned());
        assert_eq!(reversed, texts, "the order in which the body has them does not matter");
    }
}
