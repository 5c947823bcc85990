//! A request with a cached credential needs a fixed number of allocations, regardless of the size of its token.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

#[path = "verdict/fixtures.rs"]
#[expect(dead_code, reason = "the other tests use all of it")]
mod fixtures;

use token::{
    Claims,
    api_key::{ApiKeyFields, Kind, MintingKey, Prefix},
};
use verdict::{Cache, Decision, Forward, Gate, Request, Snapshot, SoftwareVerifier};

use crate::fixtures::{NOW, NOW_MS, bearer, builder, claims, gate_with, set_grant, signing_key, snapshot};

/// Counts the allocations of the current thread.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "there is no other way to see what is allocated")]
// SAFETY: All calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: As above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: As above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Returns the numbers of allocations of a decision and of the forwarded headers.
fn allocations(gate: &Gate, snapshot: &Snapshot, more: &[(&str, &str)]) -> (usize, usize) {
    let usual = [
        (":method", "GET"),
        (":path", "/sims/89811000?x=1"),
        (":authority", "api.example.com"),
        ("user-agent", "test"),
        ("accept", "*/*"),
        ("x-request-id", "a"),
    ];
    let headers: Vec<_> = usual.iter().chain(more).map(|(name, value)| (*name, value.as_bytes())).collect();
    let request = Request { headers: &headers, peer: None, snapshot: Some(snapshot), now: NOW_MS };
    let mut cache = Cache::new(64, b"seed");
    let cold = gate.decide_with(&request, &mut cache, &SoftwareVerifier);
    assert!(matches!(cold, Decision::Admit(_)), "{cold:?}");
    let before = COUNT.get();
    let warm = gate.decide_with(&request, &mut cache, &SoftwareVerifier);
    let decided = COUNT.get();
    let forwarded = gate.forward_headers(&headers, &warm, NOW_MS);
    let done = COUNT.get();
    assert_eq!((&warm, cache.take_counts().0), (&cold, 1));
    let Forward::Edited { added, .. } = forwarded else { panic!("{forwarded:?}") };
    assert!(added.iter().any(|(name, _)| *name == "x-keystile-subject"));
    (decided - before, done - decided)
}

#[test]
fn cached_requests_need_few_allocations() {
    let mut builder = builder();
    builder.set_secret_keys([bundle::builder::SecretKey::Tag { generation: 1, secret: &[1; 32] }]).unwrap();
    set_grant(&mut builder, "OP0123456789/alice", r#"{"statements":[{"effect":"allow","api":"Sim:*"}]}"#);
    let rules = r#""rules": [{ "path": "/sims/{sim_id}", "permission": "Sim:getSim" }]"#;
    let small = bearer(&claims());
    let large = bearer(&Claims { jti: "j".repeat(4000), ..claims() });
    let minting = MintingKey::new(2, Kind::Signed, &[1; 32]).unwrap();
    builder.set_public_keys([signing_key().verifying_key()], [minting.generation_key()]).unwrap();
    let snapshot = snapshot(&mut builder);
    let contents = ApiKeyFields {
        prefix: &Prefix::default(),
        operator: "OP0123456789",
        number: 7,
        issued_at: NOW,
        expires_at: Some(NOW + 60),
        random: [7; 4],
        username: "OP0123456789/alice",
    };
    let key = minting.mint(&contents).unwrap();
    let old = MintingKey::new(1, Kind::Format1, &[1; 32]).unwrap().mint(&contents).unwrap();
    let api_key: [(&str, &str); 2] = [("x-api-token", key.expose()), ("x-username", "OP0123456789/alice")];
    let format1: [(&str, &str); 2] = [("x-api-token", old.expose()), ("x-username", "OP0123456789/alice")];
    for (members, headers, most) in [
        // The lists of removed and added headers.
        (r#""realm": "x""#.to_owned(), &[("authorization", &small[..])][..], (0, 2)),
        (r#""realm": "x""#.to_owned(), &[("authorization", &large)], (0, 2)),
        (r#""api_keys": {}"#.to_owned(), &api_key, (0, 2)),
        (r#""api_keys": {}"#.to_owned(), &format1, (0, 2)),
        // The segments of the path and its variables.
        (rules.to_owned(), &[("authorization", &small)], (2, 2)),
        (rules.to_owned(), &[("authorization", &large)], (2, 2)),
    ] {
        let (decided, forwarded) = allocations(&gate_with(&members), &snapshot, headers);
        assert!(decided <= most.0 && forwarded <= most.1, "{members}: {decided} and {forwarded}");
    }
}
