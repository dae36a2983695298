//! Tests that check whether the source tree has the structure that `src/lib.rs` documents.
//!
//! - Each module uses only the layers below it, and modules on one layer do not use each other.
//! - The imports of files form no cycle, and neither do the imports of sibling modules.
//! - One type name stands for one type.
//! - Files, functions and signatures do not exceed their limits.
//!
//! An exception to a rule must be listed here with its reason.

#[path = "layers/cycles.rs"]
mod cycles;
#[path = "layers/imports.rs"]
mod imports;
#[path = "layers/items.rs"]
mod items;
#[path = "layers/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use imports::Imports;
use tree::Tree;

/// The layer of each module directly below the crate. It must agree with the documentation in `src/lib.rs`.
const LAYERS: [(&str, u8); 19] = [
    ("main", 6),
    ("app", 5),
    ("proxy", 4),
    ("ops", 4),
    ("state", 3),
    ("config", 2),
    ("scan", 1),
    ("policy", 1),
    ("wire", 1),
    ("sim", 1),
    ("ids", 0),
    ("tick", 0),
    ("secret", 0),
    ("fault", 0),
    ("endpoint", 0),
    ("browser", 0),
    ("body_path", 0),
    ("media", 0),
    ("cache_padded", 0),
];

/// The modules that take time as an argument and do no I/O.
const PURE: [&str; 2] = ["policy", "scan"];

/// Groups of files that may form an import cycle, each with the reason.
const ALLOWED_CYCLES: [(&[&str], &str); 0] = [];

/// Groups of sibling modules that may import each other, each with its parent module and the reason.
const ALLOWED_SIBLING_CYCLES: [(&str, &[&str], &str); 1] = [(
    "wire",
    &["body", "client", "http1", "server"],
    "request bodies are read from a client's connection and written to an upstream's, so these folders use each \
     other although their files do not",
)];

/// The type names that may stand for more than one type, each with the reason.
const SHARED_NAMES: [(&str, &str); 3] = [
    (
        "ClientKey",
        "one type holds the configured values, and one holds the values that requests use",
    ),
    (
        "Group",
        "one type holds the configured values, and one holds the values that requests use",
    ),
    (
        "Upstream",
        "one type holds the configured values, and one holds the values that requests use",
    ),
];

/// The maximum length of a file in lines.
const FILE_LINES: usize = 400;
/// The maximum length of a function in lines.
const FUNCTION_LINES: usize = 60;
/// The maximum number of parameters of a function, not counting `self`.
const PARAMETERS: usize = 5;

/// The files and functions that may exceed a limit, each with the reason.
const OVER_BOUND: [(&str, &str); 0] = [];

fn layer(module: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == module).map(|(_, layer)| *layer)
}

fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn each_module_uses_only_the_layers_below_it() {
    let tree = Tree::read();
    let imports = Imports::resolve(&tree, imports::Tests::Included);
    let mut wrong = Vec::new();
    for file in tree.files() {
        let Some(module) = file.module.first() else { continue };
        let Some(own) = layer(module) else {
            wrong.push(format!(
                "{}: the module '{module}' has no layer; add it to LAYERS",
                file.path
            ));
            continue;
        };
        for used in imports.of(file) {
            let Some(other) = used.module.first() else {
                wrong.push(format!("{}: '{module}' uses an item of the crate root", file.path));
                continue;
            };
            let is_below = layer(other).is_none_or(|layer| layer < own);
            if other != module && !is_below {
                wrong.push(format!(
                    "{}: '{module}' (layer {own}) uses '{other}': {}",
                    file.path, used.path
                ));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn each_layer_has_files_and_is_documented_in_the_crate() {
    let tree = Tree::read();
    let modules: BTreeSet<&str> = tree
        .files()
        .filter_map(|file| file.module.first())
        .map(String::as_str)
        .collect();
    let documentation = tree::text("src/lib.rs");
    for (module, layer) in LAYERS {
        assert!(
            module == "main" || modules.contains(module),
            "'{module}' has no file; remove it from LAYERS"
        );
        let row = documentation
            .lines()
            .find(|line| line.starts_with("//! |") && line.contains(&format!("`{module}`")));
        let row = row.unwrap_or_else(|| panic!("src/lib.rs does not document '{module}'"));
        let documented = row.split('|').nth(1).expect("a first column").trim();
        let expected = layer.min(5).to_string();
        assert_eq!(documented, expected, "src/lib.rs documents '{module}' on another layer");
    }
}

#[test]
fn pure_modules_read_no_clock_and_open_no_socket() {
    const FORBIDDEN: [&str; 7] = [
        "std::time::Instant",
        "std::time::SystemTime",
        "std::net",
        "std::fs",
        "std::thread",
        "tokio",
        "tracing",
    ];
    let tree = Tree::read();
    let mut wrong = Vec::new();
    for file in tree.files().filter(|file| {
        PURE.iter()
            .any(|pure| file.module.first().is_some_and(|first| first == pure))
    }) {
        for path in imports::external_paths(file) {
            if FORBIDDEN
                .iter()
                .any(|forbidden| path == *forbidden || path.starts_with(&format!("{forbidden}::")))
            {
                wrong.push(format!("{} uses {path}", file.path));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_imports_of_files_form_no_cycle() {
    let tree = Tree::read();
    let imports = Imports::resolve(&tree, imports::Tests::Excluded);
    let mut edges: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in tree.files() {
        let used = imports.of(file).into_iter().map(|used| used.path.as_str());
        edges.insert(&file.path, used.collect());
    }
    let mut wrong = Vec::new();
    let found = cycles::cycles(&edges);
    for cycle in &found {
        if !ALLOWED_CYCLES.iter().any(|(allowed, _)| cycle.as_slice() == *allowed) {
            wrong.push(format!(
                "these files import each other: {}",
                cycles::describe(cycle, &edges)
            ));
        }
    }
    for (allowed, _) in ALLOWED_CYCLES {
        if !found.iter().any(|cycle| cycle.as_slice() == allowed) {
            wrong.push(format!(
                "these files are no longer a cycle; remove them from ALLOWED_CYCLES: {}",
                allowed.join(", ")
            ));
        }
    }
    assert_none(&wrong);
}

#[test]
fn the_imports_of_sibling_modules_form_no_cycle() {
    let tree = Tree::read();
    let imports = Imports::resolve(&tree, imports::Tests::Excluded);
    let mut wrong = Vec::new();
    let parents: BTreeSet<&[String]> = tree
        .files()
        .filter_map(|file| file.module.split_last())
        .map(|(_, parent)| parent)
        .collect();
    for parent in parents {
        let child = |module: &'_ [String]| module.strip_prefix(parent).and_then(|rest| rest.first()).cloned();
        let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in tree.files() {
            let Some(from) = child(&file.module) else { continue };
            let entry = edges.entry(from.clone()).or_default();
            entry.extend(
                imports
                    .of(file)
                    .into_iter()
                    .filter_map(|used| child(&used.module))
                    .filter(|to| *to != from),
            );
        }
        let edges: BTreeMap<&str, BTreeSet<&str>> = edges
            .iter()
            .map(|(from, to)| (from.as_str(), to.iter().map(String::as_str).collect()))
            .collect();
        for cycle in cycles::cycles(&edges) {
            let is_allowed = |(of, allowed, _): &(&str, &[&str], &str)| *of == parent.join("::") && *allowed == cycle;
            if ALLOWED_SIBLING_CYCLES.iter().any(is_allowed) {
                continue;
            }
            wrong.push(format!(
                "modules of '{}' import each other: {}",
                parent.join("::"),
                cycles::describe(&cycle, &edges)
            ));
        }
    }
    assert_none(&wrong);
}

#[test]
fn one_type_name_stands_for_one_type() {
    let tree = Tree::read();
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in tree.files() {
        for name in items::type_names(file) {
            places.entry(name).or_default().push(file.path.clone());
        }
    }
    let mut wrong = Vec::new();
    for (name, places) in &places {
        let is_shared = SHARED_NAMES.iter().any(|(shared, _)| shared == name);
        match (places.len() > 1, is_shared) {
            (true, false) => wrong.push(format!("'{name}' stands for several types: {}", places.join(", "))),
            (false, true) => wrong.push(format!(
                "'{name}' stands for only one type; remove it from SHARED_NAMES"
            )),
            _ => {}
        }
    }
    assert_none(&wrong);
}

#[test]
fn files_functions_and_signatures_do_not_exceed_their_limits() {
    let tree = Tree::read();
    let mut over = Vec::new();
    for file in tree.files() {
        let lines = file.text.lines().count();
        if lines > FILE_LINES {
            over.push((file.path.clone(), format!("{lines} lines, more than {FILE_LINES}")));
        }
        for function in items::functions(file) {
            let place = format!("{}: {}", file.path, function.name);
            if function.lines > FUNCTION_LINES {
                over.push((
                    place.clone(),
                    format!("{} lines, more than {FUNCTION_LINES}", function.lines),
                ));
            }
            if function.parameters > PARAMETERS {
                over.push((
                    place.clone(),
                    format!("{} parameters, more than {PARAMETERS}", function.parameters),
                ));
            }
            if function.has_bool && !function.is_of_trait {
                over.push((
                    place,
                    "a bare `bool` parameter; use an enum with two variants".to_owned(),
                ));
            }
        }
    }
    let mut wrong: Vec<String> = over
        .iter()
        .filter(|(place, _)| !OVER_BOUND.iter().any(|(listed, _)| listed == place))
        .map(|(place, why)| format!("{place}: {why}"))
        .collect();
    for (listed, _) in OVER_BOUND {
        if !over.iter().any(|(place, _)| place == listed) {
            wrong.push(format!("{listed} does not exceed its limit; remove it from OVER_BOUND"));
        }
    }
    assert_none(&wrong);
}
