//! Reads a document by the declarations of its tables: sections, values and lists.
//!
//! Reading never stops at a mistake. Each mistake is reported with its position, and the value counts as absent.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::DocumentReader,
    errors::Located,
    kinds::{ListOf, OneOrMore, ScalarKind, Text},
    schema::{AnyField, ConfigField, ConfigTable, NestedTable, Presence, TableArray},
    suggest::closest,
    values::{kind, quoted, text},
};

/// A table of the file with its declaration, or the lack of such a table.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    declared: &'static ConfigTable,
    /// The content; `None` if the file has no such table.
    table: Option<&'a DeTable<'a>>,
}

impl<'a> Section<'a> {
    /// Whether the file has this table.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// The value of `field`, if the file has one.
    pub(super) fn get(&self, field: &dyn AnyField) -> Option<&'a Spanned<DeValue<'a>>> {
        let name = field.name();
        debug_assert!(
            self.declared.has(name),
            "{name} is not a field of {}",
            self.declared.header
        );
        self.table?.get(name)
    }
}

impl DocumentReader<'_> {
    /// The document as a section. Reports its unknown fields.
    pub(super) fn root<'a>(&mut self, declared: &'static ConfigTable, tree: &'a DeTable<'a>) -> Section<'a> {
        self.open(declared, tree, 0)
    }

    /// The table `field` of `parent`. Reports its unknown and its missing fields. The section is empty if there is no such
    /// table.
    pub(super) fn section<'a>(&mut self, parent: &Section<'a>, field: &ConfigField<NestedTable>) -> Section<'a> {
        let NestedTable(declared) = field.kind;
        let empty = Section { declared, table: None };
        let Some(value) = parent.get(field) else { return empty };
        match value.get_ref() {
            DeValue::Table(table) => self.open(declared, table, value.span().start),
            other => {
                let message = format!(
                    "{} must be a table, not {}; write {}",
                    field.name,
                    kind(other),
                    declared.header
                );
                self.error(value, message);
                empty
            }
        }
    }

    /// The tables of the array `field`, in the order of the file. Reports their unknown and their missing fields.
    pub(super) fn sections<'a>(&mut self, parent: &Section<'a>, field: &ConfigField<TableArray>) -> Vec<Section<'a>> {
        let TableArray(declared) = field.kind;
        let Some(value) = parent.get(field) else {
            return Vec::new();
        };
        let wrong = |other| {
            format!(
                "{} must be an array of tables, not {}; write {}",
                field.name,
                kind(other),
                declared.header
            )
        };
        match value.get_ref() {
            DeValue::Array(items) => {
                let mut sections = Vec::with_capacity(items.len());
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => sections.push(self.open(declared, table, item.span().start)),
                        other => self.error(item, wrong(other)),
                    }
                }
                sections
            }
            single => {
                self.error(value, wrong(single));
                match single {
                    DeValue::Table(table) => vec![self.open(declared, table, value.span().start)],
                    _ => Vec::new(),
                }
            }
        }
    }

    fn open<'a>(&mut self, declared: &'static ConfigTable, table: &'a DeTable<'a>, offset: usize) -> Section<'a> {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !declared.has(name) {
                let hint = self.hint(declared, name);
                let message = format!("unknown field {} {}; {hint}", quoted(name), declared.location());
                self.error(key, message);
            }
        }
        for field in declared.fields {
            let name = field.name();
            if let Presence::Required(_, remedy) = field.presence()
                && table.get(name).is_none()
                && self.is_whole()
            {
                let message = format!("{} has no {name}; {remedy}", declared.header);
                self.problems.error(self.location(offset), message);
            }
        }
        Section {
            declared,
            table: Some(table),
        }
    }

    /// A hint at the field that the user probably meant by `name`, which is not declared in this table.
    fn hint(&self, declared: &ConfigTable, name: &str) -> String {
        let names: Vec<_> = declared.names().collect();
        if let Some(close) = closest(name, &names) {
            return format!("did you mean \"{close}\"?");
        }
        match self.tables.iter().find(|other| other.has(name)) {
            Some(other) => format!("it belongs {}", other.location()),
            None => format!("the known fields are {}", names.join(", ")),
        }
    }

    /// Reads the value of `field`. Returns `None` if there is no valid value; an invalid value is reported.
    pub(super) fn read<K: ScalarKind>(&mut self, section: &Section<'_>, field: &ConfigField<K>) -> Option<K::Value> {
        self.read_with(section, field, |value| field.kind.parse(value))
    }

    /// Reads the value of `field` and replaces `default` by it, if there is a valid value.
    pub(super) fn update<K: ScalarKind>(
        &mut self,
        section: &Section<'_>,
        field: &ConfigField<K>,
        default: &mut K::Value,
    ) {
        if let Some(value) = self.read(section, field) {
            *default = value;
        }
    }

    /// Reads the string `field` by `parse`, whose error is a predicate that follows the field's name.
    pub(super) fn read_text<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &ConfigField<Text>,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> Option<T> {
        self.read_with(section, field, |value| parse(text(value)?))
    }

    /// Reads the value of `field` by `parse`, whose error is a predicate that follows the field's name.
    pub(super) fn read_with<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &dyn AnyField,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(section, field)?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.error(value, format!("{} {problem}", field.name()));
                None
            }
        }
    }

    /// Reads the elements of an array of strings. Returns `None` if there is no such array.
    pub(super) fn list<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &ConfigField<ListOf>,
        parse: impl FnMut(&'a str) -> Result<T, String>,
    ) -> Option<Vec<Located<T>>> {
        self.strings(section, field, parse)
    }

    /// Reads a single string, or the elements of an array of strings. Returns `None` if there is neither.
    pub(super) fn one_or_more<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &ConfigField<OneOrMore>,
        mut parse: impl FnMut(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<Vec<Located<T>>> {
        let value = self.value(section, field)?;
        let items = match value.get_ref() {
            DeValue::Array(items) => items.as_ref(),
            _ => std::slice::from_ref(value),
        };
        Some(self.elements(items, field, &mut parse))
    }

    /// Reads the elements of an array of strings, even if `field` also accepts other values.
    pub(super) fn strings<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &dyn AnyField,
        mut parse: impl FnMut(&'a str) -> Result<T, String>,
    ) -> Option<Vec<Located<T>>> {
        let value = self.value(section, field)?;
        let DeValue::Array(items) = value.get_ref() else {
            let message = format!(
                "{} must be an array, not {}; write [ … ]",
                field.name(),
                kind(value.get_ref())
            );
            self.error(value, message);
            return None;
        };
        Some(self.elements(items, field, &mut |value| parse(text(value)?)))
    }

    fn elements<'a, T>(
        &mut self,
        items: &'a [Spanned<DeValue<'a>>],
        field: &dyn AnyField,
        parse: &mut dyn FnMut(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Vec<Located<T>> {
        let mut elements = Vec::with_capacity(items.len());
        for item in items {
            match parse(item.get_ref()) {
                Ok(parsed) => elements.push((self.location_of(item), parsed)),
                Err(problem) => self.error(item, format!("{} {problem}", field.name())),
            }
        }
        elements
    }

    /// The value of `field`, unless it is on a broken line.
    fn value<'a>(&self, section: &Section<'a>, field: &dyn AnyField) -> Option<&'a Spanned<DeValue<'a>>> {
        section.get(field).filter(|value| !self.is_broken(value.span().start))
    }
}
