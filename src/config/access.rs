//! `[[group]]`, `[[key]]`, and the additional files of client keys.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use toml::de::DeValue;

use super::{
    document::DocumentReader,
    errors::{Located, Location, ProblemList},
    fields::{KEYS_FILE_TABLES, group, key, keys_file, root, server},
    glob::ModelGlobs,
    kinds::Text,
    reader::Section,
    schema::ConfigField,
    secrets::{ResolveContext, quoted_path, read_named_file},
    upstream::{Upstream, parse_glob, parse_name},
    values::{CREDENTIAL, kind, quoted},
};

/// The maximum size of a file of keys in bytes: enough for some hundred thousand keys.
const MAX_KEYS_FILE: u64 = 64 << 20;
/// The SHA-256 of the empty text, which is the result of hashing an unset variable.
const EMPTY_DIGEST: [u8; 32] = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41,
    0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// `[[group]]`: callers that share sessions, response state and rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name, unique among groups.
    pub name: String,
    /// The names of the upstreams that the group may use: at least one, and only names of configured upstreams; `None`
    /// means all.
    pub upstreams: Option<Vec<String>>,
    /// The models that the group may use.
    pub models: ModelGlobs,
    /// The maximum number of requests per minute and key, at least 1; `None` means no limit.
    pub requests_per_minute: Option<u32>,
    /// The maximum number of tokens per minute and key, at least 1; `None` means no limit.
    pub tokens_per_minute: Option<u64>,
    /// The maximum number of concurrent requests per key, at least 1; `None` means no limit.
    pub max_concurrent: Option<u32>,
}

/// `[[key]]`: a client key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientKey {
    /// The name, unique among keys. Limits and logs use it.
    pub name: String,
    /// The SHA-256 of the key, or, during a rotation, the SHA-256 of the old and of the new key. No two keys share a
    /// digest.
    pub digests: Vec<[u8; 32]>,
    /// The name of the key's group, which is configured.
    pub group: String,
    /// The Unix time in seconds from which the key is refused; `None` means that it never expires.
    pub expires: Option<u64>,
    /// Whether the key is refused.
    pub disabled: bool,
}

/// The groups and keys that have been read so far.
#[derive(Default)]
pub(super) struct AccessDraft {
    groups: Vec<GroupDraft>,
    keys: Vec<Located<ClientKey>>,
    /// Whether a key, or a file or folder of keys, is configured.
    pub has_client_keys: bool,
    keys_file: Option<Located<PathBuf>>,
    keys_directory: Option<Located<PathBuf>>,
}

struct GroupDraft {
    location: Location,
    group: Group,
    upstreams: Vec<Located<String>>,
}

impl AccessDraft {
    /// Reads the paths of the additional files of keys.
    pub fn read_paths(&mut self, reader: &mut DocumentReader<'_>, server: &Section<'_>, context: ResolveContext<'_>) {
        let mut path = |field: &ConfigField<Text>| {
            let value = server.get(field)?;
            self.has_client_keys = true;
            let path = reader.read_text(server, field, |text| match text {
                "" => Err("must be a path".to_owned()),
                path => Ok(context.folder.join(path)),
            })?;
            Some((reader.location_of(value), path))
        };
        self.keys_file = path(&server::KEYS_FILE);
        self.keys_directory = path(&server::KEYS_DIRECTORY);
    }

    /// Reads the groups and keys of the main file.
    pub fn read(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>) {
        for section in reader.sections(root, &root::GROUP) {
            self.groups.extend(read_group(reader, &section));
        }
        self.has_client_keys |= root.get(&root::KEY).is_some();
        for section in reader.sections(root, &root::KEY) {
            self.keys.extend(read_key(reader, &section));
        }
    }

    /// Reads the additional files of keys. Their problems are added to `problems`, which is returned.
    pub fn read_further_files(&mut self, mut problems: ProblemList) -> ProblemList {
        let mut files: Vec<Located<PathBuf>> = self.keys_file.clone().into_iter().collect();
        if let Some((location, folder)) = &self.keys_directory {
            match key_files(folder) {
                Ok(found) => files.extend(found.into_iter().map(|file| (location.clone(), file))),
                Err(problem) => problems.error(
                    location.clone(),
                    format!(
                        "keys_directory needs the folder {}, which {problem}",
                        quoted_path(folder)
                    ),
                ),
            }
        }
        for (location, file) in files {
            let content = read_named_file(&file, MAX_KEYS_FILE)
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned()));
            match content {
                Ok(content) => {
                    let origin = Arc::from(file.display().to_string());
                    let (mut reader, tree) = DocumentReader::parse(&content, origin, KEYS_FILE_TABLES, problems);
                    let root = reader.root(&keys_file::TABLE, &tree);
                    for section in reader.sections(&root, &keys_file::KEY) {
                        self.keys.extend(read_key(&mut reader, &section));
                    }
                    problems = reader.problems;
                }
                Err(problem) => problems.error(
                    location,
                    format!("needs the file {}, which {problem}", quoted_path(&file)),
                ),
            }
        }
        problems
    }

    /// The paths of the additional file and folder of keys.
    pub fn paths(&self) -> Vec<PathBuf> {
        let paths = self.keys_file.iter().chain(&self.keys_directory);
        paths.map(|(_, path)| path.clone()).collect()
    }

    /// Checks groups and keys together, and returns them. `names` are those of `upstreams` and of invalid ones.
    pub fn finish(
        self,
        upstreams: &[Upstream],
        names: &[Located<String>],
        problems: &mut ProblemList,
    ) -> (Vec<Group>, Vec<ClientKey>) {
        self.check_groups(names, problems);
        self.check_keys(problems);
        let passthrough = upstreams.iter().find(|upstream| upstream.is_passthrough());
        if let (true, Some(upstream)) = (self.has_client_keys, passthrough) {
            let located = names.iter().find(|(_, name)| *name == upstream.name);
            let (location, _) = located.expect("the name of every upstream that was read has a location");
            let message = "api_key may not be \"passthrough\" together with client keys: callers send their client key, which no upstream may receive; use the account's own key";
            problems.error(location.clone(), message);
        }
        (
            self.groups.into_iter().map(|draft| draft.group).collect(),
            self.keys.into_iter().map(|(_, key)| key).collect(),
        )
    }

    fn check_groups(&self, upstreams: &[Located<String>], problems: &mut ProblemList) {
        let known: HashSet<&str> = upstreams.iter().map(|(_, name)| name.as_str()).collect();
        let used: HashSet<&str> = self.keys.iter().map(|(_, key)| key.group.as_str()).collect();
        let mut seen = HashSet::new();
        for GroupDraft {
            location,
            group,
            upstreams,
        } in &self.groups
        {
            let name = &group.name;
            if !seen.insert(name) {
                problems.error(
                    location.clone(),
                    format!("the group name \"{name}\" is taken; names must be unique"),
                );
            } else if !used.contains(name.as_str()) {
                problems.warn(
                    location.clone(),
                    format!("the group \"{name}\" has no key; make one with: steadfast key --group {name}"),
                );
            }
            for (location, upstream) in upstreams {
                if !known.contains(upstream.as_str()) {
                    problems.error(
                        location.clone(),
                        format!("there is no upstream {}; name one that is configured", quoted(upstream)),
                    );
                }
            }
        }
    }

    fn check_keys(&self, problems: &mut ProblemList) {
        let groups: HashSet<&str> = self.groups.iter().map(|draft| draft.group.name.as_str()).collect();
        // A system clock before 1970 counts as 1970.
        let now = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
        let mut names = HashMap::new();
        let mut digests = HashMap::new();
        for (location, key) in &self.keys {
            if let Some(other) = names.insert(key.name.as_str(), location) {
                let message = format!(
                    "the key name \"{}\" is taken at {other}; names must be unique",
                    key.name
                );
                problems.error(location.clone(), message);
            }
            for digest in &key.digests {
                if let Some(other) = digests.insert(digest, location) {
                    problems.error(
                        location.clone(),
                        format!("sha256 is already used by the key at {other}; make a separate key for each"),
                    );
                }
            }
            if !groups.contains(key.group.as_str()) {
                problems.error(
                    location.clone(),
                    format!("there is no group {}; add [[group]] with this name", quoted(&key.group)),
                );
            }
            if key.expires.is_some_and(|expires| expires <= now) {
                problems.warn(location.clone(), format!("the key \"{}\" has expired", key.name));
            }
        }
    }
}

/// The files of keys in `folder`, in the order of their names. Hidden files are left out, because editors and
/// Kubernetes create them for their own use.
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

fn read_group(reader: &mut DocumentReader<'_>, section: &Section<'_>) -> Option<GroupDraft> {
    let name = reader.read_text(section, &group::NAME, parse_name);
    let upstreams = reader.list(section, &group::UPSTREAMS, |name| Ok(name.to_owned()));
    if let (Some([]), Some(value)) = (upstreams.as_deref(), section.get(&group::UPSTREAMS)) {
        reader.error(
            value,
            "upstreams must name at least one upstream; remove the field for all upstreams",
        );
    }
    let models = reader.list(section, &group::MODELS, parse_glob);
    if let (Some([]), Some(value)) = (models.as_deref(), section.get(&group::MODELS)) {
        reader.error(
            value,
            "models must contain at least one glob; remove the field for all models",
        );
    }
    let requests_per_minute = reader.read(section, &group::REQUESTS_PER_MINUTE);
    let tokens_per_minute = reader.read(section, &group::TOKENS_PER_MINUTE);
    let max_concurrent = reader.read(section, &group::MAX_CONCURRENT);
    let location = reader.location_of(section.get(&group::NAME)?);
    let names = |located: &Vec<Located<String>>| located.iter().map(|(_, name)| name.clone()).collect();
    Some(GroupDraft {
        location,
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

fn read_key(reader: &mut DocumentReader<'_>, section: &Section<'_>) -> Option<Located<ClientKey>> {
    let name = reader.read_text(section, &key::NAME, |text| {
        if text.starts_with(CREDENTIAL) {
            // If the key were its own name, every line of the log would contain it.
            Err("must be a name, not the key itself".to_owned())
        } else {
            parse_name(text)
        }
    });
    let digests = reader.one_or_more(section, &key::SHA256, parse_digest);
    if let (Some([]), Some(value)) = (digests.as_deref(), section.get(&key::SHA256)) {
        reader.error(value, "sha256 must contain at least one digest");
    }
    let group = reader.read_text(section, &key::GROUP, |name| Ok(name.to_owned()));
    let expires = reader.read_with(section, &key::EXPIRES, parse_moment);
    let disabled = reader.read(section, &key::DISABLED);
    // A key with an invalid `expires` or `disabled` is dropped. Without the field, it would be valid when its operator
    // wants it refused.
    let is_valid = (expires.is_some() || section.get(&key::EXPIRES).is_none())
        && (disabled.is_some() || section.get(&key::DISABLED).is_none());
    let location = section.get(&key::NAME).map(|value| reader.location_of(value))?;
    let key = ClientKey {
        name: name?,
        digests: digests?.into_iter().map(|(_, digest)| digest).collect(),
        group: group?,
        expires,
        disabled: disabled.unwrap_or(false),
    };
    is_valid.then_some((location, key))
}

/// Reads a SHA-256 in hexadecimal. The error does not repeat the text, because some users write the key itself there.
fn parse_digest(value: &DeValue<'_>) -> Result<[u8; 32], String> {
    const WANTED: &str = "must be the SHA-256 of a key as 64 hexadecimal digits, as \"steadfast key\" prints it; for an existing key: printf %s \"$KEY\" | sha256sum";
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
    if digest == EMPTY_DIGEST {
        return Err("is the SHA-256 of an empty text; hash the key itself".to_owned());
    }
    Ok(digest)
}

/// Reads a date or a date with a time, as a TOML value or as a string, into Unix time in seconds. A value without an
/// offset is in UTC.
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
