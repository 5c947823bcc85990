//! The layers of the crate: interfaces call contexts and never the database, and no layer uses one above it.

use std::{collections::BTreeSet, fs, path::Path};

use syn::{
    ExprMethodCall, ItemMod, ItemUse, Macro, UseTree,
    visit::{self, Visit},
};

/// What interfaces must not name: the database and the queries of contexts.
const BELOW_CONTEXTS: &[&str] = &[
    "crate::db::Store",
    "crate::db::Write",
    "crate::db::versions",
    "crate::accounts::queries",
    "crate::audit::queries",
    "crate::credentials::queries",
    "crate::edges::queries",
    "crate::keys::queries",
    "crate::revocation::queries",
    "sqlx",
];

/// What nothing below the interfaces may name.
const INTERFACES: &[&str] = &["crate::api", "crate::cli", "crate::server"];

/// For each folder, the modules and crates that it must not name.
const RULES: [(&str, &[&str]); 10] = [
    ("api", BELOW_CONTEXTS),
    ("cli", BELOW_CONTEXTS),
    ("accounts", INTERFACES),
    ("credentials", INTERFACES),
    ("revocation", INTERFACES),
    ("keys", INTERFACES),
    ("edges", INTERFACES),
    ("publishing", INTERFACES),
    (
        "db",
        &[
            "crate::service",
            "crate::accounts",
            "crate::publishing",
            "crate::api",
            "crate::cli",
            "crate::server",
        ],
    ),
    (
        "domain",
        &["crate::db", "crate::service", "crate::accounts", "crate::publishing", "crate::api", "crate::cli"],
    ),
];

#[test]
fn modules_respect_layering() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (room, forbidden) in RULES {
        let (mut read, mut names) = (0, 0);
        each_file(&source, &source.join(room), &mut |module, text| {
            read += 1;
            let named = named_paths(module, text);
            names += named.len();
            assert_eq!(violations(&named, forbidden), Vec::<&String>::new(), "in {}", module.join("::"));
        });
        assert!(read > 2 && names > 10 * read, "{room}: {names} names in {read} files");
    }
}

/// The check finds a name in every form.
#[test]
fn layering_check_finds_every_spelling_of_a_path() {
    let forbidden = RULES[0].1;
    for planted in [
        "use crate::db::versions;",
        "use crate::db::Store;",
        "use crate::{domain::EdgeId, db::{self, versions}};",
        "use crate::{\n    service::Service,\n    db::Store as Database,\n};",
        "use crate::*;",
        "use super::super::db::Store;",
        "use super::super::{db::Store};",
        "mod inner { use super::super::super::db::Store; }",
        "fn f() { use crate::db::Store; }",
        "fn f(store: crate::db::Store) {}",
        "fn f() -> crate::db::Store { crate::db::Store::open() }",
        "fn f() { let _ = super::super::db::Store::open(); }",
        "fn f() { println!(\"{}\", crate::db::Store::open()); }",
        "fn f(service: &Service) { service.store().reader(); }",
        "fn f() { sqlx::query(\"\"); }",
        "use ::sqlx::query;",
        "#[cfg(test)] mod tests { use crate::db::Store; }",
    ] {
        let named = named_paths(&["api".to_owned(), "edge".to_owned()], planted);
        assert!(!violations(&named, forbidden).is_empty(), "{planted}: {named:?}");
    }
    for allowed in [
        "use crate::{domain::EdgeId, db::StoreError, service::Service};",
        "use super::store;",
        "fn f() { flag.store(true, Ordering::Relaxed); let store = 1; }",
        "// crate::db::Store\nconst TEXT: &str = \"crate::db::Store\";",
        "use crate::db::StoreFront;",
    ] {
        let named = named_paths(&["api".to_owned(), "edge".to_owned()], allowed);
        assert_eq!(violations(&named, forbidden), Vec::<&String>::new(), "{allowed}");
    }
}

fn violations<'a>(named: &'a BTreeSet<String>, forbidden: &[&str]) -> Vec<&'a String> {
    let is_forbidden = |name: &&String| {
        let within = |module: &&str| {
            name.strip_prefix(*module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        // A glob import includes forbidden modules.
        *name == "crate::*" || forbidden.iter().any(within)
    };
    named.iter().filter(is_forbidden).collect()
}

/// Returns every path that a file names. Paths of this crate are absolute.
fn named_paths(module: &[String], text: &str) -> BTreeSet<String> {
    let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", module.join("::")));
    let mut names = Names { module: module.to_vec(), found: BTreeSet::new() };
    names.visit_file(&file);
    names.found
}

struct Names {
    /// The path of the module that is visited.
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Names {
    fn add_path(&mut self, path: &[String]) {
        let mut of = None;
        let mut rest = path;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" => of = Some(Vec::new()),
                "self" => of = Some(self.module.clone()),
                "super" => {
                    let mut parent = of.unwrap_or_else(|| self.module.clone());
                    parent.pop();
                    of = Some(parent);
                }
                _ => break,
            }
            rest = others;
        }
        let from = of.into_iter().flat_map(|module| std::iter::once("crate".to_owned()).chain(module));
        self.found.insert(from.chain(rest.iter().cloned()).collect::<Vec<_>>().join("::"));
    }

    fn tree(&mut self, before: &[String], tree: &UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            UseTree::Name(name) if name.ident == "self" => self.add_path(before),
            UseTree::Name(name) => self.add_path(&with(&name.ident)),
            UseTree::Rename(rename) if rename.ident == "self" => self.add_path(before),
            UseTree::Rename(rename) => self.add_path(&with(&rename.ident)),
            UseTree::Glob(_) => self.add_path(&[before, &["*".to_owned()]].concat()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree)),
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.tree(&[], &item.tree);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_path(&segments);
        visit::visit_path(self, path);
    }

    /// Finds `service.store()`, which has no path.
    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        if call.method == "store" && call.args.is_empty() {
            self.add_path(&["crate".to_owned(), "db".to_owned(), "Store".to_owned()]);
        }
        visit::visit_expr_method_call(self, call);
    }

    /// Macros contain only tokens: names joined by `::` are paths.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text = call.tokens.to_string().replace(" :: ", "::");
        let is_of_path = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | ':');
        for word in text.split(|letter| !is_of_path(letter)).filter(|word| word.contains("::")) {
            let segments: Vec<String> = word.split("::").map(str::to_owned).collect();
            self.add_path(&segments);
        }
        visit::visit_macro(self, call);
    }
}

/// Visits each file with the path of its module.
fn each_file(source: &Path, folder: &Path, visit: &mut impl FnMut(&[String], &str)) {
    let beside = folder.with_extension("rs");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for path in files.chain(beside.exists().then_some(beside)) {
        if path.is_dir() {
            each_file(source, &path, visit);
            continue;
        }
        let module = path.strip_prefix(source).unwrap().with_extension("");
        let mut module: Vec<String> = module.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        visit(&module, &fs::read_to_string(&path).unwrap());
    }
}
