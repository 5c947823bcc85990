//! A condition on the address of a client goes by what Envoy takes for it: the connection, where Envoy is told so.

use harness::client::{Connection, Response, bearer};
use harness::{FakeControlPlane, eventually};
use hyper::Uri;
use serde_json::json;
use token::Claims;
use verdict::permission::Permissions;

#[tokio::test]
async fn client_address_is_that_of_the_connection() {
    // Without `use_remote_address`, Envoy believes what a client writes: POLICY.md says so.
    for (use_remote_address, admitted, refused) in
        [(true, "connected", "written"), (false, "written", "connected")]
    {
        let mut control_plane = FakeControlPlane::start_with(|settings| {
            settings.use_remote_address = use_remote_address;
            settings.plugin_configuration["rules"] =
                json!([{ "path": "/" }, { "path": "/sim", "permission": "Sim:getSim" }]);
        })
        .await;
        let token = |user| {
            let sub = format!("OP0000000001/{user}");
            control_plane.mint(&Claims { sub, ..control_plane.claims() })
        };
        let (admitted, refused) = (token(admitted), token(refused));
        for (user, network) in [("connected", "127.0.0.0/8"), ("written", "203.0.113.0/24")] {
            let condition = format!("ipAddress('{network}')");
            let allow = json!({ "effect": "allow", "api": "Sim:getSim", "condition": condition });
            let grant = json!({ "statements": [allow] }).to_string();
            let grant = Permissions::from_json(grant.as_bytes()).unwrap();
            control_plane.content.set_grant(&format!("OP0000000001/{user}"), grant.as_bytes()).unwrap();
        }
        control_plane.publish();
        for mut worker in control_plane.workers().await {
            eventually("the grants are there", async || {
                ask(&mut worker, &admitted).await?.expect(200).map(drop)
            })
            .await;
            let answer = ask(&mut worker, &refused).await.unwrap().expect(403).unwrap();
            assert_eq!(answer.code(), "permission_denied");
        }
    }
}

async fn ask(worker: &mut Connection, token: &str) -> anyhow::Result<Response> {
    let mut request = bearer(token);
    *request.uri_mut() = Uri::from_static("/sim");
    request.headers_mut().insert("x-forwarded-for", "203.0.113.7".parse()?);
    worker.send(request).await
}
