//! An example: Keystile on Fastly Compute.
//!
//! A Compute instance serves one request, so the bundle is in the cache of the data center: one request fetches it, and all
//! requests of the next two seconds read it there. `docs/javascript/fastly.md` describes the set-up.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastly::{
    Body, ConfigStore, Error, Request, Response, SecretStore,
    cache::simple::{CacheEntry, get_or_set_with},
    http::HeaderValue,
};
use verdict::{
    Cache, Decision, Entry, FetchRequest, FetchStep, Fingerprint, Forward, ForwardedHeader, Gate,
    InlineBundle, Policy, Refresh, Request as Head, SoftwareVerifier,
};

/// The stores and backends of the service.
const CONFIG_STORE: &str = "keystile";
const SECRET_STORE: &str = "keystile";
const CONTROL_PLANE: &str = "keystile";
const ORIGIN: &str = "origin";

/// How long a data center uses a bundle before it looks for a newer one.
const BUNDLE_TTL: Duration = Duration::from_secs(2);

#[fastly::main]
fn main(mut request: Request) -> Result<Response, Error> {
    let now = now_ms();
    let text = ConfigStore::open(CONFIG_STORE).get("policy").unwrap_or_default();
    let Ok(policy) = Policy::from_json(text.as_bytes()) else {
        return Ok(unavailable("the policy is invalid"));
    };
    let mut refresh = refresh_of(&policy);
    // Any failure leaves the gate without a bundle: it refuses.
    if let Ok(Some(bundle)) = get_or_set_with(bundle_key(&text), || fetch_bundle(&policy, now)) {
        load(&mut refresh, &bundle.into_bytes(), now);
    }
    let gate = Gate::new(policy);
    let headers = headers_of(&request);
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
    let snapshot = refresh.current().map(|current| &**current);
    let head = Head { headers: &headers, peer: request.get_client_ip_addr(), snapshot, now };
    let decision = gate.decide_with(&head, &mut Cache::disabled(), &SoftwareVerifier);
    if let Decision::Refuse(refusal) = &decision {
        let response = gate.response(refusal, &headers);
        let mut answer = Response::from_status(response.status).with_body(response.body);
        for (name, value) in response.headers {
            answer.append_header(name, value);
        }
        return Ok(answer);
    }
    match gate.forward_headers(&headers, &decision, now) {
        Forward::Unchanged => {}
        Forward::Edited { removed, added } => {
            removed.into_iter().for_each(|name| drop(request.remove_header(name)));
            added.into_iter().for_each(|header| append(&mut request, header));
        }
        Forward::ReplaceAll(kept) => {
            let names: Vec<_> = request.get_header_names().cloned().collect();
            names.into_iter().for_each(|name| drop(request.remove_header(name)));
            for (name, value) in kept {
                match name {
                    ":path" => set_path(&mut request, &value),
                    _ if name.starts_with(':') => {}
                    _ => append(&mut request, (name, value)),
                }
            }
        }
    }
    Ok(request.send(ORIGIN)?)
}

/// Returns the headers of a request with the pseudo-headers that rules and credentials in the query need.
fn headers_of(request: &Request) -> Vec<(String, Vec<u8>)> {
    let url = request.get_url();
    let target = url.query().map_or_else(|| url.path().into(), |query| format!("{}?{query}", url.path()));
    let mut headers = vec![
        (":method".into(), request.get_method_str().into()),
        (":path".into(), target.into_bytes()),
        (":authority".into(), url.authority().as_bytes().to_vec()),
    ];
    let others = request.get_headers().filter(|(name, _)| name.as_str() != "host");
    headers.extend(others.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())));
    headers
}

fn append(request: &mut Request, (name, value): ForwardedHeader<'_>) {
    // The core makes valid values only.
    if let Ok(value) = HeaderValue::from_bytes(&value) {
        request.append_header(name, value);
    }
}

fn set_path(request: &mut Request, target: &[u8]) {
    let target = String::from_utf8_lossy(target);
    let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
    request.get_url_mut().set_path(path);
    request.get_url_mut().set_query(query);
}

fn refresh_of(policy: &Policy) -> Refresh {
    let (roots, audience) = (policy.root_keys.clone(), policy.audience.clone());
    Refresh::new(roots, audience, 0, policy.max_manifest_lifetime_seconds, policy.minimum_position())
}

/// Another policy has another bundle.
fn bundle_key(policy: &str) -> String {
    format!("keystile-bundle-{}", Fingerprint::digest(policy.as_bytes()))
}

/// Fetches the bundle: the manifest, then its objects, each with its length in front.
fn fetch_bundle(policy: &Policy, now: u64) -> Result<CacheEntry, Error> {
    let mut refresh = refresh_of(policy);
    let mut objects: Vec<(Entry, Vec<u8>)> = Vec::new();
    let mut is_ready = false;
    while !is_ready {
        let Some(request) = refresh.poll(now) else { break };
        let (status, body) = send(request);
        match refresh.handle_response(request, status, body, now, 0)? {
            FetchStep::Pending => {}
            FetchStep::Share(more) => objects.extend(more),
            FetchStep::Ready(more) => {
                objects.extend(more);
                is_ready = true;
            }
        }
    }
    let current = refresh.current().ok_or_else(|| Error::msg("the control plane has no bundle"))?;
    let mut bytes = Vec::new();
    for part in
        std::iter::once(current.manifest().bytes()).chain(objects.iter().map(|(_, bytes)| bytes.as_slice()))
    {
        bytes.extend(u32::try_from(part.len())?.to_be_bytes());
        bytes.extend(part);
    }
    Ok(CacheEntry { value: Body::from(bytes), ttl: BUNDLE_TTL })
}

/// Status 0: there is no response.
fn send(request: FetchRequest) -> (u16, Vec<u8>) {
    let mut call = Request::get(format!("https://keystile{}", request.path())).with_pass(true);
    let credential = SecretStore::open(SECRET_STORE).ok().and_then(|store| store.get("credential"));
    if let Some(credential) = credential {
        let credential = String::from_utf8_lossy(&credential.plaintext()).into_owned();
        call.set_header("authorization", format!("Bearer {credential}"));
    }
    if let Some(etag) = request.etag() {
        call.set_header("if-none-match", etag);
    }
    match call.send(CONTROL_PLANE) {
        Ok(mut response) => (response.get_status().as_u16(), response.take_body_bytes()),
        Err(_) => (0, Vec::new()),
    }
}

fn load(refresh: &mut Refresh, bundle: &[u8], now: u64) {
    let Some(bundle) = InlineBundle::from_bytes(bundle) else { return };
    // A refused bundle is not used, and the current one stays.
    let _ = refresh.load_inline(&bundle, now);
}

fn unavailable(why: &str) -> Response {
    eprintln!("keystile: {why}");
    Response::from_status(503).with_header("cache-control", "no-store")
}

/// Without a clock, no bundle is fresh.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
