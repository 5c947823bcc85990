//! A table of operations: method, path template and name, in columns separated by tabs.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use serde::Deserialize;

use super::{
    AmbiguousRequest, Template,
    path::{Lookup, PathComparison},
    rule::{is_method, method_matches},
    template::Part,
};
use crate::{config::printable, permission::is_name};

const HEADING: &str = "method\tpath\toperation";

/// Maximum number of segments. Soracom's longest path has 7.
const MAX_DEPTH: usize = 16;

/// A table of operations as a prefix tree. The most specific matching row applies.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(with = "Fields"))]
#[serde(try_from = "Fields")]
pub(crate) struct Table {
    nodes: Vec<Node>,
    operations: Vec<Operation>,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    method: String,
    pub(super) template: Template,
    pub(super) name: String,
    pub(super) public: bool,
    /// Whether a valid credential suffices, without a permission.
    pub(super) exempt: bool,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// The children by literal segment, in ascending order.
    literals: Vec<(String, usize)>,
    /// The children by custom verb after a variable.
    verbs: Vec<(String, usize)>,
    variable: Option<usize>,
    /// The indices of the operations whose template ends here.
    operation_indices: Vec<usize>,
}

impl Node {
    fn literal(&self, text: &str) -> Option<usize> {
        let at = self.literals.binary_search_by(|(known, _)| known.as_str().cmp(text)).ok()?;
        self.literals.get(at).map(|(_, next)| *next)
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.operations.len()
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.operations.iter().map(|operation| &operation.template)
    }

    pub(super) fn find(
        &self,
        lookup: &Lookup<'_, '_>,
        method: &str,
    ) -> Result<Option<&Operation>, AmbiguousRequest> {
        let Some(found) = self.walk(0, 0, lookup, method) else { return Ok(None) };
        if found.template.matches(lookup)? { Ok(Some(found)) } else { Ok(None) }
    }

    /// Calls `add` with the method of each operation whose path matches.
    pub(super) fn list_methods<'a>(&'a self, lookup: &Lookup<'_, '_>, add: &mut dyn FnMut(&'a str)) {
        for operation in &self.operations {
            if operation.template.matches(lookup) == Ok(true) {
                add(&operation.method);
            }
        }
    }

    /// Searches the tree. The recursion depth is bounded by [`MAX_DEPTH`].
    fn walk(&self, node: usize, depth: usize, lookup: &Lookup<'_, '_>, method: &str) -> Option<&Operation> {
        let node = self.nodes.get(node)?;
        let Some(segment) = lookup.path.segments().get(depth) else { return self.operation_at(node, method) };
        let next_depth = depth.checked_add(1)?;
        let comparison = lookup.comparison;
        let literal = match comparison {
            PathComparison::Exact => {
                node.literal(&segment.text).and_then(|next| self.walk(next, next_depth, lookup, method))
            }
            // The literals are ordered by their exact text, and several can be equal when folded.
            PathComparison::Folded => {
                let mut equal_literals =
                    node.literals.iter().filter(|(literal, _)| comparison.equals(literal, &segment.text));
                equal_literals.find_map(|(_, next)| self.walk(*next, next_depth, lookup, method))
            }
        };
        if literal.is_some() {
            return literal;
        }
        let mut verbs = node.verbs.iter().filter(|(verb, _)| lookup.ends_with(segment, verb));
        let verb = verbs.find_map(|(_, next)| self.walk(*next, next_depth, lookup, method));
        if verb.is_some() {
            return verb;
        }
        let next = node.variable.filter(|_| lookup.is_variable(segment))?;
        self.walk(next, next_depth, lookup, method)
    }

    /// Returns the operation with this method whose template ends at the node.
    fn operation_at(&self, node: &Node, method: &str) -> Option<&Operation> {
        let operation_indices = || node.operation_indices.iter().filter_map(|at| self.operations.get(*at));
        operation_indices()
            .find(|operation| operation.method == method)
            .or_else(|| operation_indices().find(|operation| method_matches(&operation.method, method)))
    }

    /// Adds an operation.
    fn insert(&mut self, operation: Operation) -> Result<(), String> {
        let mut at = 0usize;
        for part in &operation.template.parts {
            let next = self.nodes.len();
            let node = self.nodes.get_mut(at).ok_or("a node is missing")?;
            at = match part {
                Part::Literal(text) => match node.literals.binary_search_by(|(known, _)| known.cmp(text)) {
                    Ok(_) => node.literal(text).unwrap_or(next),
                    Err(position) => {
                        node.literals.insert(position, (text.clone(), next));
                        next
                    }
                },
                Part::Variable(_) => *node.variable.get_or_insert(next),
                Part::Suffix { suffix, .. } => match node.verbs.iter().find(|(known, _)| known == suffix) {
                    Some((_, existing)) => *existing,
                    None => {
                        node.verbs.push((suffix.clone(), next));
                        next
                    }
                },
            };
            if at == next {
                self.nodes.push(Node::default());
            }
        }
        let number = self.operations.len();
        let node = self.nodes.get_mut(at).ok_or("a node is missing")?;
        let has_same_method =
            |at: &usize| self.operations.get(*at).is_some_and(|existing| existing.method == operation.method);
        if node.operation_indices.iter().any(has_same_method) {
            return Err("duplicate method and path".into());
        }
        node.operation_indices.push(number);
        self.operations.push(operation);
        Ok(())
    }
}

/// A table of operations.
#[derive(Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The operations: lines of method, path and `Tag:operation`, separated by tabs.
    table: String,
    /// A prefix of all paths.
    #[serde(default)]
    prefix: String,
    /// The names of operations that require no credential.
    #[serde(default)]
    public: Vec<String>,
    /// The names of operations that require a credential but no permission.
    #[serde(default = "default_exempt")]
    exempt: Vec<String>,
}

impl TryFrom<Fields> for Table {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let Fields { table, prefix, public, exempt } = fields;
        Self::new(&table, &prefix, &public, &exempt)
    }
}

impl Table {
    /// Parses lines of method, path and name. A first line `method path operation` is a heading. `prefix` is prepended
    /// to every path. Operations in `public` require no credential, and those in `exempt` no permission.
    fn new(table: &str, prefix: &str, public: &[String], exempt: &[String]) -> Result<Self, String> {
        let mut parsed = Self { nodes: Vec::from([Node::default()]), operations: Vec::new() };
        for (number, line) in (1usize..).zip(table.lines()) {
            if line.is_empty() || (number == 1 && line == HEADING) {
                continue;
            }
            let operation = parse_row(line, prefix, public, exempt);
            operation
                .and_then(|operation| parsed.insert(operation))
                .map_err(|why| format!("line {number}: {why}"))?;
        }
        let unknown = |name: &&String| !parsed.operations.iter().any(|operation| operation.name == **name);
        if let Some(name) = public.iter().find(unknown) {
            return Err(format!("`{}` is public, but not in the table", printable(name)));
        }
        if parsed.operations.is_empty() { Err("the table is empty".into()) } else { Ok(parsed) }
    }
}

/// Parses a row of the table.
fn parse_row(line: &str, prefix: &str, public: &[String], exempt: &[String]) -> Result<Operation, String> {
    let mut columns = line.split('\t');
    let (Some(method), Some(path), Some(name), None) =
        (columns.next(), columns.next(), columns.next(), columns.next())
    else {
        return Err("expected method, path and name, separated by tabs".into());
    };
    if !is_method(method) {
        return Err(format!("`{}` is not a method in upper case", printable(method)));
    }
    if !is_name(name) {
        return Err(format!("`{}` is not `Tag:operation`", printable(name)));
    }
    let path = format!("{prefix}{path}");
    let template = Template::parse(&path).map_err(|why| format!("`{}` {why}", printable(&path)))?;
    if template.has_wildcard || template.has_extension() || template.parts.len() > MAX_DEPTH {
        return Err("a path in a table must not have `**` or `*`, and at most 16 segments".into());
    }
    let listed = |list: &[String]| list.iter().any(|listed| listed == name);
    Ok(Operation {
        method: method.to_string(),
        template,
        name: name.to_string(),
        public: listed(public),
        exempt: listed(exempt),
    })
}

/// Default of `exempt`: logging out requires no permission.
fn default_exempt() -> Vec<String> {
    Vec::from([String::from("Auth:logout")])
}

#[cfg(test)]
mod tests {
    use std::{format, vec};

    use proptest::prelude::*;

    use super::{super::Path, *};
    use crate::config;

    const SORACOM: &str = include_str!("../../../tests/data/soracom-operations.tsv");

    fn exact<'l, 'r>(path: &'l Path<'r>) -> Lookup<'l, 'r> {
        Lookup::new(path, PathComparison::Exact, &[])
    }

    #[test]
    fn e4_a_table_has_custom_verbs_in_any_order() {
        let rows = [
            "GET\t/users/{id}\tUser:get",
            "POST\t/users/{id}:suspend\tUser:suspend",
            "POST\t/users/{id}:undelete\tUser:undelete",
            "GET\t/users/me\tUser:me",
            "GET\t/users:search\tUser:search",
            "POST\t/users/me:suspend\tUser:suspendMe",
        ];
        let verbs: Vec<String> = [":suspend", ":undelete", ":search"].map(String::from).into();
        for table in [rows.join("\n"), rows.into_iter().rev().collect::<Vec<_>>().join("\n")] {
            let table = table_of(&table);
            for (method, path, expected) in [
                ("GET", "/users/7", Some("User:get")),
                ("GET", "/users/me", Some("User:me")),
                ("POST", "/users/7:suspend", Some("User:suspend")),
                ("POST", "/users/7:undelete", Some("User:undelete")),
                ("POST", "/users/me:suspend", Some("User:suspendMe")),
                ("POST", "/users/a:b:suspend", Some("User:suspend")),
                ("GET", "/users/7:suspend", None),
                ("GET", "/users/7:search", None),
                ("GET", "/users:search", Some("User:search")),
                ("GET", "/users/a:b", Some("User:get")),
            ] {
                let parsed = Path::parse(path.as_bytes()).unwrap();
                let found = table.find(&Lookup::new(&parsed, PathComparison::Exact, &verbs), method).unwrap();
                assert_eq!(found.map(|found| found.name.as_str()), expected, "{method} {path}");
            }
        }
        for bad in ["/a/*.js", "/**/a", "/a/{b}:c/d"] {
            assert!(table(&format!("GET\t{bad}\tA:b")).is_err(), "{bad}");
        }
    }

    fn table_of(text: &str) -> Table {
        table(text).unwrap()
    }

    fn table(text: &str) -> Result<Table, String> {
        parse_table(&serde_json::json!({ "table": text }))
    }

    fn parse_table(source: &serde_json::Value) -> Result<Table, String> {
        config::from_json(source.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn rows() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        SORACOM.lines().skip(1).map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            (columns[0], columns[1], columns[2])
        })
    }

    #[test]
    fn soracom_operations_match_their_own_templates() {
        let table = table(SORACOM).unwrap();
        assert_eq!((table.len(), rows().count()), (481, 481));
        for (method, template, name) in rows() {
            // Each variable has a distinct value, to detect swapped variables.
            let path = template.replace('{', "value-of-").replace('}', "");
            let parsed = Path::parse(path.as_bytes()).unwrap();
            let found = table.find(&exact(&parsed), method).unwrap().unwrap();
            assert_eq!((found.name.as_str(), found.exempt), (name, name == "Auth:logout"), "{method} {path}");
            let variables = found.template.variables(&parsed);
            let expected: Vec<_> = template
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
                .map(|variable| (variable, format!("value-of-{variable}")))
                .collect();
            let expected: Vec<_> = expected.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(variables, expected, "{method} {path}");
            assert!(table.find(&exact(&parsed), "PATCH").unwrap().is_none());
            assert!(table.find(&exact(&parsed), &method.to_ascii_lowercase()).unwrap().is_none());
        }
    }

    #[test]
    fn the_most_specific_row_applies_in_any_order() {
        let reversed: Vec<&str> = SORACOM.lines().skip(1).collect();
        let reversed = reversed.into_iter().rev().collect::<Vec<_>>().join("\n");
        for table in [table(SORACOM).unwrap(), table(&reversed).unwrap()] {
            for (method, path, expected) in [
                ("POST", "/operators/mfa_revoke_token/issue", Some("Operator:issueMFARevokingToken")),
                ("POST", "/operators/mfa_revoke_token/verify", Some("Operator:verifyMFARevokingToken")),
                ("POST", "/operators/add_email_token/issue", Some("Email:issueAddEmailToken")),
                ("GET", "/operators/mfa_revoke_token/users", Some("User:listUsers")),
                ("GET", "/operators/OP1/users/default_permissions", Some("User:getDefaultPermissions")),
                ("GET", "/operators/OP1/users/alice", Some("User:getUser")),
                // No row of the literal has this method, but a row of the variable has.
                ("POST", "/operators/OP1/users/default_permissions", Some("User:createUser")),
                ("GET", "/data/metadata/resources", Some("DataEntry:listDataResourceMetadata")),
                ("GET", "/data/categories/x", Some("DataEntry:getDataEntriesByCategory")),
                ("GET", "/data/metadata/other", Some("DataEntry:getDataEntries")),
                ("GET", "/bills/latest", Some("Billing:getLatestBilling")),
                ("HEAD", "/bills/202601", Some("Billing:getBilling")),
                ("GET", "/files/private/a", Some("FileEntry:getFile")),
                ("GET", "/files/private/a/", Some("FileEntry:listFiles")),
                ("GET", "/files/private/a/b", None),
                ("GET", "/bills/latest/", None),
                ("GET", "/", None),
            ] {
                let parsed = Path::parse(path.as_bytes()).unwrap();
                let found = table.find(&exact(&parsed), method).unwrap();
                assert_eq!(found.map(|found| found.name.as_str()), expected, "{method} {path}");
            }
        }
    }

    #[test]
    fn invalid_rows_are_refused_with_their_line_number() {
        const GOOD: &str = "GET\t/a/{b}\tA:get";
        assert_eq!(table(&format!("method\tpath\toperation\n{GOOD}\n\n")).unwrap().len(), 1);
        for (bad, why) in [
            ("GET /a A:get", "line 2: expected method, path and name"),
            ("GET\t/a\tA:get\tx", "line 2: expected method, path and name"),
            ("get\t/a\tA:get", "line 2: `get` is not a method"),
            ("GET\ta\tA:get", "line 2: `a` must start with"),
            ("GET\t/a\tget", "line 2: `get` is not `Tag:operation`"),
            ("GET\t/a\tA:*", "line 2: `A:*` is not `Tag:operation`"),
            ("GET\t/a/**\tA:get", "line 2: a path in a table"),
            ("GET\t/a/{c}\tA:other", "line 2: duplicate method and path"),
            ("method\tpath\toperation", "line 2: `method` is not a method"),
        ] {
            let error = table(&format!("{GOOD}\n{bad}")).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
        assert!(table("").unwrap_err().contains("empty"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// A linear search: of all matching rows, the one that has a literal where the others first have a variable.
        #[test]
        fn find_agrees_with_a_linear_search(
            row in 0..481usize,
            changes in prop::collection::vec((0..8usize, "[a-z]{1,3}|latest|default_permissions|exported|x%20y"), 0..3),
            slash: bool,
            method in prop::sample::select(vec!["GET", "POST", "PUT", "DELETE"]),
        ) {
            let (_, template, _) = rows().nth(row).unwrap();
            let mut segments: Vec<&str> = template.split('/').skip(1).collect();
            segments.iter_mut().filter(|segment| segment.starts_with('{')).for_each(|segment| *segment = "v");
            for (at, text) in &changes {
                if let Some(segment) = segments.get_mut(*at) {
                    *segment = text;
                }
            }
            if slash {
                segments.push("");
            }
            let path = format!("/{}", segments.join("/"));
            let Ok(parsed) = Path::parse(path.as_bytes()) else { return Ok(()) };
            let sent: Vec<&str> = path.split('/').skip(1).collect();
            let mut best: Option<(Vec<bool>, &str)> = None;
            for (_, template, name) in rows().filter(|(known, ..)| *known == method) {
                let parts: Vec<&str> = template.split('/').skip(1).collect();
                let fits = |(part, text): (&&str, &&str)| part == text || (part.starts_with('{') && !text.is_empty());
                if parts.len() == sent.len() && parts.iter().zip(&sent).all(fits) {
                    let variables: Vec<bool> = parts.iter().map(|part| part.starts_with('{')).collect();
                    if best.as_ref().is_none_or(|(before, _)| variables < *before) {
                        best = Some((variables, name));
                    }
                }
            }
            let found = table(SORACOM).unwrap();
            let found = found.find(&exact(&parsed), method).unwrap();
            prop_assert_eq!(found.map(|found| found.name.as_str()), best.map(|(_, name)| name), "{} {}", method, path);
        }
    }

    #[test]
    fn prefix_is_prepended_to_every_path() {
        let source = serde_json::json!({
            "table": "GET\t/a\tA:get\nPOST\t/b\tB:post", "prefix": "/v1", "public": ["A:get"], "exempt": ["B:post"],
        });
        let read = parse_table(&source).unwrap();
        let names: Vec<_> = ["/v1/a", "/v1/b", "/a"]
            .into_iter()
            .map(|path| {
                let path = Path::parse(path.as_bytes()).unwrap();
                let found =
                    read.find(&exact(&path), "GET").unwrap().or(read.find(&exact(&path), "POST").unwrap());
                found.map(|found| (found.name.as_str(), found.public, found.exempt))
            })
            .collect();
        assert_eq!(names, vec![Some(("A:get", true, false)), Some(("B:post", false, true)), None]);
        for bad in [
            serde_json::json!({ "table": "GET\t/a\tA:get", "prefix": "v1" }),
            serde_json::json!({ "table": "GET\t/a\tA:get", "prefix": "/v1/" }),
            serde_json::json!({ "table": "GET\t/a\tA:get", "public": ["A:gett"] }),
            serde_json::json!({ "table": "GET\t/a\tA:get", "other": 1 }),
            serde_json::json!(["GET\t/a\tA:get"]),
        ] {
            assert!(super::tests::parse_table(&bad).is_err());
        }
    }
}
