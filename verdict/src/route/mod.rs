//! Finds the rule for a request.
//!
//! Rules are tried in order; the first whose host, path and method match applies. A table of operations is one rule.
//! Within it the most specific row applies: from the left, a literal segment precedes a variable.
//!
//! | template | matches | does not |
//! |---|---|---|
//! | `/sims` | `/sims` | `/sims/`, `/sims/1` |
//! | `/sims/` | `/sims/` | `/sims` |
//! | `/sims/{sim_id}` | `/sims/1`, `/sims/a%20b` | `/sims`, `/sims/`, `/sims/1/` |
//! | `/sims/**` | `/sims`, `/sims/`, `/sims/1`, `/sims/1/tags` | `/simsalabim` |
//! | `/**` | every path | |
//!
//! A rule for `GET` also matches `HEAD`. The query is ignored.
//!
//! **A path is matched as it was sent, and a path that an upstream could parse differently is refused**
//! ([`AmbiguousRequest`]): an empty segment (`//`), a segment `.` or `..`, an encoded or alternative separator (`%2f`,
//! `%5c`, `\`, `%3f`, `%23`), parameters (`;`), a percent-encoded letter, digit, `-`, `.`, `_` or `~`, double
//! percent-encoding (`%252f`), control characters, and bytes that are not UTF-8. In a variable, `%3A` and other encoded
//! `pchar` characters equal the plain character; where a literal of a rule has such a character and the request has it
//! encoded, the request is refused. A trailing slash is part of the path. A request is refused too if it would match
//! another rule with the trailing slash added or removed, or, under [`PathCase::Fold`], with case folded and dots and
//! spaces removed from the ends of segments: many upstreams treat `/Admin` and `/admin%20` as `/admin`.

mod host;
mod path;
mod request;
mod rule;
mod rules;
mod table;
mod template;

pub use path::{AmbiguousRequest, PathCase};
pub use rule::{Access, Rule};
pub use rules::{Rules, UnmatchedPolicy};

pub(crate) use path::Path;
pub(crate) use rule::Requirements;
pub(crate) use rules::Route;
pub(crate) use table::Table;
pub(crate) use template::Template;
