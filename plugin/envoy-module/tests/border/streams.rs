//! Open streams end when their credential would be refused.

use std::time::Duration;

use crate::{
    bearer,
    fixtures::ControlPlane,
    headers,
    host::{Config, Route, Stream},
};

struct Edge {
    control_plane: ControlPlane,
    config: Config,
}

impl Edge {
    fn start() -> Self {
        let control_plane = ControlPlane::new();
        let config = Config::new(&control_plane.configuration().to_string()).unwrap();
        config.deliver();
        control_plane.serve(&config);
        Self { control_plane, config }
    }

    fn open(&self, token: &str, worker: u32) -> Stream {
        self.open_on(token, worker, None)
    }

    fn open_on(&self, token: &str, worker: u32, route: Option<&Route>) -> Stream {
        let authorization = bearer(token);
        let request = headers(&authorization, &[("x-request-id", "id-1")]);
        let stream = self.config.stream_with(&request, |prepared| {
            prepared.worker = worker;
            if let Some(route) = route {
                prepared.route = route.0;
            }
        });
        let stream = stream.unwrap();
        assert!(stream.request_headers());
        stream
    }

    fn revoke(&mut self, token: &str) {
        self.control_plane.revoke(token);
        self.config.tick();
        self.control_plane.serve(&self.config);
    }
}

/// Delivers events as the timer commits them, until a condition is true.
fn deliver_until(streams: &[&Stream], is_done: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_done() {
            return;
        }
        streams.iter().for_each(|stream| {
            stream.deliver();
        });
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never happens");
}

#[test]
fn revoked_stream_ends_and_others_stay() {
    let mut edge = Edge::start();
    let (bad, good) = (edge.control_plane.token(), edge.control_plane.token());
    let streams = [edge.open(&bad, 0), edge.open(&good, 0), edge.open(&bad, 1), edge.open(&good, 1)];
    edge.revoke(&bad);
    let all: Vec<_> = streams.iter().collect();
    deliver_until(&all, || streams[0].reply().is_some() && streams[2].reply().is_some());
    for (stream, is_ended) in streams.iter().zip([true, false, true, false]) {
        let reply = stream.reply();
        assert_eq!(reply.is_some(), is_ended);
        if let Some(reply) = reply {
            assert_eq!((reply.status, &*reply.details), (401, "keystile_ended_revoked"));
            assert!(reply.headers.contains(&("x-request-id".to_owned(), b"id-1".to_vec())), "{reply:?}");
            assert_eq!(stream.state("keystile.reason").as_deref(), Some("revoked"));
        }
    }
    edge.config.tick();
    assert_eq!(edge.config.metric("keystile_ended_revoked"), 2);
}

/// Every way in which a stream can end between its refusal and the event that ends it.
#[test]
fn stream_that_ends_by_itself_is_not_touched_again() {
    let mut edge = Edge::start();
    let bad = edge.control_plane.token();
    let beacon = edge.open(&edge.control_plane.token(), 0);
    let completes = edge.open(&bad, 0);
    let is_destroyed = edge.open(&bad, 0);
    let answers = edge.open(&bad, 0);
    answers.complete_in_answer();
    edge.revoke(&bad);
    // Only the beacon gets its event: the others have theirs in the queue.
    for _ in 0..200 {
        beacon.deliver_event(0);
    }
    completes.complete();
    assert_eq!(completes.deliver(), 1, "Envoy delivers it to a stream that is complete");
    is_destroyed.destroy_early();
    assert_eq!(answers.deliver(), 1);
    assert_eq!(answers.reply().unwrap().details, "keystile_ended_revoked");
    assert_eq!(completes.reply(), None);
    drop((completes, answers, beacon));
    edge.config.tick();
    assert_eq!(edge.config.metric("keystile_ended_revoked"), 1);
}

#[test]
fn worker_is_woken_by_another_stream_after_the_first_has_ended() {
    let mut edge = Edge::start();
    let bad = edge.control_plane.token();
    let mut streams: Vec<Stream> = (0..20).map(|_| edge.open(&edge.control_plane.token(), 0)).collect();
    let last = edge.open(&bad, 0);
    // In an order that is neither that of their begin nor its reverse.
    while !streams.is_empty() {
        let at = streams.len() * 7 % 5 % streams.len();
        drop(streams.swap_remove(at));
    }
    edge.revoke(&bad);
    deliver_until(&[&last], || last.reply().is_some());
}

#[test]
fn stream_of_a_route_outlives_its_configuration() {
    let mut edge = Edge::start();
    let bad = edge.control_plane.token();
    let route = Route::new(&edge.control_plane.configuration().to_string()).unwrap();
    let stream = edge.open_on(&bad, 1, Some(&route));
    drop(route);
    edge.revoke(&bad);
    deliver_until(&[&stream], || stream.reply().is_some());
    assert_eq!(stream.reply().unwrap().details, "keystile_ended_revoked");
}

/// A request for a manifest waits at most 50 ms for the workers, and reports which of them have not checked their streams.
#[test]
fn status_reports_unchecked_streams() {
    let mut edge = Edge::start();
    let (bad, good) = (edge.control_plane.token(), edge.control_plane.token());
    let (ended, kept) = (edge.open(&bad, 0), edge.open(&good, 1));
    edge.revoke(&bad);
    wait_for_status(&edge, &[], "version=2; workers=2; oldest=1; lagging=2");
    deliver_until(&[&ended, &kept], || ended.reply().is_some());
    drop(ended);
    edge.revoke(&edge.control_plane.token());
    wait_for_status(&edge, &[&kept], "version=3; workers=2; oldest=3; lagging=0");
}

/// Waits until the edge requests a manifest with this status.
fn wait_for_status(edge: &Edge, streams: &[&Stream], status: &str) {
    let is_asked = || {
        edge.config.tick();
        let callouts = edge.config.take_callouts();
        let mut headers = callouts.iter().flat_map(|callout| &callout.headers);
        let expected = ("x-keystile-edge-status".to_owned(), status.as_bytes().to_vec());
        let is_asked = headers.any(|header| *header == expected);
        edge.config.put_back(callouts);
        is_asked
    };
    deliver_until(streams, is_asked);
}
