//! One fuzz target per decoder. `cargo test` runs each briefly, and `cargo bolero test` runs one for long.

use bolero::check;
use verdict::{
    Gate, Lease, Policy,
    permission::{AccessRequest, Permissions, evaluate},
};

const REQUEST: AccessRequest<'_> = AccessRequest {
    api: "Sim:getSim",
    user_name: Some("alice"),
    client: None,
    now: 1_700_000_000,
    variables: &[("sim_id", "1")],
};

const WORDS: [&str; 22] = [
    "and",
    "or",
    "not",
    "(",
    ")",
    ",",
    "==",
    "!=",
    "<=",
    "<",
    "'a'",
    "''",
    "07",
    "date",
    "(2023,02,01)",
    "currentDate",
    "ipAddress",
    "('10.0.0.0/8')",
    "('::/0')",
    "pathVariable",
    "('sim_id')",
    "samUserName",
];

#[test]
fn policy() {
    check!().for_each(|bytes| assert!(Policy::from_json(bytes).is_err()));
}

#[test]
fn lease() {
    check!().for_each(|bytes| {
        if let Some(lease) = Lease::from_bytes(bytes) {
            assert_eq!(lease.to_bytes(), bytes, "one spelling");
        }
    });
}

#[test]
fn permission_document() {
    check!().for_each(|bytes| {
        if let Ok(permissions) = Permissions::from_json(bytes) {
            assert_eq!(Permissions::from_bytes(permissions.as_bytes().to_vec()), Ok(permissions));
        }
    });
}

#[test]
fn condition() {
    check!().with_type::<(String, Vec<u8>)>().for_each(|(arbitrary, words)| {
        let words: Vec<&str> = words.iter().map(|word| WORDS[usize::from(*word) % WORDS.len()]).collect();
        for condition in [arbitrary, &words.concat(), &words.join(" ")] {
            let document = serde_json::json!({
                "statements": [{ "effect": "deny", "api": "*", "condition": condition }]
            });
            match Permissions::from_json(document.to_string().as_bytes()) {
                Ok(permissions) => {
                    permissions.decide(&REQUEST);
                    assert_eq!(Permissions::from_bytes(permissions.as_bytes().to_vec()), Ok(permissions));
                }
                Err(error) => assert_eq!(error.statement().unwrap_or(1), 1),
            }
        }
    });
}

#[test]
fn compiled_permissions() {
    let valid = Permissions::from_json(
        br#"{"statements":[{"effect":"deny","api":["Sim:*","*"],"condition":"not ipAddress('10.0.0.0/8') or pathVariable('sim_id') == '1' and currentDate < date(2030,1,1)"},{"effect":"allow","api":"*"}]}"#,
    )
    .unwrap();
    check!().with_type::<(Vec<u8>, Vec<(u16, u8)>)>().for_each(|(arbitrary, edits)| {
        let mut edited = valid.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = usize::from(*at) % edited.len();
            edited[at] = *byte;
        }
        for bytes in [arbitrary, &edited] {
            let decision = evaluate(bytes, &REQUEST);
            if let Ok(permissions) = Permissions::from_bytes(bytes.clone()) {
                assert_eq!(decision, Ok(permissions.decide(&REQUEST)));
            }
        }
    });
}

#[test]
fn request_line() {
    let policy = serde_json::json!({
        "audience": "default",
        "root_keys": ["iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w"],
        "control_plane": { "cluster": "c" },
        "tokens": { "issuer": "i", "audiences": ["a"] },
        "rules": [
            { "path": "/a/{b}", "hosts": ["*.example.com"], "preflight": "pass" },
            { "operations": { "table": include_str!("data/soracom-operations.tsv") } },
        ],
        "unmatched": "public",
        "client_address": { "header": "x-forwarded-for", "trusted_hops": 2 },
    });
    let gate = Gate::new(Policy::from_json(policy.to_string().as_bytes()).unwrap());
    check!().with_type::<[Vec<u8>; 6]>().for_each(|[method, path, host, asked, forwarded, more]| {
        let rooted = [&b"/"[..], path].concat();
        for (method, path) in [(&method[..], &path[..]), (b"OPTIONS", &rooted), (b"GET", &rooted)] {
            let headers = [
                (":method", method),
                (":path", path),
                (":authority", host),
                ("origin", more),
                ("access-control-request-method", asked),
                ("x-forwarded-for", forwarded),
            ];
            let decision = gate.decide(headers.into_iter(), None, 1);
            assert!(!matches!(decision, verdict::Decision::Admit(_)));
        }
    });
}
