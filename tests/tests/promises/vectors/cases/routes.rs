//! Which rule a request matches, and requests that match several for different readers.

use super::super::keys::{Key, claims, token};
use super::super::suite::{Suite, With as _, request};
use serde_json::json;

pub(super) fn add(suite: &mut Suite) {
    let good = token(Key::EdDsa, &claims(json!({})));
    let mut group = suite.group(
        "routes",
        json!({
            "rules": [
                { "path": "/healthz", "access": "public" },
                { "path": "/docs/**", "methods": ["GET"], "access": "optional" },
                { "path": "/sims/{sim_id}", "methods": ["GET", "PUT"] },
                { "path": "/sims/{sim_id}/tags", "methods": ["POST"] },
                { "path": "/files/**", "access": "public" },
                { "path": "/admin" },
                { "path": "/v1/users/{id}", "access": "public" },
                { "path": "/v1/users/{id}:suspend", "methods": ["POST"] },
                { "path": "/assets/**/*.js", "access": "public" },
                { "path": "/projects/{id}", "access": "public", "encoded_slash": "segment" },
                { "path": "/projects/{id}/members" },
                { "path": "/internal", "hosts": ["*.cluster.local", "admin.example.com"], "access": "public" },
                { "path": "/cors", "methods": ["POST"], "preflight": "pass" },
                { "path": "/own/{user}", "claims": { "sub": { "path_variable": "user" } } },
            ],
        }),
    );
    group.passes("public", request("GET /healthz"));
    group.passes("public, with a credential that stays", request("GET /healthz").bearer(&good));
    group.passes("public, with a bad credential", request("GET /healthz").bearer("abc"));
    group.passes("public, with a query", request("GET /healthz?verbose=1"));
    group.passes("optional without a credential", request("GET /docs/a/b"));
    group.admits("optional with a credential", request("GET /docs").bearer(&good));
    group.refuses("optional with a bad credential", "token_malformed", request("GET /docs").bearer("abc"));
    group.admits("variable", request("GET /sims/8981100000000000000").bearer(&good));
    group.admits("HEAD is like GET", request("HEAD /sims/1").bearer(&good));
    group.admits("second method", request("PUT /sims/1").bearer(&good));
    group.refuses("without a credential", "credential_missing", request("GET /sims/1"));
    group.refuses("another method", "method_not_allowed", request("DELETE /sims/1").bearer(&good));
    group.refuses("another method without a credential", "method_not_allowed", request("GET /sims/1/tags"));
    group.refuses("no such path", "route_unmatched", request("GET /nothing").bearer(&good));
    group.refuses("no such path, without a credential", "route_unmatched", request("GET /"));
    group.refuses("a variable is not empty", "route_unmatched", request("GET /sims").bearer(&good));
    group.refuses("method in lower case", "method_malformed", request("get /sims/1").bearer(&good));

    let ambiguous = |group: &mut super::super::suite::Group<'_>, code: &str, paths: &[&str]| {
        for path in paths {
            let request = request(&format!("GET {path}")).bearer(&good);
            group.refuses(&format!("path {path}"), code, request);
        }
    };
    ambiguous(&mut group, "path_empty_segment", &["//admin", "/sims//1", "/files//a"]);
    ambiguous(&mut group, "path_dot_segment", &["/files/../admin", "/files/.", "/sims/1/.."]);
    ambiguous(
        &mut group,
        "path_not_canonical",
        &["/%61dmin", "/files/%7ea", "/sims/a%2D1", "/files/%2e%2e/admin"],
    );
    ambiguous(&mut group, "path_double_encoding", &["/files/%252e%252e/admin", "/sims/%252f"]);
    ambiguous(&mut group, "path_malformed", &["/files/%zz", "/files/%0a", "/files/%ff"]);
    ambiguous(
        &mut group,
        "path_encoded_separator",
        &["/sims%2f1", "/sims/1%2Ftags", "/files/..%2Fadmin", "/admin%3fa", "/admin%23a", "/sims%5c1"],
    );
    ambiguous(&mut group, "path_parameters", &["/admin;a=1", "/admin%3Ba"]);
    ambiguous(&mut group, "path_read_alike", &["/v1/users/7:Suspend"]);
    ambiguous(
        &mut group,
        "route_unmatched",
        &["/admin/", "/sims/1/", "/Admin", "/admin%20", "/assets/app.JS"],
    );
    group.admits("path parameters that change no rule", request("GET /sims/1;a=1").bearer(&good));
    let long = format!("/files/{}", "a".repeat(8186));
    group.refuses("path of 8,193 bytes", "path_too_long", request(&format!("GET {long}")));
    group.refuses("path of 65 segments", "path_too_long", request(&format!("GET /files{}", "/a".repeat(64))));
    for path in ["/files/a;v=1", "/files/C%23", "/files/a%2Fb", "/files/%E5%BC%A0", "/files/a,b:c@d"] {
        group.passes(&format!("path {path}"), request(&format!("GET {path}")));
    }
    group.passes("encoded slash by rule", request("GET /projects/group%2Fproject"));
    group.refuses(
        "encoded slash of another rule",
        "path_encoded_separator",
        request("GET /projects/7%2Fmembers"),
    );
    group.admits("custom verb", request("POST /v1/users/7:suspend").bearer(&good));
    group.refuses(
        "custom verb without a credential",
        "credential_missing",
        request("POST /v1/users/7:suspend"),
    );
    group.refuses("a variable takes no verb", "method_not_allowed", request("GET /v1/users/7:suspend"));
    group.refuses(
        "verb with an encoded colon",
        "path_not_canonical",
        request("POST /v1/users/7%3Asuspend").bearer(&good),
    );
    group.passes("extension", request("GET /assets/x/app.min.js"));
    group.passes("host below", request("GET /internal").to_host("svc.ns.cluster.local"));
    group
        .passes("host in upper case with a port", request("GET /internal").to_host("ADMIN.example.com:8443"));
    group.passes("host with a dot at its end", request("GET /internal").to_host("admin.example.com."));
    group.refuses("another host", "route_unmatched", request("GET /internal"));
    group.refuses(
        "host with a name like the suffix",
        "route_unmatched",
        request("GET /internal").to_host("badcluster.local"),
    );
    group.refuses(
        "host with a user",
        "host_malformed",
        request("GET /internal").to_host("admin.example.com:a@b"),
    );
    let preflight = |method: &str| {
        request("OPTIONS /cors")
            .with("origin", "https://a.example")
            .with("access-control-request-method", method)
    };
    group.passes("preflight", preflight("POST"));
    group.refuses("preflight for another method", "method_not_allowed", preflight("DELETE"));
    group.refuses(
        "OPTIONS without the headers of a preflight",
        "method_not_allowed",
        request("OPTIONS /cors"),
    );
    let alice = token(Key::EdDsa, &claims(json!({ "sub": "alice" })));
    group.admits("variable in a claim", request("GET /own/alice").bearer(&alice));
    group.refuses(
        "variable in a claim, of another user",
        "claim_missing",
        request("GET /own/bob").bearer(&alice),
    );

    let mut group = suite.group(
        "routes below a public rule",
        json!({
            "rules": [
                { "path": "/admin" },
                { "path": "/reports/{id}" },
                { "path": "/**/*.js", "access": "public" },
                { "path": "/**", "access": "public" },
            ],
        }),
    );
    group.passes("another path", request("GET /anything/else"));
    group.admits("the path of a rule", request("GET /admin").bearer(&good));
    for (code, paths) in [
        ("path_trailing_slash", &["/admin/", "/reports/1/"][..]),
        ("path_read_alike", &["/Admin", "/admin%20", "/admin.", "/ADMIN/", "/admin.js"]),
        ("path_parameters", &["/admin;a=1", "/reports;/1"]),
        ("path_encoded_separator", &["/reports%2f1", "/admin%3f", "/admin%23"]),
        ("path_not_canonical", &["/%61dmin"]),
        ("path_dot_segment", &["/x/../admin", "/./admin"]),
        ("path_empty_segment", &["//admin"]),
    ] {
        for path in paths {
            group.refuses(&format!("path {path}"), code, request(&format!("GET {path}")).bearer(&good));
        }
    }

    let mut group = suite.group(
        "routes with exact case",
        json!({ "path_case": "exact", "rules": [{ "path": "/admin" }, { "path": "/**", "access": "public" }] }),
    );
    group.passes("another case is another path", request("GET /Admin"));
    group.refuses("the path of the rule", "credential_missing", request("GET /admin"));

    for (unmatched, status) in [("public", 0), ("optional", 0), ("required", 401)] {
        let mut group = suite.group(
            &format!("unmatched {unmatched}"),
            json!({ "unmatched": unmatched, "rules": [{ "path": "/admin" }] }),
        );
        match status {
            0 => group.passes("another path", request("GET /x")),
            _ => group.refuses("another path", "credential_missing", request("GET /x")),
        }
        group.refuses("the path of the rule", "credential_missing", request("GET /admin"));
    }

    let table = "method\tpath\toperation\nGET\t/sims/{sim_id}\tSim:getSim\nDELETE\t/sims/{sim_id}\tSim:deleteSim\nPOST\t/auth\tAuth:auth\nPOST\t/auth/logout\tAuth:logout";
    let mut group = suite.group(
        "table of operations",
        json!({ "rules": [{ "operations": { "table": table, "prefix": "/v1", "public": ["Auth:auth"] } }] }),
    );
    group.passes("public operation", request("POST /v1/auth"));
    group.admits("permitted operation", request("GET /v1/sims/1").bearer(&good));
    group.refuses(
        "operation that is not permitted",
        "permission_denied",
        request("DELETE /v1/sims/1").bearer(&good),
    );
    group.admits("exempt operation", request("POST /v1/auth/logout").bearer(&good));
    group.refuses("without the prefix", "route_unmatched", request("POST /auth"));
    group.refuses("without a credential", "credential_missing", request("GET /v1/sims/1"));
}
