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
//! | `/sims/{sim_id}:suspend` | `/sims/1:suspend` | `/sims/:suspend`, `/sims/1:resume` |
//! | `/**` | every path | |
//! | `/**/*.js` | `/a.js`, `/x/a.min.js` | `/.js`, `/a.js/` |
//! | `/**/health` | `/health`, `/x/health` | `/health/` |
//!
//! A rule for `GET` also matches `HEAD`. The query is ignored. If any rule has a custom verb (`:suspend`), no variable
//! matches a last segment with this end, so that `/sims/{sim_id}` does not match `/sims/1:suspend`.
//!
//! **A path is matched as it was sent, and a path that an upstream could parse as a path of another rule is refused**
//! ([`AmbiguousRequest`]):
//!
//! * always refused: an empty segment (`//`), a segment `.` or `..`, a percent-encoded letter, digit, `-`, `.`, `_` or
//!   `~`, double percent-encoding (`%252f`), control characters, spaces, and bytes that are not UTF-8.
//! * refused unless every reading leads to the same rule (and, if the rule uses variables, to the same values): `%2f`,
//!   `%5c` and `\`, which some parsers read as a slash; `;`, which some read as the begin of parameters; `%3f` and `%23`,
//!   which some read as the end of the path. Several kinds in one path are refused. A rule can state that its upstream
//!   reads `%2f` as part of a segment (`encoded_slash`); then only a path whose decoded form matches a rule of its own is
//!   refused.
//! * refused unless it leads to the same rule: the path with the trailing slash added or removed, and, under
//!   [`PathCase::Fold`], with case folded and dots and spaces removed from the ends of segments: many upstreams treat
//!   `/Admin` and `/admin%20` as `/admin`. Likewise a path that matches `/**/*.js`, without its extension, unless the
//!   other rule ends with `/**` and matches the path with its extension too: some upstreams treat `/users/7.js` as
//!   `/users/7`.
//!
//! In a variable, `%3A` and other encoded `pchar` characters equal the plain character; where a literal of a rule has such
//! a character and the request has it encoded, the request is refused. All other characters (`[`, `|`, `{`) have no
//! meaning in paths and are part of their segment. A trailing slash is part of the path.

#[cfg(test)]
mod envoy_paths;
mod host;
mod path;
#[cfg(test)]
mod readers;
mod request;
mod rule;
mod rules;
mod table;
mod template;

pub use path::{AmbiguousRequest, PathCase};
pub use rule::{Access, Rule};
pub use rules::{Rules, UnmatchedPolicy};

pub(crate) use path::Path;
pub(crate) use rule::{Conditions, Requirements};
pub(crate) use rules::Route;
pub(crate) use table::Table;
pub(crate) use template::Template;
