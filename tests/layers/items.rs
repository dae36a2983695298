//! Finds the items that a file defines: its types, and its functions with their sizes.

use syn::{FnArg, ImplItemFn, ItemFn, Signature, TraitItemFn, Type, spanned::Spanned as _, visit::Visit};

use crate::tree::SourceFile;

/// Returns the names of the types that `file` defines, including those of its tests. Associated types are not included.
pub fn type_names(file: &SourceFile) -> Vec<String> {
    #[derive(Default)]
    struct Names(Vec<String>);
    impl<'ast> Visit<'ast> for Names {
        fn visit_item(&mut self, item: &'ast syn::Item) {
            let name = match item {
                syn::Item::Struct(item) => Some(&item.ident),
                syn::Item::Enum(item) => Some(&item.ident),
                syn::Item::Union(item) => Some(&item.ident),
                syn::Item::Trait(item) => Some(&item.ident),
                syn::Item::Type(item) => Some(&item.ident),
                _ => None,
            };
            self.0.extend(name.map(ToString::to_string));
            syn::visit::visit_item(self, item);
        }
    }
    let mut names = Names::default();
    names.visit_file(&file.syntax);
    names.0
}

/// A function, with the properties that are limited.
pub struct Function {
    pub name: String,
    /// The number of lines from the signature to the closing brace.
    pub lines: usize,
    /// The number of parameters, not counting `self`.
    pub parameters: usize,
    /// Whether a parameter has the type `bool`.
    pub has_bool: bool,
    /// Whether a trait prescribes the signature.
    pub is_of_trait: bool,
}

/// Returns the functions of `file`, including those of its tests.
pub fn functions(file: &SourceFile) -> Vec<Function> {
    let mut functions = Functions::default();
    functions.visit_file(&file.syntax);
    functions.found
}

/// The owner of a function's signature.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Owner {
    #[default]
    File,
    /// The function implements a trait, which prescribes the signature.
    Trait,
}

#[derive(Default)]
struct Functions {
    found: Vec<Function>,
    owner: Owner,
}

impl Functions {
    fn add(&mut self, signature: &Signature, whole: proc_macro2::Span, owner: Owner) {
        let typed = signature.inputs.iter().filter_map(|input| match input {
            FnArg::Typed(typed) => Some(&*typed.ty),
            FnArg::Receiver(_) => None,
        });
        let is_bool = |kind: &Type| matches!(kind, Type::Path(path) if path.path.is_ident("bool"));
        self.found.push(Function {
            name: signature.ident.to_string(),
            lines: whole.end().line - signature.span().start().line + 1,
            parameters: typed.clone().count(),
            has_bool: typed.clone().any(is_bool),
            is_of_trait: owner == Owner::Trait,
        });
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let outer = std::mem::replace(
            &mut self.owner,
            match item.trait_ {
                Some(_) => Owner::Trait,
                None => Owner::File,
            },
        );
        syn::visit::visit_item_impl(self, item);
        self.owner = outer;
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.add(&item.sig, item.block.span(), self.owner);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.add(&item.sig, item.block.span(), Owner::File);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.add(&item.sig, item.span(), Owner::File);
        syn::visit::visit_trait_item_fn(self, item);
    }
}

/// Returns whether `file` defines an item called `name` at its top level.
pub fn defines(file: &SourceFile, name: &str) -> bool {
    file.syntax
        .items
        .iter()
        .any(|item| name_of(item).is_some_and(|ident| ident == name))
}

fn name_of(item: &syn::Item) -> Option<&syn::Ident> {
    use syn::Item as I;
    match item {
        I::Const(item) => Some(&item.ident),
        I::Enum(item) => Some(&item.ident),
        I::Fn(item) => Some(&item.sig.ident),
        I::Macro(item) => item.ident.as_ref(),
        I::Mod(item) => Some(&item.ident),
        I::Static(item) => Some(&item.ident),
        I::Struct(item) => Some(&item.ident),
        I::Trait(item) => Some(&item.ident),
        I::Type(item) => Some(&item.ident),
        I::Union(item) => Some(&item.ident),
        _ => None,
    }
}

/// Returns the attributes of `item`.
pub fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item as I;
    match item {
        I::Const(item) => &item.attrs,
        I::Enum(item) => &item.attrs,
        I::Fn(item) => &item.attrs,
        I::Impl(item) => &item.attrs,
        I::Macro(item) => &item.attrs,
        I::Mod(item) => &item.attrs,
        I::Static(item) => &item.attrs,
        I::Struct(item) => &item.attrs,
        I::Trait(item) => &item.attrs,
        I::Type(item) => &item.attrs,
        I::Union(item) => &item.attrs,
        I::Use(item) => &item.attrs,
        _ => &[],
    }
}
