//! The border to Envoy: the functions of its ABI for dynamic modules that this crate uses, safe types over them, and the
//! hooks that Envoy calls. This module contains all unsafe code of the crate.
//!
//! The declarations are those of Envoy's `abi.h` (v0.2.0, Envoy 1.40). Only functions of that version are declared: with a
//! function that an Envoy does not have, it refuses to load the module. An enum of the ABI is a `u32` here, because a
//! number that a Rust enum does not have would be undefined behavior.
//!
//! # Pointers
//!
//! * What Envoy lends (headers, bodies, configurations) is valid until the hook returns. Headers are valid only until one of
//!   them is changed: [`Stream::headers`] borrows the stream, and [`Stream::edit`] needs it exclusively, so that the compiler
//!   refuses to use them afterwards.
//! * What the module lends is valid during the call. Envoy keeps none of it.
//! * What the module gives to Envoy, a [`Plugin`], a [`Filter`] or a [`Route`], comes back with each hook until the hook that
//!   destroys it. A hook gets a shared reference, because Envoy can call a hook within another: completing a stream, for
//!   example, while the module answers its request.
//!
//! # Answers
//!
//! Hooks of a stream compute an [`Action`], and it is carried out when they hold no reference any more: to answer a request
//! may complete the stream, and with older versions of Envoy destroy it, before the call returns.
#![expect(unsafe_code, reason = "the ABI passes raw pointers")]

use std::{
    ffi::{CStr, c_char, c_void},
    fmt,
    marker::PhantomData,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
    sync::Arc,
};

use crate::{
    edit::{Change, HeaderEdit},
    filter::{Action, Filter, LocalReply},
    log,
    plugin::Plugin,
    route::Route,
};

/// The version of the ABI that the module was written for. Envoy logs a difference.
const ABI_VERSION: &CStr = c"v0.2.0";

/// The number of the attribute `source.address`.
const SOURCE_ADDRESS: u32 = 24;

/// The status of calls that succeed.
const SUCCESS: u32 = 0;

/// What a hook returns so that the filter chain continues, or stops.
const CONTINUE: u32 = 0;
const STOP_ITERATION: u32 = 1;

/// Bytes that Envoy lends to the module, or the module to Envoy.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    /// The first byte. It can be null if there is none.
    pub ptr: *const u8,
    /// The number of bytes.
    pub length: usize,
}

/// A header that Envoy lends to the module, or the module to Envoy.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// The name.
    pub name: Buffer,
    /// The value.
    pub value: Buffer,
}

/// A header map of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderMap {
    Request = 0,
    RequestTrailers = 1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
    Critical = 5,
}

/// The hooks that do something. Each of them catches panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// The module is loaded.
    ProgramInit,
    /// A configuration is created.
    ConfigNew,
    /// A configuration is destroyed.
    ConfigDestroy,
    /// An event of a configuration.
    ConfigScheduled,
    /// The response to a request of a configuration.
    ConfigHttpCalloutDone,
    /// A configuration of a route is created.
    RouteNew,
    /// A configuration of a route is destroyed.
    RouteDestroy,
    /// A stream begins.
    FilterNew,
    /// A stream is destroyed.
    FilterDestroy,
    /// The headers of a request.
    RequestHeaders,
    /// The trailers of a request.
    RequestTrailers,
    /// A stream is complete.
    StreamComplete,
    /// An event of a stream.
    Scheduled,
}

impl Hook {
    /// All hooks that do something.
    pub const ALL: [Self; 13] = [
        Self::ProgramInit,
        Self::ConfigNew,
        Self::ConfigDestroy,
        Self::ConfigScheduled,
        Self::ConfigHttpCalloutDone,
        Self::RouteNew,
        Self::RouteDestroy,
        Self::FilterNew,
        Self::FilterDestroy,
        Self::RequestHeaders,
        Self::RequestTrailers,
        Self::StreamComplete,
        Self::Scheduled,
    ];
}

/// Panics in the next call of a hook, for tests.
#[cfg(feature = "panics")]
pub mod panics {
    use std::cell::Cell;

    use super::Hook;

    thread_local! {
        static ARMED: Cell<Option<Hook>> = const { Cell::new(None) };
    }

    /// Makes the next call of `hook` on this thread panic.
    pub fn arm(hook: Hook) {
        ARMED.set(Some(hook));
    }

    /// Returns the hook that has not panicked yet.
    pub fn armed() -> Option<Hook> {
        ARMED.get()
    }

    /// Panics if a request has the header `x-keystile-test-panic`.
    #[expect(clippy::panic, reason = "a test asks for it")]
    pub(crate) fn check_headers(headers: &[(&str, &[u8])]) {
        if headers.iter().any(|(name, _)| *name == "x-keystile-test-panic") {
            panic!("a header asks for it");
        }
    }

    #[expect(clippy::panic, reason = "a test asks for it")]
    pub(super) fn check(hook: Hook) {
        if ARMED.get() == Some(hook) {
            ARMED.set(None);
            panic!("{hook:?}");
        }
    }
}

/// A stream, during one of its hooks. It is used on the thread of the hook only, because a raw pointer is not [`Send`].
#[derive(Debug)]
pub(crate) struct Stream<'hook> {
    host: *mut c_void,
    hook: PhantomData<&'hook ()>,
}

/// A hook on a worker thread.
#[derive(Debug)]
pub(crate) struct WorkerThread<'hook>(PhantomData<*const &'hook ()>);

/// Identifies a stream after its hook. It only compares, and makes a [`StreamWake`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId(*mut c_void);

// SAFETY: the pointer is used by `StreamWake::new` only, which must be called on the thread of the stream.
unsafe impl Send for StreamId {}

/// Wakes a stream: Envoy calls its hook on its thread, unless it has been destroyed.
#[derive(Debug)]
pub(crate) struct StreamWake(*mut c_void);

// SAFETY: the ABI permits commits from any thread, and Envoy's object has no reference to the thread of its creation except
// the dispatcher, which takes events from every thread.
unsafe impl Send for StreamWake {}

/// A configuration, during one of its hooks, on the main thread.
#[derive(Debug)]
pub(crate) struct Main<'hook> {
    config: *mut c_void,
    hook: PhantomData<&'hook ()>,
}

/// Wakes a configuration: Envoy calls its hook on the main thread, unless it has been destroyed.
#[derive(Debug)]
pub(crate) struct ConfigWake(*mut c_void);

// SAFETY: as for `StreamWake`.
unsafe impl Send for ConfigWake {}
// SAFETY: a commit only reads Envoy's object. It is deleted by `Drop`, when no reference is left.
unsafe impl Sync for ConfigWake {}

/// Why Envoy does not send a request of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CalloutError(u32);

impl CalloutError {
    pub(crate) const CLUSTER_NOT_FOUND: Self = Self(2);
}

impl fmt::Display for CalloutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)
    }
}

/// The identifier of a counter or a gauge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MetricId(usize);

impl Buffer {
    const fn lend(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    ///
    /// The bytes must be valid for the lifetime that the caller chooses.
    const unsafe fn borrow<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: the caller guarantees it.
        unsafe { slice::from_raw_parts(self.ptr, self.length) }
    }
}

impl Header {
    const fn lend(name: &[u8], value: &[u8]) -> Self {
        Self { name: Buffer::lend(name), value: Buffer::lend(value) }
    }
}

impl Stream<'_> {
    const fn new(host: *mut c_void) -> Self {
        Self { host, hook: PhantomData }
    }

    pub(crate) const fn id(&self) -> StreamId {
        StreamId(self.host)
    }

    pub(crate) const fn thread(&self) -> WorkerThread<'_> {
        WorkerThread(PhantomData)
    }

    /// Returns the index of the worker thread.
    pub(crate) fn worker_index(&self) -> u32 {
        // SAFETY: the pointer is that of the current hook.
        unsafe { envoy_dynamic_module_callback_http_filter_get_worker_index(self.host) }
    }

    /// Returns the headers in their order. Returns `None` if there is no such map, or if a name is not UTF-8, which no codec
    /// permits: the filter then does not know what the request contains.
    pub(crate) fn headers(&self, map: HeaderMap) -> Option<Vec<(&str, &[u8])>> {
        // SAFETY: the pointer is that of the current hook.
        let count = unsafe { envoy_dynamic_module_callback_http_get_headers_size(self.host, map as u32) };
        let mut headers: Vec<Header> = Vec::with_capacity(count);
        // SAFETY: the memory has room for as many headers as Envoy has reported.
        let is_written = unsafe {
            envoy_dynamic_module_callback_http_get_headers(self.host, map as u32, headers.as_mut_ptr())
        };
        if !is_written {
            return None;
        }
        // SAFETY: Envoy has written all of them.
        unsafe { headers.set_len(count) };
        let borrow = |Header { name, value }: Header| {
            // SAFETY: names and values are in Envoy's map. They stay there until the hook returns or a header is changed,
            // which needs the stream exclusively, while the result borrows it.
            let (name, value) = unsafe { (name.borrow(), value.borrow()) };
            Some((str::from_utf8(name).ok()?, value))
        };
        headers.into_iter().map(borrow).collect()
    }

    /// Changes headers. Returns false if Envoy has not done all of it.
    pub(crate) fn edit(&mut self, map: HeaderMap, edit: &HeaderEdit) -> bool {
        let none = Buffer { ptr: ptr::null(), length: 0 };
        // SAFETY: the pointer is that of the current hook, and name and value are valid during the call.
        let set = |name: &[u8], value| unsafe {
            envoy_dynamic_module_callback_http_set_header(self.host, map as u32, Buffer::lend(name), value)
        };
        // SAFETY: as above.
        let add = |name: &[u8], value: &[u8]| unsafe {
            let (name, value) = (Buffer::lend(name), Buffer::lend(value));
            envoy_dynamic_module_callback_http_add_header(self.host, map as u32, name, value)
        };
        edit.changes().all(|change| match change {
            Change::Remove(name) => set(name, none),
            Change::Set(name, value) => set(name, Buffer::lend(value)),
            Change::Add(name, value) => add(name, value),
        })
    }

    /// Makes Envoy select the route again, by the headers as they are now.
    pub(crate) fn clear_route(&mut self) {
        // SAFETY: the pointer is that of the current hook.
        unsafe { envoy_dynamic_module_callback_http_clear_route_cache(self.host) };
    }

    /// Returns the address that Envoy takes for the client's: the other end of the connection only with
    /// `use_remote_address`. Returns `None` if it is not an IP address.
    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        let mut address = Buffer { ptr: ptr::null(), length: 0 };
        // SAFETY: Envoy writes the buffer during the call.
        let is_known = unsafe {
            envoy_dynamic_module_callback_http_filter_get_attribute_string(
                self.host,
                SOURCE_ADDRESS,
                &raw mut address,
            )
        };
        // SAFETY: the text belongs to the connection, which lives longer than this call.
        let text = unsafe { address.borrow() };
        is_known.then(|| str::from_utf8(text).ok()?.parse().ok())?
    }

    /// Returns the configuration of the route, if it has one.
    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        if !Route::any_exists() {
            return None;
        }
        // SAFETY: the pointer is that of the current hook.
        let route = unsafe { envoy_dynamic_module_callback_get_most_specific_route_config(self.host) };
        let route: *const Route = route.cast();
        if route.is_null() {
            return None;
        }
        // SAFETY: the pointer is the result of `Arc::into_raw` in the hook that created the configuration. The route of the
        // stream keeps the configuration from being destroyed during this hook.
        unsafe {
            Arc::increment_strong_count(route);
            Some(Arc::from_raw(route))
        }
    }

    /// Sets filter state, for the access log and other filters. The decision does not depend on whether Envoy does so.
    pub(crate) fn set_filter_state(&self, name: &str, value: &str) {
        let (name, value) = (Buffer::lend(name.as_bytes()), Buffer::lend(value.as_bytes()));
        // SAFETY: the pointer is that of the current hook, and name and value are valid during the call.
        let _ = unsafe { envoy_dynamic_module_callback_http_set_filter_state_bytes(self.host, name, value) };
    }

    /// Sets dynamic metadata, for RBAC and other filters.
    pub(crate) fn set_metadata(&self, namespace: &str, name: &str, value: &str) {
        let [namespace, name, value] = [namespace, name, value].map(|text| Buffer::lend(text.as_bytes()));
        // SAFETY: the pointer is that of the current hook, and the texts are valid during the call.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(self.host, namespace, name, value)
        };
    }

    /// Answers the request, or resets the stream if its response has begun.
    fn answer(self, reply: &LocalReply) {
        let LocalReply { status, headers, body, details } = reply;
        let mut headers: Vec<Header> =
            headers.iter().map(|(name, value)| Header::lend(name.as_bytes(), value.as_bytes())).collect();
        // SAFETY: the pointer is that of the current hook, and headers, body and details are valid during the call.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.host,
                (*status).into(),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::lend(body.as_bytes()),
                Buffer::lend(details.as_bytes()),
            );
        }
    }
}

impl StreamWake {
    /// Makes it for a stream of this thread that is not complete: [`Filter`] removes its ID from wherever it is before.
    pub(crate) fn new(StreamId(host): StreamId, _thread: &WorkerThread<'_>) -> Option<Self> {
        // SAFETY: the pointer is that of a stream that is not complete, so that Envoy's filter lives.
        let scheduler = unsafe { envoy_dynamic_module_callback_http_filter_scheduler_new(host) };
        (!scheduler.is_null()).then_some(Self(scheduler))
    }

    pub(crate) fn commit(&self, event: u64) {
        // SAFETY: Envoy's object lives until `Drop`.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_commit(self.0, event) };
    }
}

impl Drop for StreamWake {
    fn drop(&mut self) {
        // SAFETY: Envoy's object is deleted once, and not used afterwards.
        unsafe { envoy_dynamic_module_callback_http_filter_scheduler_delete(self.0) };
    }
}

impl ConfigWake {
    pub(crate) fn commit(&self, event: u64) {
        // SAFETY: Envoy's object lives until `Drop`.
        unsafe { envoy_dynamic_module_callback_http_filter_config_scheduler_commit(self.0, event) };
    }
}

impl Drop for ConfigWake {
    fn drop(&mut self) {
        // SAFETY: Envoy's object is deleted once, and not used afterwards.
        unsafe { envoy_dynamic_module_callback_http_filter_config_scheduler_delete(self.0) };
    }
}

impl Main<'_> {
    const fn new(config: *mut c_void) -> Self {
        Self { config, hook: PhantomData }
    }

    /// Returns the number of worker threads.
    pub(crate) fn concurrency(&self) -> u32 {
        // SAFETY: the current hook is on the main thread.
        unsafe { envoy_dynamic_module_callback_get_concurrency() }
    }

    pub(crate) fn wake(&self) -> Option<ConfigWake> {
        // SAFETY: the pointer is that of the current hook.
        let scheduler =
            unsafe { envoy_dynamic_module_callback_http_filter_config_scheduler_new(self.config) };
        (!scheduler.is_null()).then_some(ConfigWake(scheduler))
    }

    /// Defines a counter. This is possible only while the configuration is created.
    pub(crate) fn define_counter(&self, name: &str) -> Option<MetricId> {
        self.define(name, envoy_dynamic_module_callback_http_filter_config_define_counter)
    }

    /// Defines a gauge. This is possible only while the configuration is created.
    pub(crate) fn define_gauge(&self, name: &str) -> Option<MetricId> {
        self.define(name, envoy_dynamic_module_callback_http_filter_config_define_gauge)
    }

    fn define(&self, name: &str, define: DefineMetric) -> Option<MetricId> {
        let mut id = 0;
        let name = Buffer::lend(name.as_bytes());
        // SAFETY: the pointer is that of the current hook. Envoy reads the name and writes the number during the call.
        let status = unsafe { define(self.config, name, ptr::null_mut(), 0, &raw mut id) };
        (status == SUCCESS).then_some(MetricId(id))
    }

    pub(crate) fn increment(&self, MetricId(id): MetricId, count: u64) {
        // A count that Envoy rejects is lost. No request depends on it.
        // SAFETY: the pointer is that of the current hook.
        let _ = unsafe {
            envoy_dynamic_module_callback_http_filter_config_increment_counter(
                self.config,
                id,
                ptr::null_mut(),
                0,
                count,
            )
        };
    }

    pub(crate) fn set_gauge(&self, MetricId(id): MetricId, value: u64) {
        // SAFETY: the pointer is that of the current hook.
        let _ = unsafe {
            envoy_dynamic_module_callback_http_filter_config_set_gauge(
                self.config,
                id,
                ptr::null_mut(),
                0,
                value,
            )
        };
    }

    /// Sends a request without a body to a cluster. Returns the ID of the call, which comes back with the response.
    pub(crate) fn http_call(
        &self,
        cluster: &str,
        headers: &[(&str, &str)],
        timeout_ms: u64,
    ) -> Result<u64, CalloutError> {
        let mut id = 0;
        let mut headers: Vec<Header> =
            headers.iter().map(|(name, value)| Header::lend(name.as_bytes(), value.as_bytes())).collect();
        // SAFETY: the pointer is that of the current hook. Envoy reads the texts, and writes the ID, during the call.
        let status = unsafe {
            envoy_dynamic_module_callback_http_filter_config_http_callout(
                self.config,
                &raw mut id,
                Buffer::lend(cluster.as_bytes()),
                headers.as_mut_ptr(),
                headers.len(),
                Buffer::lend(&[]),
                timeout_ms,
            )
        };
        if status == SUCCESS { Ok(id) } else { Err(CalloutError(status)) }
    }
}

/// Logs a message.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: Envoy reads the message during the call.
    unsafe { envoy_dynamic_module_callback_log(level as u32, Buffer::lend(message.as_bytes())) };
}

/// Calls a hook, or the second function if it panics.
fn guard<T>(hook: Hook, body: impl FnOnce() -> T, on_panic: impl FnOnce() -> T) -> T {
    let attempt = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "panics")]
        panics::check(hook);
        let _ = hook;
        body()
    }));
    attempt.unwrap_or_else(|payload| {
        // To drop what the panic carries could panic again.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        on_panic()
    })
}

/// # Safety
///
/// The pointer must be null, or what [`envoy_dynamic_module_on_http_filter_config_new`] returned, and not destroyed.
unsafe fn plugin<'hook>(module: *const c_void) -> Option<&'hook Plugin> {
    // SAFETY: the caller guarantees it. Every hook has a shared reference only.
    unsafe { module.cast::<Plugin>().as_ref() }
}

/// # Safety
///
/// The pointer must be null, or what [`envoy_dynamic_module_on_http_filter_new`] returned, and not destroyed.
unsafe fn filter<'hook>(module: *const c_void) -> Option<&'hook Filter> {
    // SAFETY: the caller guarantees it. Every hook has a shared reference only.
    unsafe { module.cast::<Filter>().as_ref() }
}

/// Calls a hook of a stream and carries out its action. It refuses the request if the hook panics.
///
/// # Safety
///
/// The pointers must be those of a hook of a stream.
unsafe fn stream_hook(
    hook: Hook,
    host: *mut c_void,
    module: *const c_void,
    body: impl FnOnce(&Filter, &mut Stream<'_>) -> Action,
) -> u32 {
    let action = {
        // SAFETY: the caller guarantees it. The reference ends before the action is carried out.
        let filter = unsafe { filter(module) };
        let action = guard(
            hook,
            || filter.map_or_else(Action::fail_closed, |filter| body(filter, &mut Stream::new(host))),
            || filter.map_or_else(Action::fail_closed, |filter| filter.on_panic(&WorkerThread(PhantomData))),
        );
        match filter {
            Some(filter) => filter.finish(action),
            None => action,
        }
    };
    match action {
        Action::Continue => CONTINUE,
        Action::Stop => STOP_ITERATION,
        Action::Answer(reply) => {
            Stream::new(host).answer(&reply);
            STOP_ITERATION
        }
    }
}

// The hooks. Envoy calls each of them with the pointers that the ABI describes: `host` or `config` is an object of Envoy that
// lives during the call, and `module` is what the hook `..._new` of the same object returned.

/// The module is loaded.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    let init = || std::panic::set_hook(Box::new(log::log_panic));
    guard(
        Hook::ProgramInit,
        || {
            init();
            ABI_VERSION.as_ptr()
        },
        ptr::null,
    )
}

/// A configuration is created. Null refuses it.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: *mut c_void,
    name: Buffer,
    json: Buffer,
) -> *const c_void {
    let create = || {
        // SAFETY: Envoy lends the name and the configuration during the call.
        let (name, json) = unsafe { (name.borrow(), json.borrow()) };
        let plugin = Plugin::new(&Main::new(config), name, json)?;
        Some(Box::into_raw(Box::new(plugin)).cast_const().cast())
    };
    guard(Hook::ConfigNew, create, || None).unwrap_or(ptr::null())
}

/// A configuration is destroyed.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(module: *const c_void) {
    if module.is_null() {
        return;
    }
    // SAFETY: the hook that created it made the box, and Envoy destroys it once.
    let plugin = unsafe { Box::from_raw(module.cast_mut().cast::<Plugin>()) };
    guard(Hook::ConfigDestroy, || drop(plugin), || ());
}

/// An event of [`ConfigWake::commit`], on the main thread.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    config: *mut c_void,
    module: *const c_void,
    _event: u64,
) {
    // SAFETY: Envoy passes the pointer of this configuration.
    let Some(plugin) = (unsafe { plugin(module) }) else { return };
    guard(Hook::ConfigScheduled, || plugin.on_scheduled(&Main::new(config)), || plugin.on_panic());
}

/// The response to [`Main::http_call`], on the main thread. Without a response there are no headers.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    config: *mut c_void,
    module: *const c_void,
    id: u64,
    result: u32,
    headers: *const Header,
    header_count: usize,
    body: *const Buffer,
    body_count: usize,
) {
    // SAFETY: Envoy passes the pointer of this configuration.
    let Some(plugin) = (unsafe { plugin(module) }) else { return };
    let handle = || {
        let (mut status, mut chunks) = (0, Vec::new());
        if result == SUCCESS && !headers.is_null() {
            // SAFETY: Envoy lends the array, and the names and values in it, during the call.
            let headers = unsafe { slice::from_raw_parts(headers, header_count) };
            // SAFETY: as above.
            let mut pairs =
                headers.iter().map(|header| unsafe { (header.name.borrow(), header.value.borrow()) });
            let found = pairs.find(|(name, _)| *name == b":status");
            status = found.and_then(|(_, value)| str::from_utf8(value).ok()?.parse().ok()).unwrap_or(0);
        }
        if !body.is_null() {
            // SAFETY: Envoy lends the array, and the chunks in it, during the call.
            let lent = unsafe { slice::from_raw_parts(body, body_count) };
            // SAFETY: as above.
            chunks = lent.iter().map(|chunk| unsafe { chunk.borrow() }).collect();
        }
        plugin.on_http_response(&Main::new(config), id, status, &chunks);
    };
    guard(Hook::ConfigHttpCalloutDone, handle, || plugin.on_panic());
}

/// A configuration of a route is created. Null refuses it.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: Buffer,
    json: Buffer,
) -> *const c_void {
    let create = || {
        // SAFETY: Envoy lends the configuration during the call.
        let json = unsafe { json.borrow() };
        Some(Arc::into_raw(Arc::new(Route::new(json)?)).cast())
    };
    guard(Hook::RouteNew, create, || None).unwrap_or(ptr::null())
}

/// A configuration of a route is destroyed.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(module: *const c_void) {
    if module.is_null() {
        return;
    }
    // SAFETY: the hook that created it made the `Arc`, and Envoy destroys it once.
    let route = unsafe { Arc::from_raw(module.cast::<Route>()) };
    guard(Hook::RouteDestroy, || drop(route), || ());
}

/// A stream begins. Null closes it.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    module: *const c_void,
    host: *mut c_void,
) -> *const c_void {
    // SAFETY: Envoy passes the pointer of the configuration of this stream.
    let Some(plugin) = (unsafe { plugin(module) }) else { return ptr::null() };
    let create = || {
        let filter = plugin.filter(&Stream::new(host))?;
        Some(Box::into_raw(Box::new(filter)).cast_const().cast())
    };
    let on_panic = || {
        plugin.on_panic();
        None
    };
    guard(Hook::FilterNew, create, on_panic).unwrap_or(ptr::null())
}

/// A stream is destroyed.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(module: *const c_void) {
    if module.is_null() {
        return;
    }
    // SAFETY: the hook that created it made the box, and Envoy destroys it once.
    let filter = unsafe { Box::from_raw(module.cast_mut().cast::<Filter>()) };
    let thread = WorkerThread(PhantomData);
    guard(
        Hook::FilterDestroy,
        || filter.close(&thread),
        || {
            let _ = filter.on_panic(&thread);
        },
    );
}

/// The headers of a request.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    host: *mut c_void,
    module: *const c_void,
    _end_of_stream: bool,
) -> u32 {
    // SAFETY: Envoy passes the pointers of this stream.
    unsafe { stream_hook(Hook::RequestHeaders, host, module, Filter::on_request_headers) }
}

/// The trailers of a request.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    host: *mut c_void,
    module: *const c_void,
) -> u32 {
    // SAFETY: Envoy passes the pointers of this stream.
    unsafe { stream_hook(Hook::RequestTrailers, host, module, Filter::on_request_trailers) }
}

/// An event of [`StreamWake::commit`], on the thread of the stream.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    host: *mut c_void,
    module: *const c_void,
    event: u64,
) {
    if module.is_null() {
        return;
    }
    // SAFETY: Envoy passes the pointers of this stream.
    unsafe {
        stream_hook(Hook::Scheduled, host, module, |filter, stream| filter.on_scheduled(stream, event));
    }
}

/// A stream is complete. Its filter is destroyed later.
///
/// # Safety
///
/// Only Envoy may call it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    host: *mut c_void,
    module: *const c_void,
) {
    // SAFETY: Envoy passes the pointers of this stream.
    let Some(filter) = (unsafe { filter(module) }) else { return };
    guard(
        Hook::StreamComplete,
        || filter.close(&Stream::new(host).thread()),
        || {
            let _ = filter.on_panic(&WorkerThread(PhantomData));
        },
    );
}

/// Exports hooks that Envoy requires, and that have nothing to do.
macro_rules! unused_hooks {
    ($($name:ident($($argument:ty),*) $(-> $status:ty)?;)*) => {
        $(
            #[doc = "A hook that Envoy requires, and that does nothing."]
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($(_: $argument),*) $(-> $status)? {
                $(const STATUS: $status = CONTINUE; STATUS)?
            }
        )*
    };
}

unused_hooks! {
    envoy_dynamic_module_on_http_filter_request_body(*mut c_void, *const c_void, bool) -> u32;
    envoy_dynamic_module_on_http_filter_response_headers(*mut c_void, *const c_void, bool) -> u32;
    envoy_dynamic_module_on_http_filter_response_body(*mut c_void, *const c_void, bool) -> u32;
    envoy_dynamic_module_on_http_filter_response_trailers(*mut c_void, *const c_void) -> u32;
    envoy_dynamic_module_on_http_filter_http_callout_done(
        *mut c_void, *const c_void, u64, u32, *const Header, usize, *const Buffer, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers(
        *mut c_void, *const c_void, u64, *const Header, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(
        *mut c_void, *const c_void, u64, *const Buffer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(
        *mut c_void, *const c_void, u64, *const Header, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(*mut c_void, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(*mut c_void, *const c_void);
}

type DefineMetric = unsafe extern "C" fn(*mut c_void, Buffer, *mut Buffer, usize, *mut usize) -> u32;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_log(level: u32, message: Buffer);
    fn envoy_dynamic_module_callback_get_concurrency() -> u32;
    fn envoy_dynamic_module_callback_get_most_specific_route_config(host: *mut c_void) -> *const c_void;
    fn envoy_dynamic_module_callback_http_get_headers_size(host: *mut c_void, map: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(
        host: *mut c_void,
        map: u32,
        headers: *mut Header,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_add_header(
        host: *mut c_void,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(
        host: *mut c_void,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_clear_route_cache(host: *mut c_void);
    fn envoy_dynamic_module_callback_http_send_response(
        host: *mut c_void,
        status: u32,
        headers: *mut Header,
        header_count: usize,
        body: Buffer,
        details: Buffer,
    );
    fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        host: *mut c_void,
        attribute: u32,
        value: *mut Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_filter_get_worker_index(host: *mut c_void) -> u32;
    fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        host: *mut c_void,
        name: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        host: *mut c_void,
        namespace: Buffer,
        name: Buffer,
        value: Buffer,
    );
    fn envoy_dynamic_module_callback_http_filter_scheduler_new(host: *mut c_void) -> *mut c_void;
    fn envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler: *mut c_void, event: u64);
    fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: *mut c_void);
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(config: *mut c_void) -> *mut c_void;
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(scheduler: *mut c_void, event: u64);
    fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(scheduler: *mut c_void);
    fn envoy_dynamic_module_callback_http_filter_config_http_callout(
        config: *mut c_void,
        id: *mut u64,
        cluster: Buffer,
        headers: *mut Header,
        header_count: usize,
        body: Buffer,
        timeout_ms: u64,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: *mut c_void,
        name: Buffer,
        labels: *mut Buffer,
        label_count: usize,
        id: *mut usize,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_define_gauge(
        config: *mut c_void,
        name: Buffer,
        labels: *mut Buffer,
        label_count: usize,
        id: *mut usize,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_increment_counter(
        config: *mut c_void,
        id: usize,
        labels: *mut Buffer,
        label_count: usize,
        count: u64,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_config_set_gauge(
        config: *mut c_void,
        id: usize,
        labels: *mut Buffer,
        label_count: usize,
        value: u64,
    ) -> u32;
}
