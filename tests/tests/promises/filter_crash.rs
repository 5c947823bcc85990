//! A VM that traps restarts with its bundle, and admits no request unchecked.

use harness::FakeControlPlane;
use harness::client::{bearer, request_without_credential};
use harness::{Connection, eventually, tools};
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use std::path::{Path, PathBuf};
use token::Fingerprint;
use walrus::ir::BinaryOp;
use walrus::{ExportItem, FunctionBuilder, Module, ValType};

#[tokio::test]
async fn trapped_vm_restarts_with_bundle_and_never_admits() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut control_plane = FakeControlPlane::start_with(|settings| settings.wasm = wasm).await;
    let (good, revoked) = (control_plane.token(), control_plane.token());
    control_plane.content.revoke(control_plane.version, Fingerprint::digest(revoked.as_bytes())).unwrap();
    control_plane.publish();
    let mut workers = control_plane.workers().await;
    harness::Envoy::wait_refusing(&mut workers, &revoked, 401, "revoked").await;

    // From now on shared data is the only source of the bundle.
    control_plane.stop_responding();
    for round in 0..ROUNDS {
        for worker in &mut workers {
            let trap = worker.send(trap(&good)).await.unwrap();
            assert_eq!(trap.status, 503, "round {round}: the request that trapped");
            recovers(worker, &good, &revoked).await;
        }
    }
    let reloaded = control_plane.envoy.stats("^wasm.keystile.vm_reload_success$").await.unwrap();
    assert_eq!(reloaded.values().sum::<u64>(), 2 * ROUNDS, "VMs that trapped and came back");
}

/// When the VM that fetches for the others traps, the next version still reaches every worker.
#[tokio::test]
async fn bundle_published_after_trap_reaches_every_worker() {
    let folder = tempfile::TempDir::new().unwrap();
    let wasm = trapping(&tools::wasm().unwrap(), folder.path());
    let mut control_plane = FakeControlPlane::start_with(|settings| settings.wasm = wasm).await;
    let mut workers = control_plane.workers().await;
    for trapped in 0..workers.len() {
        let victim = control_plane.token();
        workers[trapped].send(trap(&victim)).await.unwrap().expect(503).unwrap();
        control_plane.content.revoke(control_plane.version, Fingerprint::digest(victim.as_bytes())).unwrap();
        control_plane.publish();
        harness::Envoy::wait_refusing(&mut workers, &victim, 401, "revoked").await;
    }
}

/// Checks every response until the worker admits again.
async fn recovers(worker: &mut Connection, good: &str, revoked: &str) {
    eventually("the VM is back", async || {
        let refused = worker.get(revoked).await?.status;
        assert!([401, 503].contains(&refused), "a revoked token got {refused}");
        let refused = worker.send(request_without_credential()).await?.status;
        assert!([401, 503].contains(&refused), "no credential got {refused}");
        worker.get(good).await?.expect(200)
    })
    .await;
    let refused = worker.get(revoked).await.unwrap().expect(401).unwrap();
    assert_eq!(refused.code(), "revoked");
}

pub(crate) fn trap(token: &str) -> Request<String> {
    let mut request = bearer(token);
    for number in 0..HEADERS {
        let name = HeaderName::try_from(format!("x-{number}")).unwrap();
        request.headers_mut().append(name, HeaderValue::from_static("v"));
    }
    request
}

/// Returns the filter with an instruction before its request callback that traps at a number of headers.
pub(crate) fn trapping(filter: &Path, folder: &Path) -> PathBuf {
    let mut module = Module::from_file(filter).unwrap();
    let export = module.exports.iter().find(|export| export.name == CALLBACK).expect(CALLBACK);
    let (export, ExportItem::Function(original)) = (export.id(), export.item) else {
        panic!("{CALLBACK} is not a function")
    };
    let mut wrapper = FunctionBuilder::new(&mut module.types, &[ValType::I32; 3], &[ValType::I32]);
    let [context, headers, end_of_stream] = [(); 3].map(|()| module.locals.add(ValType::I32));
    wrapper
        .func_body()
        .local_get(headers)
        .i32_const(HEADERS)
        .binop(BinaryOp::I32GeS)
        .if_else(
            None,
            |many| {
                many.unreachable();
            },
            |_| (),
        )
        .local_get(context)
        .local_get(headers)
        .local_get(end_of_stream)
        .call(original);
    let wrapper = wrapper.finish(vec![context, headers, end_of_stream], &mut module.funcs);
    module.exports.get_mut(export).item = ExportItem::Function(wrapper);
    let path = folder.join("trapping.wasm");
    module.emit_wasm_file(&path).unwrap();
    path
}

const CALLBACK: &str = "proxy_on_request_headers";
const HEADERS: i32 = 80;
const ROUNDS: u64 = 5;
