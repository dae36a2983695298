//! The descriptors of fields and tables, which the declarations in [`super::fields`] are made of.

use serde_json::{Value as Json, json};

use super::kinds::ValueKind;

/// A field of the configuration file.
pub(super) struct ConfigField<K> {
    /// The name of the field in the file.
    pub(super) name: &'static str,
    /// The kind of its values.
    pub(super) kind: K,
    /// Whether the field is required, and its default value if it is not.
    pub(super) presence: Presence,
    /// The meaning of the field: the lines of its doc comment.
    pub(super) doc: &'static [&'static str],
}

/// Whether a field is required in its table. The values in the variants are written as in TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// The field may be left out, and then has this value.
    Default(&'static str),
    /// The field may be left out, and no single value is its default. The variant contains an example.
    Optional(&'static str),
    /// The field is required. The variant contains an example, and what a user has to do if the field is missing.
    Required(&'static str, &'static str),
    /// The field is a table or an array of tables, which may be left out.
    Table,
}

/// A field of any kind.
pub(super) trait AnyField: Sync {
    /// The name of the field in the file.
    fn name(&self) -> &'static str;
    /// Whether the field is required, and its default value if it is not.
    fn presence(&self) -> Presence;
    /// The meaning of the field, and its range.
    fn doc(&self) -> String;
    /// The JSON Schema of the field's values, without annotations.
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
    /// The header of the table as a user writes it, such as `[server]`. For a whole file, a phrase for its top level.
    pub(super) header: &'static str,
    /// The meaning of the table: the lines of its doc comment.
    pub(super) doc: &'static [&'static str],
    /// The fields of the table, in the order of the example file.
    pub(super) fields: &'static [&'static dyn AnyField],
}

impl ConfigTable {
    /// Whether the table has a field called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|field| field.name() == name)
    }

    /// The names of the table's fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name())
    }

    /// The meaning of the table, in one line.
    pub(super) fn doc(&self) -> String {
        joined(self.doc)
    }

    /// The place of the table's fields, as the end of a phrase: "in \[server\]".
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

/// A declared value as JSON. A date becomes a string, as TOML validators pass it to the schema.
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
