//! Checks that the example file and the JSON Schema file are those that the declarations make.

use std::path::Path;

use super::{
    super::{
        fields::{TABLES, root},
        json_schema,
        schema::{AnyField, ConfigTable, Presence},
    },
    *,
};

/// The beginning of the example file.
const HEAD: &str = "\
#:schema ./steadfast.schema.json

# All settings of Steadfast with their defaults. Only [[upstream]] is needed; leave out what you do not change.
# A line such as \"#name = value\" shows a setting that has no single default, or a table that is off by default.
#
# Check a file with: steadfast check -c steadfast.toml
# Durations: \"500ms\", \"5s\", \"1h30m\". Sizes: \"64MiB\" or a number of bytes. Secrets: \"env:NAME\" or \"file:PATH\".
# Paths are relative to the folder of this file.
#
# Editors that use Taplo complete and check this file by its first line. \"steadfast schema\" prints the schema.
";

/// A second upstream, because a single upstream needs no choice.
const SECOND_UPSTREAM: &str = r#"
[[upstream]]
name = "account-b"
base_url = "https://api.openai.com/v1"
api_key = "env:OPENAI_KEY_B"
"#;

/// The maximum length of a comment line in characters.
const WIDTH: usize = 110;

/// The example file.
fn example() -> String {
    let mut text = HEAD.to_owned();
    for table in TABLES.iter().filter(|table| table.header != root::TABLE.header) {
        text.push('\n');
        text.push_str(&table_example(table));
        if table.header == "[[upstream]]" {
            text.push_str(SECOND_UPSTREAM);
        }
    }
    text
}

fn table_example(table: &ConfigTable) -> String {
    // A table with required fields has an effect if it is written. The example needs only the upstream, so the other
    // tables are comments.
    let has_required = |field: &&dyn AnyField| matches!(field.presence(), Presence::Required(..));
    let is_active = table.header == "[[upstream]]" || !table.fields.iter().any(has_required);
    let active = if is_active { "" } else { "#" };
    let mut text = comment(&table.doc());
    text += &format!("{active}{}\n", table.header);
    for field in table.fields {
        let (mark, value) = match field.presence() {
            Presence::Default(value) | Presence::Required(value, _) => (active, value),
            Presence::Optional(value) => ("#", value),
            Presence::Table => continue,
        };
        text += &comment(&field.doc());
        for line in format!("{} = {value}", field.name()).lines() {
            text += &format!("{mark}{line}\n");
        }
    }
    text
}

/// `text` as lines of a comment.
fn comment(text: &str) -> String {
    let mut lines = String::new();
    let mut line = "#".to_owned();
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines += &format!("{line}\n");
            line = "#".to_owned();
        }
        line += &format!(" {word}");
    }
    lines + &line + "\n"
}

/// The example with everything that it shows in comments.
pub(super) fn example_with_options() -> String {
    let is_prose = |line: &str| line.starts_with("# ") || line.starts_with("#:") || line == "#";
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix('#') {
        Some(option) if !is_prose(line) => option,
        _ => line,
    });
    lines.map(|line| format!("{line}\n")).collect()
}

/// Checks that the file `name` in `deploy` holds `expected`; with UPDATE_EXPECT=1 in the environment, writes it.
fn check_file(name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert!(
        found == expected,
        "{name} is not what the declarations in src/config/fields.rs make; run: UPDATE_EXPECT=1 cargo test --lib config::"
    );
}

#[test]
fn the_example_file_is_made_from_the_declarations() {
    check_file("steadfast.example.toml", &example());
}

#[test]
fn the_schema_file_is_made_from_the_declarations() {
    check_file("steadfast.schema.json", &json_schema());
}

#[test]
fn the_example_shows_every_field_once_for_each_table() {
    let document: toml::Table = example_with_options().parse().unwrap();
    let mut tables = 0;
    for_each_table(&document, &root::TABLE, &mut |content, declared| {
        tables += 1;
        // The second upstream is short.
        if content.get("name").and_then(toml::Value::as_str) != Some("account-b") {
            let names: Vec<_> = declared.names().collect();
            let mut shown: Vec<_> = content.keys().map(String::as_str).collect();
            shown.sort_by_key(|name| names.iter().position(|declared| declared == name));
            assert_eq!(shown, names, "{}", declared.header);
        }
    });
    assert_eq!(tables, TABLES.len() + 1);
}

/// Calls `visit` with each table of `content`, which is declared as `declared`, and with its declaration.
fn for_each_table(
    content: &toml::Table,
    declared: &'static ConfigTable,
    visit: &mut dyn FnMut(&toml::Table, &'static ConfigTable),
) {
    visit(content, declared);
    for (name, value) in content {
        let header = [format!("[{name}]"), format!("[server.{name}]"), format!("[[{name}]]")];
        let field = declared.fields.iter().find(|field| field.name() == name).unwrap();
        if field.presence() != Presence::Table {
            continue;
        }
        let nested = TABLES
            .iter()
            .find(|table| header.contains(&table.header.to_owned()))
            .unwrap();
        match value {
            toml::Value::Table(table) => for_each_table(table, nested, visit),
            toml::Value::Array(tables) => {
                for table in tables {
                    for_each_table(table.as_table().unwrap(), nested, visit);
                }
            }
            other => panic!("{name} is {other:?}"),
        }
    }
}
