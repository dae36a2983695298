//! Checks that the JSON Schema and the reader agree.

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use serde_json::Value as Json;

use super::{
    super::{
        fields::{KEYS_FILE_TABLES, TABLES},
        json_schema,
        schema::{ConfigTable, Presence, to_json},
    },
    example::example_with_options,
    *,
};

/// An independent JSON Schema validator.
struct Validator {
    schemas: Schemas,
    ours: SchemaIndex,
}

impl Validator {
    /// The first errors of `document`; `None` if it is valid.
    fn errors(&self, document: &Json) -> Option<String> {
        let result = self.schemas.validate(document, self.ours);
        result.err().map(|error| error.to_string())
    }

    fn is_valid(&self, document: &Json) -> bool {
        self.errors(document).is_none()
    }
}

/// Compiles the schema, which also checks it against the meta-schema.
fn validator() -> Validator {
    const LOCATION: &str = "steadfast.schema.json";
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V7);
    let schema = serde_json::from_str(&json_schema()).expect("the schema is JSON");
    compiler
        .add_resource(LOCATION, schema)
        .expect("the schema is added once");
    let ours = compiler.compile(LOCATION, &mut schemas).expect("the schema is valid");
    Validator { schemas, ours }
}

fn document(text: &str) -> Json {
    to_json(&toml::Value::Table(text.parse().expect(text)))
}

/// A valid file in which the table with this header has `lines` beside its required fields, without those called `name`.
fn file_with(table: &ConfigTable, name: &str, lines: &str) -> String {
    let required: String = table
        .fields
        .iter()
        .filter_map(|field| match field.presence() {
            Presence::Required(value, _) if field.name() != name => Some(format!("{} = {value}\n", field.name())),
            _ => None,
        })
        .collect();
    match table.header {
        header if header.starts_with('[') => format!("{header}\n{required}{lines}\n"),
        _ => format!("{lines}\n"),
    }
}

#[test]
fn the_example_is_valid_with_and_without_its_options() {
    let validator = validator();
    for text in [EXAMPLE.to_owned(), example_with_options()] {
        assert_eq!(validator.errors(&document(&text)), None, "{text}");
    }
}

/// Each field is given a value of every type. If the schema refuses a type, the reader must refuse it with an error at
/// that value. This also shows that each declared field is read. If the reader accepts a type, the schema must accept
/// it too.
#[test]
fn reader_and_schema_refuse_the_same_types() {
    let validator = validator();
    let values = ["\"\\u0000\"", "-1", "-1.5", "true", "[[]]", "{ x = [] }", "07:32:00"];
    for table in TABLES {
        for field in table.fields {
            let mut refused = 0;
            for value in values {
                let text = file_with(table, field.name(), &format!("{} = {value}", field.name()));
                let is_valid = validator.is_valid(&document(&text));
                let report = read(&text).err().map(|errors| errors.to_string()).unwrap_or_default();
                let line = text.lines().count() - usize::from(text.ends_with("\n\n"));
                let place = format!("f.toml:{line}:");
                let is_accepted = !report.lines().any(|error| error.starts_with(&place));
                assert!(is_valid || !is_accepted, "the schema refuses what is read: {text}");
                refused += usize::from(!is_valid);
            }
            assert!(refused >= 5, "{} {}: {refused}", table.header, field.name());
        }
    }
}

#[test]
fn reader_and_schema_refuse_unknown_fields_in_every_table() {
    let validator = validator();
    for table in TABLES {
        let text = file_with(table, "", "nonsense = 1");
        assert!(!validator.is_valid(&document(&text)), "{text}");
        let expected = format!("unknown field \"nonsense\" {}", table.location());
        let report = report(&text);
        assert!(report.contains(&expected), "{report}");
        assert!(validator.is_valid(&document(&file_with(table, "", ""))), "{text}");
    }
}

#[test]
fn reader_and_schema_refuse_missing_fields() {
    let validator = validator();
    for table in TABLES {
        for field in table.fields {
            let Presence::Required(_, remedy) = field.presence() else {
                continue;
            };
            let text = file_with(table, field.name(), "");
            assert!(!validator.is_valid(&document(&text)), "{text}");
            let report = report(&text);
            let expected = format!("{} has no {}; {remedy}", table.header, field.name());
            assert!(report.contains(&expected), "{report}");
        }
    }
}

/// A group with a key that expires at `moment`.
fn with_expiry(moment: &str) -> String {
    let digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    format!(
        "[[group]]\nname = \"g\"\n[[key]]\nname = \"k\"\ngroup = \"g\"\nsha256 = \"{digest}\"\nexpires = \"{moment}\"\n"
    )
}

/// Values, and whether the reader and the schema accept them.
#[test]
fn reader_and_schema_agree_on_values() {
    let validator = validator();
    for (text, is_accepted) in [
        ("server.grace = \"1h30m\"", true),
        ("server.grace = \"0s\"", true),
        ("server.grace = \"5\"", false),
        ("server.grace = \"\"", false),
        ("server.grace = \"30m1h\"", false),
        ("server.max_body = \"64 MiB\"", true),
        ("server.max_body = \"64KB\"", true),
        ("server.max_body = 65536", true),
        ("server.max_body = \"64mib\"", false),
        ("server.max_body = 1", false),
        ("server.listen = [\"127.0.0.1:1\", \"unix:/run/s\"]", true),
        ("server.listen = \"8080\"", false),
        ("server.listen = []", false),
        ("admin.listen = []", true),
        ("affinity.sources = [\"owner\", \"header:x-thread\"]", true),
        ("affinity.sources = [\"cookie\"]", false),
        ("affinity.sources = []", false),
        ("retry.attempts = 10", true),
        ("retry.attempts = 11", false),
        ("retry.budget = 1", true),
        ("retry.budget = 1.01", false),
        ("timeouts.idle = 5", false),
        (&with_expiry(" 2031-01-31 "), true),
        (&with_expiry("2031-01-31\\n"), true),
        (&with_expiry("2031-01-31x"), false),
    ] {
        assert_eq!(read(&format!("{text}\n{UPSTREAM}")).is_ok(), is_accepted, "{text}");
        assert_eq!(validator.is_valid(&document(text)), is_accepted, "{text}");
    }
    for (line, is_accepted) in [
        ("models = [\"gpt-5*\"]", true),
        ("models = { \"gpt-5\" = \"deployment\" }", true),
        ("models = { \"gpt-*\" = \"deployment\" }", false),
        ("models = {}", false),
        ("models = [\"\"]", false),
        ("headers = { x = \"1\" }", true),
        ("headers = { x = 1 }", false),
        ("organization = \"my org\"", false),
        ("weight = 0", false),
        ("weight = 1_000_000", true),
        ("http2 = \"yes\"", false),
    ] {
        let text = format!("{UPSTREAM}{line}");
        assert_eq!(read(&text).is_ok(), is_accepted, "{line}");
        assert_eq!(validator.is_valid(&document(&text)), is_accepted, "{line}");
    }
}

#[test]
fn the_tables_of_a_keys_file_are_declared_as_those_of_the_main_file() {
    let headers: Vec<_> = KEYS_FILE_TABLES.iter().map(|table| table.header).collect();
    assert_eq!(headers, ["[[key]]", "the top level of a file of keys"]);
}
