//! The structure of the crate: interfaces use contexts, contexts use the database layer, and no modules form a cycle.
//!
//! ```text
//! api, cli, server  ->  contexts  ->  db  ->  platform, config  ->  domain
//! ```
//! The checks read the parsed sources, and each is shown to fail on a planted violation.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, ExprMethodCall, ItemMod, ItemUse, Macro, UseTree, Visibility,
    visit::{self, Visit},
};

/// What translates requests and commands.
const INTERFACES: [&str; 3] = ["api", "cli", "server"];

/// What is below the contexts.
const FOUNDATION: [&str; 4] = ["config", "db", "domain", "platform"];

/// The names of the database layer that interfaces need: its error, and which engine is in use.
const DB_IN_INTERFACES: [&str; 2] = ["crate::db::StoreError", "crate::db::Engine"];

#[test]
fn modules_respect_layering() {
    let sources = Sources::read();
    assert!(sources.files.len() > 120, "{} files", sources.files.len());
    assert_eq!(sources.violations(), Vec::<String>::new());
}

#[test]
fn modules_form_no_cycle() {
    let sources = Sources::read();
    let dependencies = sources.dependencies();
    let arrows: usize = dependencies.values().map(BTreeSet::len).sum();
    assert!(arrows > 400, "{arrows} dependencies in {} files", dependencies.len());
    assert_eq!(arrows_in_cycles(&dependencies), Vec::<String>::new());
}

/// A change that a caller asks for has an entry in the audit log. These files write what no caller asks for.
#[test]
fn only_upkeep_is_written_without_audit_entry() {
    let sources = Sources::read();
    let users: Vec<&str> =
        sources.files.iter().filter(|(_, file)| file.has_upkeep).map(|(module, _)| module.as_str()).collect();
    let expected = [
        // Many entries of several actors in one transaction.
        "credentials::tokens::issuance_log",
        "edges::last_seen",
        "issuers::refresh",
        "maintenance::purge",
        "publishing",
        "publishing::compaction",
        "publishing::publisher",
        "service",
        "service::open",
    ];
    assert_eq!(users, expected);
    assert!(
        Sources::of([("accounts::users", "fn f() { service.upkeep().await; }")]).files["accounts::users"]
            .has_upkeep
    );
}

/// The errors of contexts are rendered by several interfaces, so their texts name no command and no option.
#[test]
fn errors_of_contexts_name_no_interface() {
    let sources = Sources::read();
    let texts = || {
        sources.files.iter().filter(|(module, _)| !module.starts_with("cli") && !module.starts_with("import"))
    };
    assert!(texts().map(|(_, file)| file.error_texts.len()).sum::<usize>() > 100);
    let named: Vec<(&String, &String)> = texts()
        .flat_map(|(module, file)| file.error_texts.iter().map(move |text| (module, text)))
        .filter(|(_, text)| names_command_line(text))
        .collect();
    assert_eq!(named, []);
    for planted in ["#[error(\"run `keystile init`\")] struct E;", "enum E { #[error(\"add --yes\")] A }"] {
        let file = File::parse("accounts::error", planted);
        assert!(file.error_texts.iter().any(|text| names_command_line(text)), "{planted}");
    }
}

fn names_command_line(text: &str) -> bool {
    text.contains("`keystile") || text.contains("--")
}

/// The check finds a forbidden name in every form.
#[test]
fn layering_check_finds_every_spelling_of_a_path() {
    for (module, planted) in [
        ("api::edge", "use crate::db;"),
        ("api::edge", "use crate::db::Store;"),
        ("api::edge", "use crate::{domain::EdgeId, db::{self, versions}};"),
        ("api::edge", "use crate::{\n    service::Service,\n    db as database,\n};"),
        ("api::edge", "use crate::*;"),
        ("api::edge", "use super::super::db::Store;"),
        ("api::edge", "use super::super::{db};"),
        ("api::edge", "mod inner { use super::super::super::db; }"),
        ("api::edge", "fn f() { use crate::db::Store; }"),
        ("api::edge", "fn f(store: crate::db::Store) {}"),
        ("api::edge", "fn f() -> crate::db::Store { crate::db::open() }"),
        ("api::edge", "fn f() { let _ = super::super::db::open(); }"),
        ("api::edge", "fn f() { println!(\"{}\", crate::db::open()); }"),
        ("api::edge", "fn f(service: &Service) { service.store().reader(); }"),
        ("api::edge", "fn f(service: &Service) { service.change(actor); }"),
        ("api::edge", "fn f() { sqlx::query(\"\"); }"),
        ("api::edge", "use ::sqlx::query;"),
        ("api::edge", "#[cfg(test)] mod tests { use crate::db::Store; }"),
        ("api::edge", "use crate::edges::queries;"),
        ("accounts::users", "use crate::edges::queries as edges;"),
        ("accounts::users", "use crate::{edges::{queries::list, EdgeState}};"),
        ("accounts::users", "fn f() { crate::edges::queries::list(); }"),
        ("accounts::users", "use crate::edges; fn f() { edges::queries::list(); }"),
        ("accounts::users", "fn f() { sqlx::query(\"\"); }"),
        ("accounts::users", "use crate::cli::output;"),
        ("accounts::users", "use crate::api::problem::Problem;"),
        ("db::versions", "use crate::accounts::users;"),
        ("domain::ids", "use crate::db::Store;"),
        ("platform::clock", "use crate::service::Service;"),
        ("revocation::revoke", "use crate::publishing::Publications;"),
        ("service", "use crate::publishing::Publications;"),
    ] {
        let sources = Sources::of([(module, planted)]);
        assert!(!sources.violations().is_empty(), "{module}: {planted}");
    }
    for (module, allowed) in [
        ("api::edge", "use crate::{domain::EdgeId, service::Service, db::StoreError};"),
        ("api::edge", "use super::db;"),
        ("api::edge", "fn f() { flag.store(true, Ordering::Relaxed); let store = 1; }"),
        ("api::edge", "// crate::db\nconst TEXT: &str = \"crate::db\";"),
        ("api::edge", "use crate::db_front::Shop;"),
        ("edges::list", "use super::queries;"),
        ("edges::queries", "use sqlx::query;"),
        ("accounts::queries::users", "use sqlx::query; use super::super::queries::roles;"),
        ("accounts::users", "use crate::{edges::list_edges, db::Store};"),
        ("publishing::state", "use crate::revocation::feed;"),
    ] {
        let sources = Sources::of([(module, allowed)]);
        assert_eq!(sources.violations(), Vec::<String>::new(), "{module}: {allowed}");
    }
}

/// The check of cycles follows re-exports to the file that defines the name.
#[test]
fn cycle_check_finds_planted_cycles() {
    let found = |files: &[(&str, &str)]| cycles(&Sources::of(files.iter().copied()).dependencies());
    let ring = vec![vec!["a::x".to_owned(), "b::y".to_owned()]];
    assert_eq!(found(&[("a::x", "use crate::b::y::Y;"), ("b::y", "use crate::a::x::X;")]), ring);
    assert_eq!(
        found(&[
            ("a", "mod x; pub use x::X;"),
            ("a::x", "use crate::b::Y;"),
            ("b", "mod y; pub use y::Y;"),
            ("b::y", "fn f() { crate::a::X::new(); }"),
        ]),
        ring
    );
    let by_module = [("a::x", "use crate::b; fn f() { b::y(); }"), ("b", "use crate::a::x::X;")];
    assert_eq!(found(&by_module), [["a::x", "b"]]);
    let three = [("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "fn f(a: super::a::A) {}")];
    assert_eq!(found(&three), [["a", "b", "c"]]);
    // Tests may use anything, and a folder may re-export what uses another folder.
    for allowed in [
        [("a::x", "use crate::b::y::Y;"), ("b::y", "#[cfg(test)] mod tests { use crate::a::x::X; }")],
        [("a", "pub use crate::a::x::X; mod x;"), ("a::x", "use super::*;")],
        [("a::x", "use crate::a::z::Z;"), ("a::z", "use crate::b::B;")],
    ] {
        assert_eq!(found(&allowed), Vec::<Vec<String>>::new(), "{allowed:?}");
    }
}

/// The files of the crate.
struct Sources {
    files: BTreeMap<String, File>,
}

/// A file, by what it names.
#[derive(Default)]
struct File {
    /// All names, absolute if they are of this crate.
    names: BTreeSet<String>,
    /// The names outside of tests and re-exports.
    used: BTreeSet<String>,
    /// The names that the file re-exports, with what they mean.
    exports: BTreeMap<String, String>,
    /// Whether it begins a transaction without an entry in the audit log.
    has_upkeep: bool,
    /// The attributes with the texts of errors.
    error_texts: Vec<String>,
}

impl Sources {
    fn read() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        each_file(&source, &source, &mut |module, text| files.push((module, text)));
        Self::of(files.iter().map(|(module, text)| (module.as_str(), text.as_str())))
    }

    fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let parse = |(module, text): (&str, &str)| (module.to_owned(), File::parse(module, text));
        Self { files: files.into_iter().map(parse).collect() }
    }

    /// Returns the names that a file must not name, each with the file.
    fn violations(&self) -> Vec<String> {
        let of = |(module, file): (&String, &File)| {
            let module = module.clone();
            let forbidden: Vec<String> =
                file.names.iter().filter(|name| is_forbidden(&module, name)).cloned().collect();
            forbidden.into_iter().map(move |name| format!("{module}: {name}"))
        };
        self.files.iter().flat_map(of).collect()
    }

    /// Returns for each file the other files that define what it uses.
    fn dependencies(&self) -> BTreeMap<String, BTreeSet<String>> {
        let of = |(module, file): (&String, &File)| {
            // `x::X` names the child `x` if there is one.
            let child = |name: &String| self.defining_file(&format!("crate::{module}::{name}"), 0);
            // A module alone is not used: what is used of it has a longer name.
            let is_module = |name: &&String| self.files.contains_key(name.trim_start_matches("crate::"));
            let used = file.used.iter().filter(|name| !is_module(name));
            let named = used.filter_map(|name| match name.starts_with("crate::") {
                true => self.defining_file(name, 0),
                false => child(name),
            });
            (module.clone(), named.filter(|definer| definer != module).collect())
        };
        self.files.iter().map(of).collect()
    }

    /// Returns the file that defines a name of this crate. Follows re-exports.
    fn defining_file(&self, name: &str, depth: usize) -> Option<String> {
        let mut segments = name.split("::");
        if segments.next() != Some("crate") || depth > 8 {
            return None;
        }
        let mut module = String::new();
        let segments: Vec<&str> = segments.collect();
        for (at, segment) in segments.iter().enumerate() {
            let child =
                if module.is_empty() { (*segment).to_owned() } else { format!("{module}::{segment}") };
            let is_folder = || self.files.keys().any(|file| file.starts_with(&format!("{child}::")));
            if self.files.contains_key(&child) || is_folder() {
                module = child;
                continue;
            }
            let meaning = self.files.get(&module).and_then(|file| file.exports.get(*segment));
            if let Some(meaning) = meaning {
                let rest = segments.get(at + 1..).unwrap_or_default();
                let meant = [&[meaning.as_str()], rest].concat().join("::");
                return self.defining_file(&meant, depth + 1);
            }
            break;
        }
        self.files.contains_key(&module).then_some(module)
    }
}

/// Returns whether a file must not name this.
fn is_forbidden(module: &str, name: &str) -> bool {
    let folder = module.split("::").next().unwrap_or_default();
    let is_interface = INTERFACES.contains(&folder);
    let mut segments = name.split("::");
    let (root, named) = (segments.next(), segments.next().unwrap_or_default());
    if name == "crate::*" {
        // A glob includes what is forbidden.
        return !module.is_empty();
    }
    if root == Some("sqlx") {
        return folder != "db" && !module.split("::").any(|part| part == "queries");
    }
    if root != Some("crate") {
        return false;
    }
    if name.split("::").any(|part| part == "queries") && named != folder {
        return true;
    }
    match folder {
        "" | "lib" | "main" => false,
        "domain" => named != "domain" && named != "platform",
        "platform" | "config" => !["config", "domain", "platform"].contains(&named),
        "db" => !FOUNDATION.contains(&named),
        _ if is_interface => {
            named == "db" && !DB_IN_INTERFACES.iter().any(|allowed| name.starts_with(allowed))
        }
        // Contexts know nothing of how their changes are published.
        "publishing" | "maintenance" => INTERFACES.contains(&named),
        _ => INTERFACES.contains(&named) || named == "publishing",
    }
}

/// Returns the groups of modules of which each depends on each other, directly or not.
fn cycles(dependencies: &BTreeMap<String, BTreeSet<String>>) -> Vec<Vec<String>> {
    let reachable = |from: &String| {
        let mut found = BTreeSet::new();
        let mut open: Vec<&String> = dependencies.get(from).into_iter().flatten().collect();
        while let Some(next) = open.pop() {
            if found.insert(next.clone()) {
                open.extend(dependencies.get(next).into_iter().flatten());
            }
        }
        found
    };
    let all: BTreeMap<&String, BTreeSet<String>> =
        dependencies.keys().map(|module| (module, reachable(module))).collect();
    let mut groups = BTreeSet::new();
    for (module, found) in all.iter().filter(|(module, found)| found.contains(**module)) {
        let group = found.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(*module)));
        groups.insert(group.cloned().collect::<Vec<_>>());
    }
    groups.into_iter().collect()
}

/// Returns the dependencies that are part of a cycle.
fn arrows_in_cycles(dependencies: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let within = |group: Vec<String>| {
        let of = |from: &String| {
            let inner: Vec<String> =
                dependencies[from].iter().filter(|to| group.contains(to)).cloned().collect();
            inner.into_iter().map(|to| format!("{from} -> {to}")).collect::<Vec<_>>()
        };
        group.iter().flat_map(of).collect::<Vec<_>>()
    };
    cycles(dependencies).into_iter().flat_map(within).collect()
}

impl File {
    fn parse(module: &str, text: &str) -> Self {
        let parsed = syn::parse_file(text).unwrap_or_else(|error| panic!("{module}: {error}"));
        let path: Vec<String> =
            module.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let mut names = Names { file: path.clone(), module: path, ..Names::default() };
        names.visit_file(&parsed);
        let Names { mut found, imports, .. } = names;
        // `edges::list` means what `edges` was imported as.
        let meaning = |name: String| match name.split_once("::") {
            Some((first, rest)) if imports.contains_key(first) => format!("{}::{rest}", imports[first]),
            _ => name,
        };
        found.names = found.names.into_iter().map(meaning).collect();
        found.used = found.used.into_iter().map(meaning).collect();
        found
    }
}

#[derive(Default)]
struct Names {
    /// The path of the file.
    file: Vec<String>,
    /// The path of the module that is visited.
    module: Vec<String>,
    /// The number of `#[cfg(test)]` around what is visited.
    tests: usize,
    /// The meaning of each imported name.
    imports: BTreeMap<String, String>,
    found: File,
}

impl Names {
    fn absolute(&self, path: &[String]) -> String {
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
        from.chain(rest.iter().cloned()).collect::<Vec<_>>().join("::")
    }

    fn add_path(&mut self, path: &[String]) {
        let name = self.absolute(path);
        if self.tests == 0 {
            self.found.used.insert(name.clone());
        }
        self.found.names.insert(name);
    }

    /// Visits a `use` tree with the name that each leaf gets here.
    fn tree(&self, before: &[String], tree: &UseTree, visit: &mut impl FnMut(Vec<String>, String)) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        let last = || before.last().cloned().unwrap_or_default();
        match tree {
            UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree, visit),
            UseTree::Name(name) if name.ident == "self" => visit(before.to_vec(), last()),
            UseTree::Name(name) => visit(with(&name.ident), name.ident.to_string()),
            UseTree::Rename(rename) if rename.ident == "self" => {
                visit(before.to_vec(), rename.rename.to_string());
            }
            UseTree::Rename(rename) => visit(with(&rename.ident), rename.rename.to_string()),
            UseTree::Glob(_) => visit([before, &["*".to_owned()]].concat(), "*".to_owned()),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(before, tree, visit)),
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut leaves = Vec::new();
        self.tree(&[], &item.tree, &mut |path, name| leaves.push((path, name)));
        for (path, name) in leaves {
            if matches!(item.vis, Visibility::Inherited) {
                let meaning = self.absolute(&path);
                if self.module == self.file {
                    // Files below may use it by this name.
                    let is_absolute = meaning.starts_with("crate::");
                    let of_child = || self.absolute(&[&["self".to_owned()], path.as_slice()].concat());
                    let meant = if is_absolute { meaning.clone() } else { of_child() };
                    self.found.exports.insert(name.clone(), meant);
                }
                if meaning.starts_with("crate::") {
                    self.imports.insert(name, meaning);
                }
                self.add_path(&path);
                continue;
            }
            // `pub use x::X` names the child `x`.
            let first = path.first().map(String::as_str).unwrap_or_default();
            let is_absolute = ["crate", "self", "super"].contains(&first);
            let path = if is_absolute { path } else { [&["self".to_owned()], path.as_slice()].concat() };
            let meaning = self.absolute(&path);
            self.found.names.insert(meaning.clone());
            if self.module == self.file {
                self.found.exports.insert(name, meaning);
            }
        }
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let syn::Meta::List(list) = &attribute.meta
            && list.path.is_ident("error")
        {
            self.found.error_texts.push(list.tokens.to_string());
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let is_test = usize::from(is_test(&item.attrs));
        self.tests += is_test;
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
        self.tests -= is_test;
    }

    /// `pub(super)` uses nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.add_path(&segments);
        visit::visit_path(self, path);
    }

    /// Finds the methods of the service that give access to the database, which have no path.
    fn visit_expr_method_call(&mut self, call: &'ast ExprMethodCall) {
        self.found.has_upkeep |= call.method == "upkeep" && call.args.is_empty();
        let is_access = match call.method.to_string().as_str() {
            "store" | "upkeep" => call.args.is_empty(),
            "change" | "draft" => call.args.len() == 1,
            _ => false,
        };
        if is_access {
            self.add_path(&["crate".to_owned(), "db".to_owned()]);
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
fn each_file(source: &Path, folder: &Path, visit: &mut impl FnMut(String, String)) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            each_file(source, &path, visit);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let module = path.strip_prefix(source).unwrap().with_extension("");
        let mut module: Vec<String> = module.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        if module.last().is_some_and(|name| name == "mod") {
            module.pop();
        }
        visit(module.join("::"), fs::read_to_string(&path).unwrap());
    }
}
