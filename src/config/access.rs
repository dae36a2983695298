//! `[[group]]`, `[[key]]`, and the further files that keys stand in.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::de::DeValue;

use super::{
    ModelGlobs, Upstream,
    check::Placed,
    errors::{Notes, Place},
    reader::{Reader, Schema, Section},
    secrets::{Surroundings, read_file, shown},
    upstream::{parse_glob, parse_name},
    values::{CREDENTIAL, boolean, integer, kind, quoted, text},
};

/// The most that one file of keys may hold: some hundred thousand.
const MAX_KEYS_FILE: u64 = 64 << 20;
/// SHA-256 of nothing, which is what hashing an unset variable gives.
const OF_NOTHING: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// `[[group]]`: callers who share sessions, response state and rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name, unique among groups.
    pub name: String,
    /// The names of the upstreams that it may call, at least one, each of which there is; `None` for all.
    pub upstreams: Option<Vec<String>>,
    /// The models that it may use.
    pub models: ModelGlobs,
    /// Requests in a minute for each key, at least 1.
    pub requests_per_minute: Option<u32>,
    /// Tokens in a minute for each key, at least 1.
    pub tokens_per_minute: Option<u64>,
    /// Requests at a time for each key, at least 1.
    pub max_concurrent: Option<u32>,
}

/// `[[key]]`: a client key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// Its name, unique among keys: what limits and the log know it by.
    pub name: String,
    /// The SHA-256 of the key; during a rotation of the old one and the new. No two keys have the same.
    pub digests: Vec<[u8; 32]>,
    /// The name of its group, which there is.
    pub group: String,
    /// The second of Unix time from which on it is good no more.
    pub expires: Option<u64>,
    /// Whether it is switched off.
    pub disabled: bool,
}

pub(super) const GROUP: Schema = Schema {
    name: "[[group]]",
    prefix: "group.",
    fields: &[
        "name",
        "upstreams",
        "models",
        "requests_per_minute",
        "tokens_per_minute",
        "max_concurrent",
    ],
};
pub(super) const KEY: Schema = Schema {
    name: "[[key]]",
    prefix: "key.",
    fields: &["name", "sha256", "group", "expires", "disabled"],
};
/// The top level of a file of keys.
const KEYS: Schema = Schema {
    name: "the top level of a file of keys",
    prefix: "",
    fields: &["key"],
};

/// Groups and keys as far as they are read.
#[derive(Default)]
pub(super) struct Draft {
    groups: Vec<GroupDraft>,
    keys: Vec<Placed<ClientKey>>,
    /// Whether a key, or a place for keys, is written.
    pub has_client_keys: bool,
    keys_file: Option<Placed<PathBuf>>,
    keys_directory: Option<Placed<PathBuf>>,
}

struct GroupDraft {
    place: Place,
    group: Group,
    upstreams: Vec<Placed<String>>,
}

impl Draft {
    /// Reads where further keys stand.
    pub fn read_places(&mut self, reader: &mut Reader<'_>, server: &Section<'_>, around: Surroundings<'_>) {
        for (field, place) in [
            ("keys_file", &mut self.keys_file),
            ("keys_directory", &mut self.keys_directory),
        ] {
            self.has_client_keys |= server.get(field).is_some();
            let path = reader.read(server, field, |value| match text(value)? {
                "" => Err("must be a path".to_owned()),
                path => Ok(around.folder.join(path)),
            });
            *place = server.get(field).map(|value| reader.place_of(value)).zip(path);
        }
    }

    /// Reads the groups and keys that stand in the main file.
    pub fn read(&mut self, reader: &mut Reader<'_>, root: &Section<'_>) {
        for section in reader.sections(root, "group", &GROUP) {
            self.groups.extend(read_group(reader, &section));
        }
        self.has_client_keys |= root.get("key").is_some();
        self.read_keys(reader, root);
    }

    fn read_keys(&mut self, reader: &mut Reader<'_>, root: &Section<'_>) {
        for section in reader.sections(root, "key", &KEY) {
            self.keys.extend(read_key(reader, &section));
        }
    }

    /// Reads the keys that stand elsewhere; what is wrong with them joins `notes`.
    pub fn read_elsewhere(&mut self, mut notes: Notes) -> Notes {
        let mut files: Vec<Placed<PathBuf>> = self.keys_file.clone().into_iter().collect();
        if let Some((place, folder)) = &self.keys_directory {
            match key_files(folder) {
                Ok(found) => files.extend(found.into_iter().map(|file| (place.clone(), file))),
                Err(problem) => notes.error(
                    place.clone(),
                    format!("keys_directory needs the folder {}, which {problem}", shown(folder)),
                ),
            }
        }
        for (place, file) in files {
            let content = read_file(&file, MAX_KEYS_FILE)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned()));
            match content {
                Ok(content) => {
                    let origin = Arc::from(file.display().to_string());
                    let (mut reader, tree) = Reader::parse(&content, origin, &[&KEY, &KEYS], notes);
                    let root = reader.root(&KEYS, &tree);
                    self.read_keys(&mut reader, &root);
                    notes = reader.notes;
                }
                Err(problem) => notes.error(place, format!("needs the file {}, which {problem}", shown(&file))),
            }
        }
        notes
    }

    /// The files and folders that it was read from, beside the main file.
    pub fn places(&self) -> Vec<PathBuf> {
        let places = self.keys_file.iter().chain(&self.keys_directory);
        places.map(|(_, path)| path.clone()).collect()
    }

    /// Checks everything together.
    pub fn finish(
        self,
        upstreams: &[Upstream],
        names: &[Placed<String>],
        notes: &mut Notes,
    ) -> (Vec<Group>, Vec<ClientKey>) {
        self.check_groups(names, notes);
        self.check_keys(notes);
        let passthrough = upstreams.iter().find(|upstream| upstream.is_passthrough());
        if let (true, Some(upstream)) = (self.has_client_keys, passthrough) {
            let place = names.iter().find(|(_, name)| *name == upstream.name);
            let message = "api_key may not be \"passthrough\" where callers have client keys: what they send is the client key, which no upstream may see; name the account's own key";
            if let Some((place, _)) = place {
                notes.error(place.clone(), message);
            }
        }
        (
            self.groups.into_iter().map(|draft| draft.group).collect(),
            self.keys.into_iter().map(|(_, key)| key).collect(),
        )
    }

    fn check_groups(&self, upstreams: &[Placed<String>], notes: &mut Notes) {
        let known: HashSet<&str> = upstreams.iter().map(|(_, name)| name.as_str()).collect();
        let used: HashSet<&str> = self.keys.iter().map(|(_, key)| key.group.as_str()).collect();
        let mut seen = HashSet::new();
        for GroupDraft {
            place,
            group,
            upstreams,
        } in &self.groups
        {
            let name = &group.name;
            if !seen.insert(name) {
                notes.error(
                    place.clone(),
                    format!("the group name \"{name}\" is taken; names must be unique"),
                );
            } else if !used.contains(name.as_str()) {
                notes.warn(
                    place.clone(),
                    format!("no key is of the group \"{name}\"; make one with: steadfast key --group {name}"),
                );
            }
            for (place, upstream) in upstreams {
                if !known.contains(upstream.as_str()) {
                    notes.error(
                        place.clone(),
                        format!("there is no upstream {}; name one that is configured", quoted(upstream)),
                    );
                }
            }
        }
    }

    fn check_keys(&self, notes: &mut Notes) {
        let groups: HashSet<&str> = self.groups.iter().map(|draft| draft.group.name.as_str()).collect();
        let now = u64::try_from(OffsetDateTime::now_utc().unix_timestamp()).unwrap_or_default();
        let mut names = HashMap::new();
        let mut digests = HashMap::new();
        for (place, key) in &self.keys {
            if let Some(other) = names.insert(key.name.as_str(), place) {
                let message = format!(
                    "the key name \"{}\" is taken at {other}; names must be unique",
                    key.name
                );
                notes.error(place.clone(), message);
            }
            for digest in &key.digests {
                if let Some(other) = digests.insert(digest, place) {
                    notes.error(
                        place.clone(),
                        format!("sha256 is that of another key, at {other}; make a key for each"),
                    );
                }
            }
            if !groups.contains(key.group.as_str()) {
                notes.error(
                    place.clone(),
                    format!("there is no group {}; add [[group]] with this name", quoted(&key.group)),
                );
            }
            if key.expires.is_some_and(|expires| expires <= now) {
                notes.warn(place.clone(), format!("the key \"{}\" has expired", key.name));
            }
        }
    }
}

/// The files of keys in `folder`, in the order of their names. Hidden ones are not: editors and Kubernetes keep theirs there.
fn key_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files)
}

fn read_group(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<GroupDraft> {
    let name = reader.read(section, "name", |value| parse_name(text(value)?));
    let upstreams = reader.list(section, "upstreams", false, |value| text(value).map(str::to_owned));
    if let (Some([]), Some(value)) = (upstreams.as_deref(), section.get("upstreams")) {
        reader.error(value, "upstreams must name one at least; leave it out for all of them");
    }
    let models = reader.list(section, "models", false, parse_glob);
    if let (Some([]), Some(value)) = (models.as_deref(), section.get("models")) {
        reader.error(value, "models must hold one glob at least; leave it out for all models");
    }
    let most = u64::from(u32::MAX);
    let count = |value: &DeValue<'_>| integer(value, 1..=most).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let requests_per_minute = reader.read(section, "requests_per_minute", count);
    let tokens_per_minute = reader.read(section, "tokens_per_minute", |value| {
        integer(value, 1..=1_000_000_000_000_000)
    });
    let max_concurrent = reader.read(section, "max_concurrent", count);
    let Some(value) = section.get("name") else {
        reader.missing(section, "[[group]] has no name; add name = \"team\"");
        return None;
    };
    let upstreams = upstreams.map(|names| names.into_iter().collect::<Vec<_>>());
    let names = |placed: &Vec<Placed<String>>| placed.iter().map(|(_, name)| name.clone()).collect();
    Some(GroupDraft {
        place: reader.place_of(value),
        group: Group {
            name: name?,
            upstreams: upstreams.as_ref().map(names),
            models: ModelGlobs::new(models.into_iter().flatten().map(|(_, glob)| glob)),
            requests_per_minute,
            tokens_per_minute,
            max_concurrent,
        },
        upstreams: upstreams.unwrap_or_default(),
    })
}

fn read_key(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Placed<ClientKey>> {
    let name = reader.read(section, "name", |value| match text(value)? {
        // It would stand in every line of the log.
        text if text.starts_with(CREDENTIAL) => Err("must be a name, not the key itself".to_owned()),
        text => parse_name(text),
    });
    let digests = reader.list(section, "sha256", true, |value| parse_digest(value));
    if let (Some([]), Some(value)) = (digests.as_deref(), section.get("sha256")) {
        reader.error(value, "sha256 must hold one digest at least");
    }
    let group = reader.read(section, "group", |value| text(value).map(str::to_owned));
    let expires = reader.read(section, "expires", parse_moment);
    let disabled = reader.read(section, "disabled", boolean);
    for (field, remedy) in [
        ("name", "add name = \"alice\""),
        ("sha256", "make a key with: steadfast key"),
        ("group", "add group with the name of a [[group]]"),
    ] {
        if section.get(field).is_none() {
            reader.missing(section, format!("[[key]] has no {field}; {remedy}"));
        }
    }
    // What is written and cannot be read must not make a key that lasts.
    let is_sound = [("expires", expires.is_some()), ("disabled", disabled.is_some())]
        .into_iter()
        .all(|(field, read)| read || section.get(field).is_none());
    let place = section.get("name").map(|value| reader.place_of(value))?;
    let key = ClientKey {
        name: name?,
        digests: digests?.into_iter().map(|(_, digest)| digest).collect(),
        group: group?,
        expires,
        disabled: disabled.unwrap_or(false),
    };
    is_sound.then_some((place, key))
}

/// Never repeats the text: where a digest is expected, some write the key itself.
fn parse_digest(value: &DeValue<'_>) -> Result<[u8; 32], String> {
    const WANTED: &str = "must be the SHA-256 of a key as 64 hexadecimal digits, as \"steadfast key\" prints it; for a key that there is: printf %s \"$KEY\" | sha256sum";
    let digits = match value {
        DeValue::String(text) => text.as_bytes(),
        other => return Err(format!("{WANTED}; this is {}", kind(other))),
    };
    let mut digest = [0; 32];
    if digits.len() != 64 {
        return Err(WANTED.to_owned());
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        *byte = pair
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
            .ok_or_else(|| WANTED.to_owned())?;
    }
    if digest == OF_NOTHING {
        return Err("is that of an empty text; hash the key itself".to_owned());
    }
    Ok(digest)
}

/// A moment in Unix seconds: TOML's own form, or the same as a text. Without an offset it is in UTC.
fn parse_moment(value: &DeValue<'_>) -> Result<u64, String> {
    const WANTED: &str = "must be a date such as 2027-01-31, or a moment such as 2027-01-31T12:00:00Z";
    let written = match value {
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::String(text) => text.trim().to_owned(),
        other => return Err(format!("{WANTED}, not {}", kind(other))),
    };
    let candidates = [
        written.clone(),
        format!("{written}Z"),
        format!("{written}T00:00:00Z"),
        format!("{written}:00Z"),
    ];
    let parsed = candidates
        .iter()
        .find_map(|text| OffsetDateTime::parse(&text.replacen(' ', "T", 1), &Rfc3339).ok());
    let moment = parsed.ok_or_else(|| WANTED.to_owned())?;
    u64::try_from(moment.unix_timestamp()).map_err(|_| WANTED.to_owned())
}
