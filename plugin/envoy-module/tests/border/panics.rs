//! A panic in a hook refuses the request, is counted, and never unwinds into the host.

use keystile_envoy_module::abi::{self, Hook, panics};

use crate::{
    bearer,
    fixtures::ControlPlane,
    headers,
    host::{Config, Route, logged},
};

#[test]
fn panic_in_any_hook_is_caught() {
    let control_plane = ControlPlane::new();
    let json = control_plane.inline_configuration().to_string();
    let authorization = bearer(&control_plane.token());
    for hook in Hook::ALL {
        let config = Config::new(&json).unwrap();
        let request = headers(&authorization, &[]);
        let stream = config.stream(&request).unwrap();
        let mut admits = true;
        panics::arm(hook);
        let counted = match hook {
            Hook::ProgramInit => {
                assert!(abi::envoy_dynamic_module_on_program_init().is_null());
                0
            }
            Hook::ConfigNew => {
                assert!(Config::new(&json).is_none());
                0
            }
            Hook::ConfigDestroy => {
                drop(Config::new(&json));
                0
            }
            Hook::ConfigScheduled => {
                config.tick();
                1
            }
            Hook::ConfigHttpCalloutDone => {
                config.respond(1, Some(200), &[]);
                1
            }
            Hook::RouteNew => {
                assert!(Route::new(&json).is_none());
                0
            }
            Hook::RouteDestroy => {
                drop(Route::new(&json));
                0
            }
            Hook::FilterNew => {
                assert!(config.stream(&request).is_none());
                1
            }
            Hook::FilterDestroy => {
                let other = config.stream(&request).unwrap();
                assert!(other.request_headers());
                drop(other);
                1
            }
            Hook::RequestHeaders => {
                assert!(!stream.request_headers());
                assert_eq!(stream.reply().unwrap().status, 503);
                admits = false;
                1
            }
            Hook::RequestTrailers => {
                assert!(stream.request_headers());
                assert!(!stream.request_trailers(Some(&[("a", "b")])));
                assert_eq!(stream.reply().unwrap().status, 503);
                admits = false;
                1
            }
            Hook::StreamComplete => {
                assert!(stream.request_headers());
                stream.complete();
                admits = false;
                1
            }
            Hook::Scheduled => {
                assert!(stream.request_headers());
                stream.deliver_event(0);
                assert_eq!(stream.reply().unwrap().status, 503);
                admits = false;
                1
            }
        };
        assert_eq!(panics::armed(), None, "{hook:?} has not panicked");
        if admits {
            assert!(stream.request_headers(), "{hook:?}");
        }
        drop(stream);
        let after = config.stream(&request).unwrap();
        assert!(after.request_headers(), "{hook:?}: the next request is decided");
        config.tick();
        assert_eq!(config.metric("keystile_panics"), counted, "{hook:?}");
    }
}

/// A panic while the state of the worker is locked.
#[test]
fn worker_goes_on_after_panic_in_decision() {
    let control_plane = ControlPlane::new();
    let config = Config::new(&control_plane.inline_configuration().to_string()).unwrap();
    let authorization = bearer(&control_plane.token());
    for _ in 0..3 {
        let request = headers(&authorization, &[("x-keystile-test-panic", "1")]);
        let panicking = config.stream(&request).unwrap();
        assert!(!panicking.request_headers());
        assert_eq!(panicking.reply().unwrap().status, 503);
        let next = config.stream(&headers(&authorization, &[])).unwrap();
        assert!(next.request_headers());
    }
    config.tick();
    assert_eq!([config.metric("keystile_panics"), config.metric("keystile_admitted")], [3, 3]);
}

#[test]
fn log_names_place_of_panic_without_its_message() {
    // Other tests of this process need their messages.
    let hook = std::panic::take_hook();
    assert!(!abi::envoy_dynamic_module_on_program_init().is_null());
    let caught = std::panic::catch_unwind(|| panic!("a credential"));
    std::panic::set_hook(hook);
    assert!(caught.is_err());
    assert!(logged("5 keystile: panicked at plugin/envoy-module/tests/border/panics.rs"));
    assert!(!logged("a credential"));
}
