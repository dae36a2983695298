//! Finds the files that a file uses. Each path in the file is resolved, through re-exports, to the file that defines
//! its item.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::{Item, UseTree, Visibility, visit::Visit};

use crate::tree::{SourceFile, Tree, is_for_tests};

/// Whether code that is compiled for tests only is included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tests {
    Included,
    Excluded,
}

/// The files that each file uses.
pub struct Imports<'a> {
    tree: &'a Tree,
    used: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Imports<'a> {
    /// Resolves the paths in every file.
    pub fn resolve(tree: &'a Tree, tests: Tests) -> Self {
        let names: BTreeMap<&[String], Names> = tree.files().map(|file| (&*file.module, Names::of(file))).collect();
        let resolver = Resolver { tree, names };
        let counted = tree.files().filter(|file| tests == Tests::Included || !file.is_test);
        let used = counted.map(|file| {
            let paths = paths(file, tests);
            let found = paths.iter().filter_map(|path| resolver.file_of(&file.module, path, 0));
            let others = found.filter(|other| other.path != file.path && (tests == Tests::Included || !other.is_test));
            (file.path.as_str(), others.map(|other| other.path.as_str()).collect())
        });
        Self {
            tree,
            used: used.collect(),
        }
    }

    /// Returns the files that define the items that `file` uses.
    pub fn of(&self, file: &SourceFile) -> Vec<&'a SourceFile> {
        let used = self.used.get(file.path.as_str());
        self.tree
            .files()
            .filter(|other| used.is_some_and(|used| used.contains(other.path.as_str())))
            .collect()
    }
}

/// Returns the paths of other crates that `file` uses outside its tests.
pub fn external_paths(file: &SourceFile) -> BTreeSet<String> {
    if file.is_test {
        return BTreeSet::new();
    }
    let own = ["crate", "super", "self", "Self"];
    let paths = paths(file, Tests::Excluded).into_iter();
    paths
        .filter(|path| !own.contains(&path[0].as_str()))
        .map(|path| path.join("::"))
        .collect()
}

/// The names that the imports of a module define.
struct Names {
    /// The imported or re-exported path of each name.
    imported: BTreeMap<String, Vec<String>>,
    /// The paths from which all names are imported (`use path::*`).
    globs: Vec<Vec<String>>,
}

impl Names {
    fn of(file: &SourceFile) -> Self {
        let mut names = Self {
            imported: BTreeMap::new(),
            globs: Vec::new(),
        };
        for item in &file.syntax.items {
            if let Item::Use(item) = item {
                names.add(&item.tree, &mut Vec::new());
            }
        }
        names
    }

    fn add(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add(tree, prefix)),
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
            UseTree::Name(name) if name.ident == "self" => {
                let last = prefix.last().expect("a path before self").clone();
                self.imported.insert(last, prefix.clone());
            }
            UseTree::Name(name) => {
                let path = prefix.iter().cloned().chain([name.ident.to_string()]).collect();
                self.imported.insert(name.ident.to_string(), path);
            }
            UseTree::Rename(rename) => {
                let own = rename.ident != "self";
                let path = prefix
                    .iter()
                    .cloned()
                    .chain(own.then(|| rename.ident.to_string()))
                    .collect();
                self.imported.insert(rename.rename.to_string(), path);
            }
        }
    }
}

struct Resolver<'a> {
    tree: &'a Tree,
    names: BTreeMap<&'a [String], Names>,
}

impl<'a> Resolver<'a> {
    /// Returns the file that defines the item at `path`, which is used in `module`. Returns `None` if another crate
    /// defines it.
    fn file_of(&self, module: &[String], path: &[String], depth: usize) -> Option<&'a SourceFile> {
        // Imports that refer to each other in a cycle define no item.
        if depth > 16 {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut at: Vec<String> = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            name if self.is_child(module, name) => [module, &[name.to_owned()]].concat(),
            name => {
                let imported = self.names.get(module)?.imported.get(name)?;
                if imported == path {
                    return None;
                }
                return self.file_of(module, &[imported, rest].concat(), depth + 1);
            }
        };
        while let Some((name, further)) = rest.split_first() {
            if name == "super" {
                at.pop()?;
            } else if self.is_child(&at, name) {
                at.push(name.clone());
            } else {
                return self.item_of(&at, name, further, depth);
            }
            rest = further;
        }
        self.tree.file(&at)
    }

    /// Returns the file that defines the item `name` of the module `at`.
    fn item_of(&self, at: &[String], name: &str, further: &[String], depth: usize) -> Option<&'a SourceFile> {
        let names = self.names.get(at)?;
        if let Some(path) = names.imported.get(name) {
            return self.file_of(at, &[path, further].concat(), depth + 1);
        }
        let file = self.tree.file(at)?;
        if crate::items::defines(file, name) {
            return Some(file);
        }
        let mut globs = names.globs.iter();
        let found = globs
            .find_map(|glob| self.file_of(at, &[glob.as_slice(), &[name.to_owned()], further].concat(), depth + 1));
        found.or(Some(file))
    }

    fn is_child(&self, module: &[String], name: &str) -> bool {
        self.tree.file(&[module, &[name.to_owned()]].concat()).is_some()
    }
}

/// Returns the paths that `file` uses, in imports and in code. Re-exports are not included.
fn paths(file: &SourceFile, tests: Tests) -> Vec<Vec<String>> {
    let mut collector = Collector {
        tests,
        inline: 0,
        found: Vec::new(),
    };
    collector.visit_file(&file.syntax);
    collector.found
}

struct Collector {
    tests: Tests,
    /// The number of enclosing inline modules. In each of them, `super` reaches one level less than in the file.
    inline: usize,
    found: Vec<Vec<String>>,
}

impl Collector {
    /// Adds a path. In an inline module, `super` is the file itself.
    fn add(&mut self, mut path: Vec<String>) {
        let mut inline = self.inline;
        while inline > 0 && path.first().is_some_and(|first| first == "super") {
            path.remove(0);
            inline -= 1;
        }
        let is_absolute = path.first().is_some_and(|first| first == "super" || first == "crate");
        if self.inline > inline && inline == 0 && !is_absolute {
            path.insert(0, "self".to_owned());
        }
        self.found.push(path);
    }

    fn add_tree(&mut self, tree: &UseTree, prefix: &mut Vec<String>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(tree, prefix)),
            UseTree::Name(name) if name.ident == "self" => self.add(prefix.clone()),
            UseTree::Name(name) => self.add(prefix.iter().cloned().chain([name.ident.to_string()]).collect()),
            UseTree::Rename(rename) if rename.ident == "self" => self.add(prefix.clone()),
            UseTree::Rename(rename) => self.add(prefix.iter().cloned().chain([rename.ident.to_string()]).collect()),
            UseTree::Glob(_) => self.add(prefix.clone()),
        }
    }

    /// Adds the paths inside a macro call. Its tokens are not parsed, so each sequence `name::name` is taken for a
    /// path.
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if colons == 2 || path.is_empty() => {
                    path.push(name.to_string());
                    colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() && colons < 2 => {
                    colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.add_tokens(group.stream()),
                TokenTree::Ident(name) => {
                    self.flush(&mut path);
                    path.push(name.to_string());
                    colons = 0;
                    continue;
                }
                _ => {}
            }
            self.flush(&mut path);
            colons = 0;
        }
        self.flush(&mut path);
    }

    fn flush(&mut self, path: &mut Vec<String>) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.add(path);
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if self.tests == Tests::Excluded && is_for_tests(crate::items::attributes(item)) {
            return;
        }
        match item {
            Item::Use(item) if self.inline == 0 && !matches!(item.vis, Visibility::Inherited) => {}
            Item::Use(item) => self.add_tree(&item.tree, &mut Vec::new()),
            Item::Mod(module) if module.content.is_some() => {
                self.inline += 1;
                syn::visit::visit_item_mod(self, module);
                self.inline -= 1;
            }
            _ => syn::visit::visit_item(self, item),
        }
    }

    /// A visibility such as `pub(in crate::a)` names a module but does not use it.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.add_tokens(call.tokens.clone());
        syn::visit::visit_macro(self, call);
    }
}
