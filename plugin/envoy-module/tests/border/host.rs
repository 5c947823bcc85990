//! A fake Envoy: the functions that the module calls, over streams and configurations that a test prepares.
//!
//! It is stricter than Envoy: memory that the module may not use any more is freed at once, so that an address sanitizer
//! notices each use, and it fails the test if the module uses a stream after its end.
#![expect(unsafe_code, reason = "the ABI passes raw pointers")]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ffi::c_void,
    ptr, slice,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use keystile_envoy_module::abi::{self, Buffer, Header};

pub(crate) type Headers = Vec<(String, Vec<u8>)>;

/// The number of worker threads of the fake Envoy.
pub(crate) const WORKERS: u32 = 2;

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Returns whether the module has logged a line that contains a text.
pub(crate) fn logged(text: &str) -> bool {
    LOG.lock().unwrap().iter().any(|line| line.contains(text))
}

/// A response to a request of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u32,
    pub(crate) headers: Headers,
    pub(crate) body: String,
    pub(crate) details: String,
}

/// A request of the module to a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Callout {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    pub(crate) headers: Headers,
}

/// A configuration in the fake Envoy.
pub(crate) struct Config {
    host: Box<ConfigHost>,
    module: *const c_void,
}

struct ConfigHost {
    events: Arc<Mutex<Vec<u64>>>,
    callouts: RefCell<Vec<Callout>>,
    /// The status of calls, if they fail.
    callout_error: Cell<Option<u32>>,
    /// Whether calls fail at once, within the function that sends them.
    fails_within_call: Cell<bool>,
    module: Cell<*const c_void>,
    metrics: RefCell<Vec<(String, u64)>>,
}

/// A stream in the fake Envoy. Dropping it completes and destroys it.
pub(crate) struct Stream {
    host: Box<StreamHost>,
    module: *const c_void,
}

struct StreamHost {
    headers: [RefCell<Option<Headers>>; 2],
    events: Arc<Mutex<Vec<u64>>>,
    is_live: Arc<AtomicBool>,
    reply: RefCell<Option<Reply>>,
    state: RefCell<BTreeMap<String, String>>,
    metadata: RefCell<BTreeMap<String, String>>,
    worker: u32,
    peer: String,
    route: Cell<*const c_void>,
    next_route: *const c_void,
    /// The number of changes of headers after which Envoy refuses the next one.
    edits_left: Cell<Option<usize>>,
    /// How often Envoy selected the route again.
    routings: Cell<usize>,
    is_complete: Cell<bool>,
    /// What a stream does within the call that answers it.
    module: Cell<*const c_void>,
    completes_in_answer: Cell<bool>,
}

struct Scheduler {
    events: Arc<Mutex<Vec<u64>>>,
    is_live: Arc<AtomicBool>,
}

impl Config {
    /// Returns `None` if the module refuses the configuration.
    pub(crate) fn new(json: &str) -> Option<Self> {
        Self::with_name("keystile", json)
    }

    pub(crate) fn with_name(name: &str, json: &str) -> Option<Self> {
        let host = Box::new(ConfigHost {
            events: Arc::default(),
            callouts: RefCell::default(),
            callout_error: Cell::default(),
            fails_within_call: Cell::default(),
            module: Cell::new(ptr::null()),
            metrics: RefCell::default(),
        });
        // A copy that is freed after the call, as Envoy's is.
        let json = json.as_bytes().to_vec();
        // SAFETY: the pointers are valid during the call.
        let module = unsafe {
            abi::envoy_dynamic_module_on_http_filter_config_new(
                config_ptr(&host),
                lend(name.as_bytes()),
                lend(&json),
            )
        };
        (!module.is_null()).then_some(Self { host, module })
    }

    /// Delivers the events for the main thread that are due. Returns their number.
    pub(crate) fn deliver(&self) -> usize {
        let events = std::mem::take(&mut *self.host.events.lock().unwrap());
        for event in &events {
            // SAFETY: the module made the configuration.
            unsafe {
                abi::envoy_dynamic_module_on_http_filter_config_scheduled(
                    config_ptr(&self.host),
                    self.module,
                    *event,
                );
            }
        }
        events.len()
    }

    /// Delivers one event, whether or not the module asked for it.
    pub(crate) fn tick(&self) {
        self.host.events.lock().unwrap().push(0);
        self.deliver();
    }

    /// Returns the calls that have not been answered.
    pub(crate) fn take_callouts(&self) -> Vec<Callout> {
        self.host.callouts.take()
    }

    /// Adds calls again that will be answered later.
    pub(crate) fn put_back(&self, callouts: Vec<Callout>) {
        self.host.callouts.borrow_mut().extend(callouts);
    }

    pub(crate) fn fail_within_calls(&self, fails: bool) {
        self.host.fails_within_call.set(fails);
        self.host.module.set(self.module);
    }

    pub(crate) fn fail_callouts(&self, status: Option<u32>) {
        self.host.callout_error.set(status);
    }

    /// Answers a call with a body in chunks. Without a status there is no response.
    pub(crate) fn respond(&self, id: u64, status: Option<u16>, chunks: &[&[u8]]) {
        let status = status.map(|status| status.to_string());
        let owned: Vec<Vec<u8>> = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        let body: Vec<Buffer> = owned.iter().map(|chunk| lend(chunk)).collect();
        let headers = match &status {
            Some(status) => vec![
                Header { name: lend(b"server"), value: Buffer { ptr: ptr::null(), length: 0 } },
                Header { name: lend(b":status"), value: lend(status.as_bytes()) },
            ],
            None => Vec::new(),
        };
        let or_null = |is_empty: bool, pointer| if is_empty { ptr::null() } else { pointer };
        // SAFETY: the module made the configuration, and the arrays are valid during the call.
        unsafe {
            abi::envoy_dynamic_module_on_http_filter_config_http_callout_done(
                config_ptr(&self.host),
                self.module,
                id,
                u32::from(status.is_none()),
                or_null(headers.is_empty(), headers.as_ptr()),
                headers.len(),
                body.as_ptr(),
                body.len(),
            );
        }
    }

    /// Returns the value of a counter or a gauge.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let metrics = self.host.metrics.borrow();
        metrics.iter().find(|(known, _)| known == name).map_or(0, |(_, value)| *value)
    }

    /// Begins a stream. Returns `None` if the module refuses it.
    pub(crate) fn stream(&self, headers: &[(&str, &str)]) -> Option<Stream> {
        self.stream_with(headers, |_| ())
    }

    pub(crate) fn stream_with(
        &self,
        headers: &[(&str, &str)],
        prepare: impl FnOnce(&mut Prepared),
    ) -> Option<Stream> {
        let mut prepared =
            Prepared { worker: 0, peer: "192.0.2.1:1234".to_owned(), route: ptr::null(), next_route: None };
        prepare(&mut prepared);
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        let host = Box::new(StreamHost {
            headers: [RefCell::new(Some(headers.collect())), RefCell::new(None)],
            events: Arc::default(),
            is_live: Arc::new(AtomicBool::new(true)),
            reply: RefCell::default(),
            state: RefCell::default(),
            metadata: RefCell::default(),
            worker: prepared.worker,
            peer: prepared.peer,
            route: Cell::new(prepared.route),
            next_route: prepared.next_route.unwrap_or(prepared.route),
            edits_left: Cell::default(),
            routings: Cell::default(),
            is_complete: Cell::default(),
            module: Cell::new(ptr::null()),
            completes_in_answer: Cell::default(),
        });
        // SAFETY: the module made the configuration.
        let module = unsafe { abi::envoy_dynamic_module_on_http_filter_new(self.module, stream_ptr(&host)) };
        host.module.set(module);
        (!module.is_null()).then_some(Stream { host, module })
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: the module made the configuration, and it is not used afterwards.
        unsafe { abi::envoy_dynamic_module_on_http_filter_config_destroy(self.module) };
        if !std::thread::panicking() {
            assert_eq!(Arc::strong_count(&self.host.events), 1, "the scheduler of a configuration remains");
        }
    }
}

/// What a test changes of a stream.
pub(crate) struct Prepared {
    pub(crate) worker: u32,
    pub(crate) peer: String,
    pub(crate) route: *const c_void,
    /// The route that Envoy selects after changes of headers, if it is another one.
    pub(crate) next_route: Option<*const c_void>,
}

/// The configuration of a route.
pub(crate) struct Route(pub(crate) *const c_void);

impl Route {
    pub(crate) fn new(json: &str) -> Option<Self> {
        let json = json.as_bytes().to_vec();
        // SAFETY: the buffers are valid during the call.
        let module = unsafe {
            abi::envoy_dynamic_module_on_http_filter_per_route_config_new(lend(b"name"), lend(&json))
        };
        (!module.is_null()).then_some(Self(module))
    }
}

impl Drop for Route {
    fn drop(&mut self) {
        // SAFETY: the module made the configuration, and it is not used afterwards.
        unsafe { abi::envoy_dynamic_module_on_http_filter_per_route_config_destroy(self.0) };
    }
}

impl Stream {
    /// Returns true if the request continues.
    pub(crate) fn request_headers(&self) -> bool {
        // SAFETY: the module made the stream.
        let status = unsafe {
            abi::envoy_dynamic_module_on_http_filter_request_headers(
                stream_ptr(&self.host),
                self.module,
                true,
            )
        };
        self.check_status(status)
    }

    /// Returns true if the request continues.
    pub(crate) fn request_trailers(&self, trailers: Option<&[(&str, &str)]>) -> bool {
        let owned = trailers.map(|trailers| {
            trailers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
        });
        *self.host.headers[1].borrow_mut() = owned;
        // SAFETY: the module made the stream.
        let status = unsafe {
            abi::envoy_dynamic_module_on_http_filter_request_trailers(stream_ptr(&self.host), self.module)
        };
        self.check_status(status)
    }

    /// A hook continues without an answer, or stops with one.
    fn check_status(&self, status: u32) -> bool {
        assert!(status <= 1, "{status}");
        assert_eq!(status == 1, self.host.reply.borrow().is_some(), "stopped if and only if it was answered");
        status == 0
    }

    /// Delivers the events for the stream, as long as it lives. Returns their number.
    pub(crate) fn deliver(&self) -> usize {
        let events = std::mem::take(&mut *self.host.events.lock().unwrap());
        for event in &events {
            self.deliver_event(*event);
        }
        events.len()
    }

    pub(crate) fn deliver_event(&self, event: u64) {
        // SAFETY: the module made the stream.
        unsafe {
            abi::envoy_dynamic_module_on_http_filter_scheduled(stream_ptr(&self.host), self.module, event);
        }
    }

    pub(crate) fn complete(&self) {
        if !self.host.is_complete.replace(true) {
            // SAFETY: the module made the stream.
            unsafe {
                abi::envoy_dynamic_module_on_http_filter_stream_complete(stream_ptr(&self.host), self.module);
            }
        }
    }

    /// Makes Envoy complete the stream within the call that answers it.
    pub(crate) fn complete_in_answer(&self) {
        self.host.completes_in_answer.set(true);
    }

    /// Makes Envoy refuse changes of headers after this number.
    pub(crate) fn refuse_edits_after(&self, count: usize) {
        self.host.edits_left.set(Some(count));
    }

    /// Destroys the stream although it is not complete.
    pub(crate) fn destroy_early(self) {
        self.host.is_complete.set(true);
    }

    pub(crate) fn routings(&self) -> usize {
        self.host.routings.get()
    }

    pub(crate) fn reply(&self) -> Option<Reply> {
        self.host.reply.borrow().clone()
    }

    /// Returns headers (0) or trailers (1).
    pub(crate) fn headers(&self, map: usize) -> Vec<(String, String)> {
        let headers = self.host.headers[map].borrow();
        let text =
            |(name, value): &(String, Vec<u8>)| (name.clone(), String::from_utf8_lossy(value).into_owned());
        headers.iter().flatten().map(text).collect()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers(0).into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(crate) fn state(&self, name: &str) -> Option<String> {
        self.host.state.borrow().get(name).cloned()
    }

    pub(crate) fn metadata(&self, name: &str) -> Option<String> {
        self.host.metadata.borrow().get(name).cloned()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.complete();
        self.host.is_live.store(false, Ordering::SeqCst);
        // SAFETY: the module made the stream, and it is not used afterwards.
        unsafe { abi::envoy_dynamic_module_on_http_filter_destroy(self.module) };
        if !std::thread::panicking() {
            assert_eq!(Arc::strong_count(&self.host.events), 1, "the scheduler of a stream remains");
        }
    }
}

fn config_ptr(host: &ConfigHost) -> *mut c_void {
    ptr::from_ref(host).cast_mut().cast()
}

fn stream_ptr(host: &StreamHost) -> *mut c_void {
    ptr::from_ref(host).cast_mut().cast()
}

fn lend(bytes: &[u8]) -> Buffer {
    Buffer { ptr: bytes.as_ptr(), length: bytes.len() }
}

/// Reads every byte, so that the sanitizer sees all of them.
fn read(buffer: Buffer) -> Vec<u8> {
    if buffer.length == 0 {
        return Vec::new();
    }
    // SAFETY: the module lends it during the call.
    unsafe { slice::from_raw_parts(buffer.ptr, buffer.length) }.to_vec()
}

fn read_text(buffer: Buffer) -> String {
    String::from_utf8(read(buffer)).unwrap()
}

fn read_headers(headers: *const Header, count: usize) -> Headers {
    if count == 0 {
        return Vec::new();
    }
    // SAFETY: the module lends it during the call.
    let headers = unsafe { slice::from_raw_parts(headers, count) };
    headers.iter().map(|header| (read_text(header.name), read(header.value))).collect()
}

/// # Safety
///
/// The pointer must be that of a stream of a test.
unsafe fn stream<'a>(host: *mut c_void) -> &'a StreamHost {
    // SAFETY: the caller guarantees it.
    let host: &StreamHost = unsafe { &*host.cast::<StreamHost>() };
    assert!(host.is_live.load(Ordering::SeqCst), "the module uses a stream that is destroyed");
    assert!(!host.is_complete.get(), "the module uses a stream that is complete");
    host
}

/// # Safety
///
/// The pointer must be that of a configuration of a test.
unsafe fn config<'a>(host: *mut c_void) -> &'a ConfigHost {
    // SAFETY: the caller guarantees it.
    unsafe { &*host.cast::<ConfigHost>() }
}

/// The functions of the ABI.
mod callbacks {
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_log(level: u32, message: Buffer) {
        LOG.lock().unwrap().push(format!("{level} {}", read_text(message)));
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_get_concurrency() -> u32 {
        WORKERS
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_get_most_specific_route_config(
        host: *mut c_void,
    ) -> *const c_void {
        unsafe { stream(host) }.route.get()
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_get_headers_size(
        host: *mut c_void,
        map: u32,
    ) -> usize {
        unsafe { stream(host) }.headers[map as usize].borrow().as_ref().map_or(0, Vec::len)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_get_headers(
        host: *mut c_void,
        map: u32,
        result: *mut Header,
    ) -> bool {
        let headers = unsafe { stream(host) }.headers[map as usize].borrow();
        let Some(headers) = &*headers else { return false };
        for (at, (name, value)) in headers.iter().enumerate() {
            // Envoy has no pointer for an empty value.
            let value = if value.is_empty() { Buffer { ptr: ptr::null(), length: 0 } } else { lend(value) };
            unsafe { result.add(at).write(Header { name: lend(name.as_bytes()), value }) };
        }
        true
    }

    fn change(host: &StreamHost, map: u32, edit: impl FnOnce(&mut Headers)) -> bool {
        match host.edits_left.get() {
            Some(0) => return false,
            Some(left) => host.edits_left.set(Some(left - 1)),
            None => {}
        }
        let mut headers = host.headers[map as usize].borrow_mut();
        let Some(headers) = &mut *headers else { return false };
        edit(headers);
        // Moves everything, so that what was lent is freed.
        let moved = headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        *headers = moved;
        true
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_add_header(
        host: *mut c_void,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool {
        let (name, value) = (read_text(name), read(value));
        change(unsafe { stream(host) }, map, |headers| headers.push((name, value)))
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_set_header(
        host: *mut c_void,
        map: u32,
        name: Buffer,
        value: Buffer,
    ) -> bool {
        let name = read_text(name);
        let value = (!value.ptr.is_null()).then(|| read(value));
        change(unsafe { stream(host) }, map, |headers| match value {
            None => headers.retain(|(known, _)| *known != name),
            Some(value) => match headers.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => headers.push((name, value)),
            },
        })
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_clear_route_cache(host: *mut c_void) {
        let stream = unsafe { stream(host) };
        stream.routings.set(stream.routings.get() + 1);
        stream.route.set(stream.next_route);
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_send_response(
        host: *mut c_void,
        status: u32,
        headers: *mut Header,
        header_count: usize,
        body: Buffer,
        details: Buffer,
    ) {
        let stream = unsafe { stream(host) };
        let reply = Reply {
            status,
            headers: read_headers(headers, header_count),
            body: read_text(body),
            details: read_text(details),
        };
        assert_eq!(stream.reply.replace(Some(reply)), None, "a second answer");
        if stream.completes_in_answer.get() && !stream.is_complete.replace(true) {
            unsafe {
                abi::envoy_dynamic_module_on_http_filter_stream_complete(host, stream.module.get());
            }
        }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        host: *mut c_void,
        attribute: u32,
        value: *mut Buffer,
    ) -> bool {
        let stream = unsafe { stream(host) };
        assert_eq!(attribute, 24, "source.address");
        unsafe { value.write(lend(stream.peer.as_bytes())) };
        !stream.peer.is_empty()
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_get_worker_index(
        host: *mut c_void,
    ) -> u32 {
        unsafe { stream(host) }.worker
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        host: *mut c_void,
        name: Buffer,
        value: Buffer,
    ) -> bool {
        unsafe { stream(host) }.state.borrow_mut().insert(read_text(name), read_text(value));
        true
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        host: *mut c_void,
        namespace: Buffer,
        name: Buffer,
        value: Buffer,
    ) {
        assert_eq!(read_text(namespace), "keystile");
        unsafe { stream(host) }.metadata.borrow_mut().insert(read_text(name), read_text(value));
    }

    fn scheduler(events: &Arc<Mutex<Vec<u64>>>, is_live: &Arc<AtomicBool>) -> *mut c_void {
        let scheduler = Scheduler { events: Arc::clone(events), is_live: Arc::clone(is_live) };
        Box::into_raw(Box::new(scheduler)).cast()
    }

    unsafe fn commit(scheduler: *mut c_void, event: u64) {
        let Scheduler { events, is_live } = unsafe { &*scheduler.cast::<Scheduler>() };
        if is_live.load(Ordering::SeqCst) {
            events.lock().unwrap().push(event);
        }
    }

    unsafe fn delete(scheduler: *mut c_void) {
        drop(unsafe { Box::from_raw(scheduler.cast::<Scheduler>()) });
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_new(
        host: *mut c_void,
    ) -> *mut c_void {
        let stream = unsafe { stream(host) };
        scheduler(&stream.events, &stream.is_live)
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_commit(
        scheduler: *mut c_void,
        event: u64,
    ) {
        unsafe { commit(scheduler, event) };
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_delete(scheduler: *mut c_void) {
        unsafe { delete(scheduler) };
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(
        host: *mut c_void,
    ) -> *mut c_void {
        scheduler(&unsafe { config(host) }.events, &Arc::new(AtomicBool::new(true)))
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
        scheduler: *mut c_void,
        event: u64,
    ) {
        unsafe { commit(scheduler, event) };
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(
        scheduler: *mut c_void,
    ) {
        unsafe { delete(scheduler) };
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_http_callout(
        host: *mut c_void,
        id: *mut u64,
        cluster: Buffer,
        headers: *mut Header,
        header_count: usize,
        body: Buffer,
        timeout_ms: u64,
    ) -> u32 {
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let config = unsafe { config(host) };
        assert!(body.length == 0 && timeout_ms >= 5000);
        if let Some(status) = config.callout_error.get() {
            return status;
        }
        let number = NEXT.fetch_add(1, Ordering::SeqCst) as u64;
        unsafe { id.write(number) };
        if config.fails_within_call.get() {
            unsafe {
                abi::envoy_dynamic_module_on_http_filter_config_http_callout_done(
                    host,
                    config.module.get(),
                    number,
                    1,
                    ptr::null(),
                    0,
                    ptr::null(),
                    0,
                );
            }
            return 0;
        }
        config.callouts.borrow_mut().push(Callout {
            id: number,
            cluster: read_text(cluster),
            headers: read_headers(headers, header_count),
        });
        0
    }

    unsafe fn define(host: *mut c_void, name: Buffer, id: *mut usize) -> u32 {
        let mut metrics = unsafe { config(host) }.metrics.borrow_mut();
        let name = read_text(name);
        assert!(metrics.iter().all(|(known, _)| *known != name), "{name} is defined twice");
        unsafe { id.write(metrics.len()) };
        metrics.push((name, 0));
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        host: *mut c_void,
        name: Buffer,
        _labels: *mut Buffer,
        _label_count: usize,
        id: *mut usize,
    ) -> u32 {
        unsafe { define(host, name, id) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_define_gauge(
        host: *mut c_void,
        name: Buffer,
        _labels: *mut Buffer,
        _label_count: usize,
        id: *mut usize,
    ) -> u32 {
        unsafe { define(host, name, id) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_increment_counter(
        host: *mut c_void,
        id: usize,
        _labels: *mut Buffer,
        _label_count: usize,
        count: u64,
    ) -> u32 {
        unsafe { config(host) }.metrics.borrow_mut()[id].1 += count;
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn envoy_dynamic_module_callback_http_filter_config_set_gauge(
        host: *mut c_void,
        id: usize,
        _labels: *mut Buffer,
        _label_count: usize,
        value: u64,
    ) -> u32 {
        unsafe { config(host) }.metrics.borrow_mut()[id].1 = value;
        0
    }
}
