//! A condition on the client address uses the address that Envoy determines: that of the connection with
//! `use_remote_address`.

use harness::client::{Connection, Response, bearer};
use harness::{FakeControlPlane, eventually};
use hyper::Uri;
use serde_json::json;
use token::Claims;
use verdict::permission::Permissions;

#[tokio::test]
async fn client_address_is_that_of_the_connection() {
    // Without `use_remote_address`, Envoy uses a header that a client can set, as POLICY.md states.
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
            eventually("the edge has the grants", async || {
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
