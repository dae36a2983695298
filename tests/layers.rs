//! The house stands: every room uses only the floors below it, and rooms of one floor do not know each other.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// The floor of each room, as `src/lib.rs` documents it.
const FLOORS: [(&str, u8); 16] = [
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
    ("cache_padded", 0),
];

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every source file with the room that it stands in.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files
        .into_iter()
        .filter(|path| !path.ends_with("lib.rs"))
        .map(|path| {
            let inside = path.strip_prefix(&root).expect("inside src");
            let first = inside
                .components()
                .next()
                .expect("a name")
                .as_os_str()
                .to_string_lossy()
                .into_owned();
            let room = first.trim_end_matches(".rs").to_owned();
            let text = fs::read_to_string(&path).expect("readable");
            (room, path, text)
        })
        .collect()
}

/// The rooms that `text` names: the first segment of every path that begins with `crate::`, in braces too.
fn named_rooms(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => named.push(word(rest)),
            Some(list) => {
                let mut depth = 0;
                let mut expects = true;
                for (index, character) in list.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => expects = true,
                        character if expects && depth == 0 && character.is_alphabetic() => {
                            named.push(word(&list[index..]));
                            expects = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    named
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|character| character.is_alphanumeric() || *character == '_')
        .collect()
}

#[test]
fn paths_are_found_in_every_form() {
    let text = "use crate::ids::A;\nuse crate::{\n    config::{self, B},\n    wire,\n};\n// crate::app\nlet x = crate::scan::C;";
    assert_eq!(named_rooms(text), ["ids", "config", "wire", "scan"]);
}

#[test]
fn every_room_has_a_floor_and_uses_only_those_below() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::new();
    for (room, path, text) in rooms() {
        let Some(own) = floor(&room) else {
            wrong.push(format!("{}: the room '{room}' has no floor", path.display()));
            continue;
        };
        *seen.entry(room.clone()).or_insert(0) += 1;
        for used in named_rooms(&text) {
            if used == room {
                continue;
            }
            match floor(&used) {
                Some(other) if other < own => {}
                Some(other) => wrong.push(format!(
                    "{}: '{room}' (floor {own}) uses '{used}' (floor {other})",
                    path.display()
                )),
                None => wrong.push(format!("{}: '{room}' uses '{used}', which is no room", path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (room, _) in FLOORS {
        assert!(seen.contains_key(room), "'{room}' has no file: strike it from the plan");
    }
}

#[test]
fn pure_rooms_read_no_clock_and_open_no_socket() {
    for (room, path, text) in rooms() {
        if room != "policy" && room != "scan" {
            continue;
        }
        for banned in [
            "Instant::now",
            "SystemTime",
            "std::net",
            "tokio::",
            "tracing::",
            "std::fs",
            "println!",
        ] {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let is_test = path
                .components()
                .any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
            assert!(is_test || !code.contains(banned), "{} uses {banned}", path.display());
        }
    }
}

#[test]
fn the_plan_in_the_crate_documentation_names_every_room() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("readable");
    for (room, _) in FLOORS {
        assert!(
            lib.contains(&format!("`{room}`")),
            "src/lib.rs does not document '{room}'"
        );
    }
}
