//! Which rule a request falls under.
//!
//! Rules are tried in their order; the first whose host, path and method match decides. A table of operations is one
//! rule: among its rows the most specific wins, from the left, a literal segment before a variable.
//!
//! | template | matches | does not |
//! |---|---|---|
//! | `/sims` | `/sims` | `/sims/`, `/sims/1` |
//! | `/sims/` | `/sims/` | `/sims` |
//! | `/sims/{sim_id}` | `/sims/1`, `/sims/a%20b` | `/sims`, `/sims/`, `/sims/1/` |
//! | `/sims/**` | `/sims`, `/sims/`, `/sims/1`, `/sims/1/tags` | `/simsalabim` |
//! | `/**` | every path | |
//!
//! `GET` in a rule is `HEAD` too. The query is not looked at.
//!
//! **A path is matched as it is sent, and one that an upstream could read as another is refused** ([`Unroutable`]): an
//! empty segment (`//`), a segment `.` or `..`, a separator in disguise (`%2f`, `%5c`, `\`, `%3f`, `%23`), parameters
//! (`;`), a letter, digit, `-`, `.`, `_` or `~` in percent-encoding, an encoded percent sign that would decode once more
//! (`%252f`), control characters, bytes that are not UTF-8. `%3A` and its like are the same as `:` in a variable; where
//! a rule has such a character as a literal and the request has it encoded, the request is refused. A slash at the end
//! is part of the path; where only that slash keeps a request from an earlier rule than the `/**` it reaches, the
//! request is refused as well. So it is where only capitals, or dots and spaces at the ends of segments, keep it from
//! another rule ([`PathCase`]): `/Admin` and `/admin%20` are `/admin` to many an upstream.

mod host;
mod path;
mod request;
mod rule;
mod rules;
mod table;
mod template;

pub use path::{PathCase, Unroutable};
pub use rule::{Access, Rule};
pub use rules::{Rules, Unmatched};

pub(crate) use path::Path;
pub(crate) use rule::Demand;
pub(crate) use rules::Route;
pub(crate) use table::Table;
pub(crate) use template::Template;
