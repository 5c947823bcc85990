//! Two readers of one path never reach different rules: the filter, and an upstream whose routes are those of the rules.

use std::{format, string::String, vec, vec::Vec};

use proptest::prelude::*;

use super::{
    PathCase, Rules, UnmatchedPolicy,
    envoy_paths::{merge_slashes, normalize_path, unescape_slashes},
};
use crate::config;

/// How a framework reads a path and compares it with its routes.
#[derive(Clone, Copy)]
struct Framework {
    name: &'static str,
    /// `%2f` separates segments.
    decodes_slash: bool,
    /// `;` and what follows it are not part of a segment.
    strips_parameters: bool,
    /// `%3b` too.
    strips_encoded_parameters: bool,
    /// Literals of routes are compared with decoded segments.
    decodes_literals: bool,
    /// `//` is one slash.
    merges_slashes: bool,
    /// `.` and `..` are resolved. If not, they are segments.
    resolves_dots: bool,
    ignores_case: bool,
    /// `/a/` is `/a`.
    ignores_trailing_slash: bool,
    /// `/a.js` is `/a` in the format `js`.
    ignores_extension: bool,
    /// `%5c` and `\` separate segments, and dots and spaces at the end of a name are ignored.
    is_windows: bool,
}

const PLAIN: Framework = Framework {
    name: "",
    decodes_slash: false,
    strips_parameters: false,
    strips_encoded_parameters: false,
    decodes_literals: true,
    merges_slashes: false,
    resolves_dots: false,
    ignores_case: false,
    ignores_trailing_slash: false,
    ignores_extension: false,
    is_windows: false,
};

const FRAMEWORKS: [Framework; 9] = [
    // https://expressjs.com/en/api.html#express.router: `caseSensitive` and `strict` are disabled by default. The raw path
    // is compared, and parameters are decoded afterwards.
    Framework {
        name: "Express",
        decodes_literals: false,
        ignores_case: true,
        ignores_trailing_slash: true,
        ..PLAIN
    },
    // https://docs.spring.io/spring-framework/docs/current/javadoc-api/org/springframework/http/server/PathContainer.html:
    // "in decoded form and with path parameters removed", one segment at a time. Tomcat resolves dots and slashes.
    Framework {
        name: "Spring MVC PathPattern",
        strips_parameters: true,
        merges_slashes: true,
        resolves_dots: true,
        ..PLAIN
    },
    // The same behind a server that decodes first, as with `UrlPathHelper` and `allowUrlEncodedSlash`:
    // https://docs.spring.io/spring-framework/docs/5.3.x/javadoc-api/org/springframework/web/util/UrlPathHelper.html
    Framework {
        name: "Spring MVC AntPathMatcher",
        decodes_slash: true,
        strips_parameters: true,
        strips_encoded_parameters: true,
        merges_slashes: true,
        resolves_dots: true,
        ignores_trailing_slash: true,
        ..PLAIN
    },
    // https://pkg.go.dev/net/http#ServeMux: "matching is done segment by segment", on escaped paths; it redirects paths
    // with `.`, `..` and `//` to the clean path.
    Framework { name: "Go net/http ServeMux 1.22", merges_slashes: true, resolves_dots: true, ..PLAIN },
    // https://learn.microsoft.com/aspnet/core/fundamentals/routing: case is ignored, `%2F` stays encoded. Kestrel resolves
    // dots.
    Framework {
        name: "ASP.NET Core",
        resolves_dots: true,
        ignores_case: true,
        ignores_trailing_slash: true,
        ..PLAIN
    },
    // https://peps.python.org/pep-3333/: `PATH_INFO` is decoded. https://docs.djangoproject.com/en/stable/topics/http/urls/
    Framework { name: "Django", decodes_slash: true, ..PLAIN },
    // https://asgi.readthedocs.io/en/latest/specs/www.html: `path` is decoded; `redirect_slashes` redirects `/a/` to `/a`.
    Framework { name: "FastAPI, Starlette", decodes_slash: true, ignores_trailing_slash: true, ..PLAIN },
    // https://guides.rubyonrails.org/routing.html: `(.:format)`. `Journey::Router::Utils.normalize_path` squeezes slashes
    // and strips the last one.
    Framework {
        name: "Rails",
        merges_slashes: true,
        ignores_trailing_slash: true,
        ignores_extension: true,
        ..PLAIN
    },
    // A file system of Windows behind a server that decodes first.
    Framework {
        name: "files on Windows",
        decodes_slash: true,
        merges_slashes: true,
        resolves_dots: true,
        ignores_case: true,
        ignores_trailing_slash: true,
        is_windows: true,
        ..PLAIN
    },
];

/// A segment as a framework sees it.
#[derive(Debug, Clone)]
struct Seen {
    /// What literals are compared with.
    literal: String,
    decoded: String,
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let byte = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl Framework {
    /// Returns the segments of a path without its query.
    fn read(&self, path: &str) -> Vec<Seen> {
        let mut path = String::from(path);
        if self.decodes_slash {
            path = path.replace("%2f", "/").replace("%2F", "/");
        }
        if self.is_windows {
            path = path.replace("%5c", "/").replace("%5C", "/").replace('\\', "/");
        }
        let mut seen: Vec<Seen> = Vec::new();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        for (at, raw) in segments.iter().enumerate() {
            let mut raw = *raw;
            if self.strips_parameters {
                raw = raw.split(';').next().unwrap();
            }
            let mut decoded = decode(raw);
            if self.strips_encoded_parameters {
                decoded = decoded.split(';').next().unwrap().into();
            }
            let is_last = at + 1 == segments.len();
            if self.is_windows && decoded != "." && decoded != ".." {
                decoded = decoded.trim().trim_end_matches(['.', ' ']).into();
            }
            match &*decoded {
                "" if self.merges_slashes && !is_last => continue,
                "." if self.resolves_dots => {
                    if !is_last {
                        continue;
                    }
                    decoded.clear();
                }
                ".." if self.resolves_dots => {
                    seen.pop();
                    if !is_last {
                        continue;
                    }
                    decoded.clear();
                }
                _ => {}
            }
            let literal = if self.decodes_literals { decoded.clone() } else { String::from(raw) };
            seen.push(Seen { literal, decoded });
        }
        if self.ignores_trailing_slash
            && seen.len() > 1
            && seen.last().is_some_and(|last| last.decoded.is_empty())
        {
            seen.pop();
        }
        seen
    }

    fn equals(&self, one: &str, other: &str) -> bool {
        if self.ignores_case { one.eq_ignore_ascii_case(other) } else { one == other }
    }

    fn ends_with(&self, text: &str, end: &str) -> bool {
        text.len() > end.len()
            && text.get(text.len() - end.len()..).is_some_and(|found| self.equals(found, end))
    }

    /// Returns whether a route serves the segments. `verbs` are the custom verbs of all routes.
    fn serves(&self, route: &[&str], seen: &[Seen], verbs: &[&str]) -> bool {
        let Some((part, rest)) = route.split_first() else { return seen.is_empty() };
        if *part == "**" {
            return (0..=seen.len()).any(|from| self.serves(rest, &seen[from..], verbs));
        }
        let Some((segment, later)) = seen.split_first() else { return false };
        let text = &segment.decoded;
        let is_verb = later.is_empty() && verbs.iter().any(|verb| text == verb || self.ends_with(text, verb));
        let is_match = match part.split_once('}') {
            Some((_, "")) => !text.is_empty() && !is_verb,
            Some((_, verb)) => self.ends_with(text, verb),
            None => match part.strip_prefix('*') {
                Some(end) => self.ends_with(text, end),
                None => self.equals(part, &segment.literal),
            },
        };
        is_match && self.serves(rest, later, verbs)
    }

    /// Returns the first route that serves a path, as routers do that read a verb after they have decoded.
    fn route(&self, routes: &[&str], path: &str) -> Option<usize> {
        let seen = self.read(path);
        let verbs: Vec<&str> =
            routes.iter().filter_map(|route| route.rfind(':').map(|at| &route[at..])).collect();
        let find = |seen: &[Seen]| {
            routes.iter().position(|route| {
                let parts: Vec<&str> = route.split('/').skip(1).collect();
                self.serves(&parts, seen, &verbs)
            })
        };
        // A route with an optional format serves a path with and without extension.
        let found = find(&seen);
        if self.ignores_extension {
            let mut named = seen.clone();
            if let Some(last) = named.last_mut()
                && let Some((name, _)) = last.decoded.clone().rsplit_once('.')
                && !name.is_empty()
            {
                last.decoded = name.into();
                last.literal = name.into();
                return match (found, find(&named)) {
                    // The route for the name, unless an earlier one is for the extension.
                    (Some(found), Some(name)) if !routes[found].contains("*.") => Some(found.min(name)),
                    (_, Some(name)) => Some(name),
                    (found, None) => found,
                };
            }
        }
        found
    }
}

/// Policies: the routes in order, the members of the rules by index, and the frameworks for which they are not safe, which
/// `verdict/POLICY.md` names.
struct Policy {
    routes: &'static [&'static str],
    segment: &'static [usize],
    unsafe_for: &'static [&'static str],
}

const POLICIES: [Policy; 7] = [
    Policy { routes: &["/admin/**", "/users/{id}", "/app"], segment: &[], unsafe_for: &[] },
    Policy {
        routes: &["/users/me", "/users/{id}:suspend", "/users/{id}", "/users:search", "/admin", "/**"],
        segment: &[],
        unsafe_for: &["Rails"],
    },
    Policy { routes: &["/**/*.js", "/users/{id}", "/app", "/admin"], segment: &[], unsafe_for: &[] },
    // Rails: `format: false`.
    Policy { routes: &["/**/*.js", "/users/{id}", "/admin/**", "/**"], segment: &[], unsafe_for: &["Rails"] },
    Policy {
        routes: &["/x/**/status", "/x/**/{id}/a.js", "/admin/{id}"],
        segment: &[],
        unsafe_for: &["Rails"],
    },
    // A rule states that its upstream does not decode the slash.
    Policy {
        routes: &["/users/{id}", "/users/{id}/admin", "/users/me/**", "/x/**"],
        segment: &[0],
        unsafe_for: &[],
    },
    Policy {
        routes: &["/users/{id}", "/users/**", "/admin", "/**"],
        segment: &[0],
        unsafe_for: &[
            "Django",
            "FastAPI, Starlette",
            "Spring MVC AntPathMatcher",
            "files on Windows",
            "Rails",
        ],
    },
];

fn rules(policy: &Policy) -> Rules {
    let rules: Vec<String> = (0usize..)
        .zip(policy.routes)
        .map(|(at, route)| {
            let slash = if policy.segment.contains(&at) { "segment" } else { "refuse" };
            format!(r#"{{ "path": "{route}", "access": "public", "encoded_slash": "{slash}" }}"#)
        })
        .collect();
    config::from_json(format!("[{}]", rules.join(",")).as_bytes()).unwrap()
}

/// Returns the rule that the filter finds, or `Err(())` if it refuses the path.
fn filter(rules: &Rules, unmatched: UnmatchedPolicy, path: &str) -> Result<Option<usize>, ()> {
    let headers = [(":method", &b"GET"[..]), (":path", path.as_bytes())];
    let route = rules.route(Some(unmatched), PathCase::Fold, headers.into_iter());
    route.map(|route| route.rule).map_err(|_| ())
}

/// Asserts that each framework, behind a proxy with any of Envoy's options or none, reaches the rule that the filter
/// found. Returns whether the filter let the path pass.
fn check(policy: &Policy, unmatched: UnmatchedPolicy, path: &str) -> bool {
    let Ok(found) = filter(&rules(policy), unmatched, path) else { return false };
    let sent = path.split('?').next().unwrap();
    let mut readings = Vec::from([String::from(sent), merge_slashes(sent), unescape_slashes(sent)]);
    readings.push(merge_slashes(&unescape_slashes(sent)));
    readings.extend(readings.clone().iter().filter_map(|path| normalize_path(path)));
    for framework in FRAMEWORKS.iter().filter(|framework| !policy.unsafe_for.contains(&framework.name)) {
        // SECURITY.md: a rule for `/admin` does not cover `/admin.json`. Only the rules for extensions depend on it.
        let ignores_extension =
            framework.ignores_extension && found.is_some_and(|found| policy.routes[found].contains("*."));
        let framework = &Framework { ignores_extension, ..*framework };
        for (number, reading) in readings.iter().enumerate() {
            // A proxy that decodes slashes is a framework that does, for which `encoded_slash: segment` is not meant.
            let decodes = framework.decodes_slash || number % 4 >= 2;
            if decodes && !policy.unsafe_for.is_empty() && !policy.segment.is_empty() {
                continue;
            }
            // A route that does not exist serves nothing.
            let Some(reached) = framework.route(policy.routes, reading) else { continue };
            assert_eq!(
                Some(reached),
                found,
                "{} reads {path} as {reading}, a path of {}",
                framework.name,
                policy.routes[reached]
            );
        }
    }
    true
}

#[test]
fn frameworks_read_what_their_documentation_says() {
    let route = |name: &str, routes: &[&str], path: &str| {
        FRAMEWORKS.iter().find(|framework| framework.name == name).unwrap().route(routes, path)
    };
    const ROUTES: [&str; 3] = ["/admin", "/users/{id}", "/users/{id}/x"];
    for (name, path, expected) in [
        ("Express", "/Admin/", Some(0)),
        ("Express", "/%61dmin", None),
        ("Express", "/users/a%2fb", Some(1)),
        ("Spring MVC PathPattern", "/%61dmin", Some(0)),
        ("Spring MVC PathPattern", "/admin;x", Some(0)),
        ("Spring MVC PathPattern", "/users/..;/admin", Some(0)),
        ("Spring MVC PathPattern", "/admin/", None),
        ("Spring MVC PathPattern", "/admin%3bx", None),
        ("Spring MVC AntPathMatcher", "/admin%3bx/", Some(0)),
        ("Go net/http ServeMux 1.22", "/users/a%2fx", Some(1)),
        ("Go net/http ServeMux 1.22", "/users/../admin", Some(0)),
        ("Go net/http ServeMux 1.22", "/Admin", None),
        ("ASP.NET Core", "/ADMIN/", Some(0)),
        ("Django", "/users/7%2fx", Some(2)),
        ("Django", "/admin/", None),
        ("FastAPI, Starlette", "/admin%2f", Some(0)),
        ("Rails", "/users/7.json", Some(1)),
        ("Rails", "/admin.js", Some(0)),
        ("Rails", "//admin/", Some(0)),
        ("files on Windows", "/users%5c..%5cADMIN.%20", Some(0)),
    ] {
        assert_eq!(route(name, &ROUTES, path), expected, "{name} {path}");
    }
}

/// Paths that pass, and that a framework reads in another way than the filter without reaching another rule.
#[test]
fn paths_with_delimiters_pass_where_no_rule_reads_them_otherwise() {
    for (policy, path) in [
        (0, "/admin/a%2Fb"),
        (0, "/admin/a;b"),
        (0, "/x%2Fy"),
        (0, "/users/a;b"),
        (0, "/users/C%23"),
        (1, "/users/7:suspend"),
        (1, "/x%5Cy"),
        (2, "/x/a.js"),
        (2, "/x%2fa.js"),
        (3, "/admin/a.js"),
        (4, "/x/y%2Fz/status"),
        (5, "/users/a%2Fb"),
        (6, "/users/a%2Fb"),
    ] {
        assert!(check(&POLICIES[policy], UnmatchedPolicy::Public, path), "{path}");
    }
    for (policy, path) in [
        (0, "/x%2f..%2fadmin"),
        (0, "/admin%2fx"),
        (0, "/admin;x"),
        (0, "/users/a%2Fb"),
        (1, "/users/7%3asuspend"),
        (2, "/users/7.js"),
        (2, "/app.js"),
        (2, "/admin;x.js"),
        (4, "/x/y%2Fstatus"),
        (5, "/users/7%2Fadmin"),
        (5, "/users/me%2Fx"),
        (5, "/users/Me%2Fx"),
        (6, "/users/..%2fadmin"),
        (3, "/%20.js"),
        (3, "/x/%20.js"),
        (1, "/USERS\\%3Asuspend%5C%3Asuspend"),
        (0, "/x;a%3bb"),
        (0, "/USERS\\admin%5cadmin"),
        (2, "/%20.JS"),
        (0, "/USERS/%20"),
        (1, "/users/%2f[1]"),
        (1, "/users/a%2f%2fb"),
        (0, "/USERS/%20/"),
    ] {
        assert!(!check(&POLICIES[policy], UnmatchedPolicy::Public, path), "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn two_readers_of_a_path_never_reach_different_rules(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "/", "/", "/", "/", "admin", "users", "me", "7", "app", "x", "status", "a.js", ".js", "Admin", "USERS",
                ":suspend", "%3Asuspend", ":search", ":Suspend", "%2f", "%2F", "\\", "%5c", "%5C", ";", ";x=1", "%3b", "%3f",
                "%23", "..", ".", "%2e", "%252f", "%20", ".JS", "%61", "[1]", "|", "%00", "\u{e9}", "%C3%A9", "\u{212a}",
                "?q=/admin", "%", "~", "%40", "@", "..;", "//",
            ]),
            0..9,
        ),
        policy in 0..POLICIES.len(),
    ) {
        let path = format!("/{}", pieces.concat());
        check(&POLICIES[policy], UnmatchedPolicy::Public, &path);
        check(&POLICIES[policy], UnmatchedPolicy::Refuse, &path);
    }
}
