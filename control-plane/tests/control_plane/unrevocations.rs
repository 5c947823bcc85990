//! Taking a revocation back, and what can't be.

use control_plane::{
    clock,
    model::Revocation,
    store::{revocations, versions},
};
use serde_json::{Value, json};
use token::Fingerprint;

use crate::{
    on_both,
    world::{World, text},
};

on_both! {
    async fn a_credential_is_good_again_and_may_be_revoked_again(world: World) {
        let server = world.serve();
        let victim = text(&server.exchange(&world.auth_key_id, &world.auth_key).await["token"]);
        let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
        let mut last = 0;
        for _ in 0..3 {
            let revoked = world.json(&["revoke", "--fingerprint", &fingerprint]);
            server.eventually(&world, &victim, 401, "revoked").await;
            let hesitant = world.complaint(&["unrevoke", "--fingerprint", &fingerprint]);
            assert!(hesitant.contains("add --yes"), "{hesitant}");
            let back = world.json(&["unrevoke", "--fingerprint", &fingerprint, "--yes"]);
            server.eventually(&world, &victim, 200, "").await;
            assert_eq!(back["refused_by_watermark"], json!(false));
            let versions = [&revoked, &back].map(|done| done["version"].as_u64().unwrap());
            assert!(last < versions[0] && versions[0] < versions[1]);
            last = versions[1];
        }
        let lines = world.json(&["audit"]);
        let actions: Vec<&Value> = lines.as_array().unwrap().iter().map(|line| &line["action"]).collect();
        assert_eq!(actions.iter().filter(|action| **action == "unrevoke").count(), 3, "{actions:?}");
        assert_eq!(world.json(&["token", "inspect", &victim])["standing"], "good");
    }

    async fn a_watermark_is_never_overridden(world: World) {
        let server = world.serve();
        let victim = world.token();
        let fingerprint = Fingerprint::digest(victim.as_bytes()).to_string();
        world.json(&["revoke", "--fingerprint", &fingerprint]);
        world.json(&["revoke", "--subject", &world.operator, "--yes"]);
        let back = world.json(&["unrevoke", "--fingerprint", &fingerprint, "--yes"]);
        assert_eq!(back["refused_by_watermark"], json!(true));
        server.eventually(&world, &victim, 401, "watermark").await;
    }

    /// What enabling is for is not done here, and what is for ever is for ever.
    async fn an_api_key_comes_back_only_while_it_is_active(world: World) {
        // Whether the key says its end, as most that people make do, or lives for ever.
        for more in [&[][..], &["--expires", "90d"]] {
            let made: Vec<Value> = (0..4)
                .map(|_| world.json(&[&["key", "create", "--user", &world.operator], more].concat()))
                .collect();
            let ids: Vec<String> = made.iter().map(|key| text(&key["key_id"])).collect();
            let fingerprints: Vec<String> = made.iter().map(|key| text(&key["fingerprint"])).collect();
            world.json(&["key", "disable", &ids[0], "--yes"]);
            world.json(&["key", "delete", &ids[1], "--yes"]);
            world.json(&["key", "rotate", &ids[2], "--grace", "0", "--yes"]);
            world.json(&["revoke", "--key-id", &ids[3]]);
            let unrevoke = |at: usize| vec!["unrevoke", "--yes", "--fingerprint", &fingerprints[at]];
            assert!(world.complaint(&unrevoke(0)).contains(&format!("`keystile key enable {}`", ids[0])));
            assert!(world.complaint(&unrevoke(1)).contains("permanent"));
            assert!(world.complaint(&unrevoke(2)).contains("permanent"));
            world.json(&unrevoke(3));
            assert_eq!(world.json(&["key", "show", &ids[3]])["standing"], "active");
        }
    }

    async fn what_is_unknown_or_expired_is_refused(world: World) {
        let fingerprint = Fingerprint::digest(world.token().as_bytes());
        let complain = |fingerprint: &Fingerprint| world.complaint(&["unrevoke", "--yes", "--fingerprint", &fingerprint.to_string()]);
        assert!(complain(&fingerprint).contains("no revocation of this fingerprint is known"));
        world.json(&["revoke", "--fingerprint", &fingerprint.to_string()]);
        world.json(&["unrevoke", "--fingerprint", &fingerprint.to_string(), "--yes"]);
        assert!(complain(&fingerprint).contains("no revocation of this fingerprint is known"));
        let expired = Fingerprint::digest(b"expired");
        let now = clock::now().seconds();
        let mut write = world.store().await.write().await.unwrap();
        let version = versions::allocate(&mut write, clock::now()).await.unwrap();
        let one = Revocation { fingerprint: expired, expires_at: now - 1, reason: None, revoked_at: now - 100 };
        revocations::insert(&mut write, &one, version).await.unwrap();
        write.commit().await.unwrap();
        assert!(complain(&expired).contains("the credential has expired"));
    }
}
