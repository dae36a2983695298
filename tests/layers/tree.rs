//! The source files of the crate, found by following `mod` declarations from `src/lib.rs`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use syn::{Attribute, Item};

/// A source file, parsed.
pub struct SourceFile {
    /// The path from the root of the package, with forward slashes.
    pub path: String,
    /// The path of the module that the file holds, without the crate.
    pub module: Vec<String>,
    pub text: String,
    pub syntax: syn::File,
    /// Whether the file is compiled for tests only.
    pub is_test: bool,
}

/// When a file is compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Build {
    Always,
    TestsOnly,
}

/// Every source file of the library.
pub struct Tree(Vec<SourceFile>);

impl Tree {
    /// Reads and parses all files.
    pub fn read() -> Self {
        let mut files = Vec::new();
        read_module(&root().join("src/lib.rs"), Vec::new(), Build::Always, &mut files);
        Self(files)
    }

    pub fn files(&self) -> impl Iterator<Item = &SourceFile> {
        self.0.iter()
    }

    /// Returns the file of `module`.
    pub fn file(&self, module: &[String]) -> Option<&SourceFile> {
        self.0.iter().find(|file| file.module == module)
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the text of the file at `path`, relative to the root of the package.
pub fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn read_module(path: &Path, module: Vec<String>, build: Build, files: &mut Vec<SourceFile>) {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for item in &syntax.items {
        let Item::Mod(declared) = item else { continue };
        if declared.content.is_some() {
            continue;
        }
        let name = declared.ident.to_string();
        let child: Vec<String> = module.iter().cloned().chain([name.clone()]).collect();
        let build = match is_for_tests(&declared.attrs) {
            true => Build::TestsOnly,
            false => build,
        };
        read_module(&file_of(path, &name), child, build, files);
    }
    let relative = path.strip_prefix(root()).expect("inside the package");
    files.push(SourceFile {
        path: relative.to_string_lossy().replace('\\', "/"),
        module,
        text,
        syntax,
        is_test: build == Build::TestsOnly,
    });
}

/// Returns the file of the module `name`, which is declared in the file `parent`.
fn file_of(parent: &Path, name: &str) -> PathBuf {
    let stem = parent.file_stem().and_then(|stem| stem.to_str()).expect("a name");
    let folder = parent.parent().expect("a folder");
    let folder = match stem {
        "lib" | "mod" => folder.to_owned(),
        stem => folder.join(stem),
    };
    let flat = folder.join(format!("{name}.rs"));
    if flat.exists() {
        flat
    } else {
        folder.join(name).join("mod.rs")
    }
}

/// Returns whether an item with these attributes is compiled for tests only.
pub fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let is_cfg = attribute.path().is_ident("cfg");
        attribute.path().is_ident("test")
            || is_cfg
                && attribute
                    .parse_args::<syn::Path>()
                    .is_ok_and(|condition| condition.is_ident("test"))
    })
}
