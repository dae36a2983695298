//! The descriptors of fields and tables: what a declaration in [`super::fields`] consists of.

use serde_json::{Value as Json, json};

use super::kinds::ValueKind;

/// A field of the configuration file.
pub(super) struct ConfigField<K> {
    /// Its name in the file.
    pub(super) name: &'static str,
    /// What its value may be.
    pub(super) kind: K,
    /// Whether it must be there, and what it is otherwise.
    pub(super) presence: Presence,
    /// What it means, in lines as they come from a doc comment.
    pub(super) doc: &'static [&'static str],
}

/// Whether a field must be in its table. Values are written as in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It may be left out, and has this value then.
    Default(&'static str),
    /// It may be left out, and no single value stands for that; here is an example.
    Optional(&'static str),
    /// It must be there: an example, and what a user has to do about a missing field.
    Required(&'static str, &'static str),
    /// It is a table or an array of tables, which may be left out.
    Table,
}

/// A field of any kind.
pub(super) trait AnyField: Sync {
    /// Its name in the file.
    fn name(&self) -> &'static str;
    /// Whether it must be there, and what it is otherwise.
    fn presence(&self) -> Presence;
    /// What it means, and its range.
    fn doc(&self) -> String;
    /// The JSON Schema of its value, without annotations.
    fn schema(&self) -> Json;
}

impl<K: ValueKind> AnyField for ConfigField<K> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn presence(&self) -> Presence {
        self.presence
    }

    fn doc(&self) -> String {
        let doc = joined(self.doc);
        match self.kind.range() {
            Some([least, most]) => format!("{doc} Range: {least} to {most}."),
            None => doc,
        }
    }

    fn schema(&self) -> Json {
        self.kind.schema()
    }
}

/// A table of the configuration file.
pub(super) struct ConfigTable {
    /// How a user writes its header, such as `[server]`; for a whole file, a name of its top level.
    pub(super) header: &'static str,
    /// What it means, in lines as they come from a doc comment.
    pub(super) doc: &'static [&'static str],
    /// Its fields, in the order of the example file.
    pub(super) fields: &'static [&'static dyn AnyField],
}

impl ConfigTable {
    /// Whether it has a field called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name() == name)
    }

    /// The names of its fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name())
    }

    /// What it means, in one line.
    pub(super) fn doc(&self) -> String {
        joined(self.doc)
    }

    /// Where its fields are, as the end of a phrase: "in \[server\]".
    pub(super) fn location(&self) -> String {
        let preposition = if self.header.starts_with('[') { "in" } else { "at" };
        format!("{preposition} {}", self.header)
    }

    /// The JSON Schema of the table, with the description of each field and without fields that are not declared.
    pub(super) fn schema(&self) -> Json {
        let mut required = Vec::new();
        let mut properties = serde_json::Map::new();
        for field in self.fields {
            let mut schema = field.schema();
            schema["description"] = field.doc().into();
            match field.presence() {
                Presence::Default(value) => schema["default"] = from_toml(value),
                Presence::Optional(example) => schema["examples"] = json!([from_toml(example)]),
                Presence::Required(example, _) => {
                    required.push(field.name());
                    schema["examples"] = json!([from_toml(example)]);
                }
                Presence::Table => {}
            }
            properties.insert(field.name().to_owned(), schema);
        }
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema
    }
}

/// The kind of a field that is a table.
pub(super) struct NestedTable(pub(super) &'static ConfigTable);

impl ValueKind for NestedTable {
    fn schema(&self) -> Json {
        self.0.schema()
    }
}

/// The kind of a field that is an array of tables.
pub(super) struct TableArray(pub(super) &'static ConfigTable);

impl ValueKind for TableArray {
    fn schema(&self) -> Json {
        json!({"type": "array", "items": self.0.schema()})
    }
}

/// The JSON Schema (draft-07) of the configuration file, which `root` describes.
///
/// It is in draft-07, which every version of the TOML language server Taplo reads; older ones read no later draft
/// (<https://github.com/tamasfe/taplo/issues/497>).
pub(super) fn json_schema(root: &ConfigTable) -> Json {
    let mut schema = root.schema();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "Steadfast configuration".into();
    schema["description"] = root.doc().into();
    schema
}

/// The lines of a doc comment as one line.
fn joined(lines: &[&str]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.trim()).collect();
    lines.join(" ")
}

/// A declared value as JSON. Dates become strings, as validators of TOML present them.
fn from_toml(value: &str) -> Json {
    let document: toml::Table = format!("value = {value}")
        .parse()
        .expect("a declared value is valid TOML");
    to_json(&document["value"])
}

/// A TOML value as JSON.
pub(super) fn to_json(value: &toml::Value) -> Json {
    match value {
        toml::Value::String(text) => json!(text),
        toml::Value::Integer(number) => json!(number),
        toml::Value::Float(number) => json!(number),
        toml::Value::Boolean(value) => json!(value),
        toml::Value::Datetime(moment) => json!(moment.to_string()),
        toml::Value::Array(items) => items.iter().map(to_json).collect(),
        toml::Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), to_json(value))).collect(),
    }
}
