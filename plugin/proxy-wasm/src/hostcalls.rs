//! Calls to the host, as functions that return a [`Result`]. This module contains all unsafe code of the filter.
//!
//! The SDK has a safe wrapper for each of these calls, in `proxy_wasm::hostcalls`. Those that pass only bytes and
//! numbers are not used, because
//!
//! * they **panic** on statuses that real hosts return: a host without timers or metrics, for example, answers every
//!   such call with 12 (Unimplemented). A panic is a trap, which takes down the VM and all its streams;
//! * they declare the status as an enum of eight members, so that **any other number is undefined behavior**. Here it
//!   is a `u32`;
//! * some **copy** more than once, or cannot pass what the filter needs.
//!
//! The first two reasons apply to each function below; its comment names the case that matters most.
//!
//! Only [`http_call`] uses the SDK's wrapper, because the SDK's dispatcher must know a call to deliver its response.
//!
//! Every call passes pointers that are valid during the call: to the bytes of a borrowed slice, which the host reads,
//! or to a local variable, which the host writes. The host keeps none of them. Only `with_output` takes ownership of
//! anything.
#![expect(unsafe_code, reason = "the ABI passes raw pointers")]

mod wasi;

use std::{fmt, ptr, time::Duration};

use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status};

pub(crate) use wasi::{environment, random};

/// The status of a call that the host did not carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostError(u32);

impl HostError {
    pub(crate) const NOT_FOUND: Self = Self(1);
    pub(crate) const BAD_ARGUMENT: Self = Self(2);
    /// The queue has no entries.
    pub(crate) const EMPTY: Self = Self(7);
    /// Another writer has changed the value since the version that was given.
    pub(crate) const CAS_MISMATCH: Self = Self(8);
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)
    }
}

impl From<Status> for HostError {
    fn from(status: Status) -> Self {
        Self(status as u32)
    }
}

/// The SDK's `log` panics on any failure, and its logger does so within the panic hook too.
pub(crate) fn log(level: LogLevel, message: &str) -> Result<(), HostError> {
    // SAFETY: the host reads the message during the call.
    check_status(unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) })
}

/// Returns nanoseconds since the Unix epoch. The SDK's `get_current_time` panics on any failure.
pub(crate) fn now_ns() -> Result<u64, HostError> {
    let mut nanos = 0;
    // SAFETY: the host writes the number during the call.
    check_status(unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) })?;
    Ok(nanos)
}

/// Returns milliseconds since the Unix epoch, or `None` if the host has no clock.
pub(crate) fn now_ms() -> Option<u64> {
    now_ns().ok().map(|nanos| nanos.div_euclid(1_000_000))
}

/// The SDK's `set_tick_period` panics on a host without timers.
pub(crate) fn set_tick_period(milliseconds: u32) -> Result<(), HostError> {
    // SAFETY: no pointers are passed.
    check_status(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// Returns the first `max` bytes of a buffer. The SDK's `get_buffer` panics on a host that does not have this buffer.
pub(crate) fn buffer(buffer: BufferType, max: usize) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes the address and the size during the call.
    with_output(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max, data, size) })
}

/// Returns a header map as [`crate::header_map::decode`] reads it. The SDK's `get_map_bytes` copies every name and
/// value a second time, and panics on a malformed map and on a name that is not UTF-8.
pub(crate) fn header_map(map: MapType) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes the address and the size during the call.
    with_output(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Replaces a header map by one that [`crate::header_map::encode`] wrote. The SDK's `set_map_bytes` panics on any
/// failure.
pub(crate) fn set_header_map(map: MapType, headers: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the map during the call.
    check_status(unsafe { proxy_set_header_map_pairs(map as u32, headers.as_ptr(), headers.len()) })
}

/// Returns the value of the first header of that name. The SDK's `get_map_value_bytes` panics on every failure but
/// "not found".
pub(crate) fn header(map: MapType, name: &str) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads the name, and writes the address and the size, during the call.
    with_output(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// Removes all headers of that name. The SDK's `remove_map_value` panics on any failure.
pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), HostError> {
    // SAFETY: the host reads the name during the call.
    check_status(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// The SDK's `add_map_value_bytes` panics on any failure.
pub(crate) fn add_header(map: MapType, name: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the name and the value during the call.
    check_status(unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

/// Returns a property of the host. `path` has a zero byte between its parts. The SDK's `get_property` builds this path
/// for each call, and panics on a host without properties.
pub(crate) fn property(path: &str) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads the path, and writes the address and the size, during the call.
    with_output(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// Sets a property of the host. Takes the same path as [`property`]. The SDK's `set_property` panics on a host that
/// has no filter state.
pub(crate) fn set_property(path: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the path and the value during the call.
    check_status(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// Returns a shared value and its version, for [`set_shared_data`] to compare with. A value that does not exist is an
/// error. The SDK's `get_shared_data` panics on a host without shared data.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), HostError> {
    let mut version = 0;
    // SAFETY: the host reads the key, and writes the version, the address and the size, during the call.
    let value = with_output(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
    })?;
    Ok((value, version))
}

/// Writes a shared value if its version still is `version`, or unconditionally if that is 0. The SDK's
/// `set_shared_data` panics on a host without shared data.
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), HostError> {
    // SAFETY: the host reads the key and the value during the call.
    check_status(unsafe {
        proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version)
    })
}

/// Registers a shared queue under a name, or takes it over from the context that registered it last. The host then calls
/// `proxy_on_queue_ready` of this plugin context once for each entry, on this thread. Returns the ID of the queue. The
/// SDK's `register_shared_queue` panics on any failure.
pub(crate) fn register_shared_queue(name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: the host reads the name, and writes the ID, during the call.
    check_status(unsafe { proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Returns the ID of the shared queue that a VM with the same `vm_id` has registered under this name. The SDK's
/// `resolve_shared_queue` panics on a host without queues.
pub(crate) fn resolve_shared_queue(name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: no bytes of a `vm_id` are passed, which means the own one. The host reads the name, and writes the ID,
    // during the call.
    check_status(unsafe {
        proxy_resolve_shared_queue(ptr::null(), 0, name.as_ptr(), name.len(), &raw mut id)
    })?;
    Ok(id)
}

/// The SDK's `enqueue_shared_queue` panics on a host without queues.
pub(crate) fn enqueue_shared_queue(queue: u32, entry: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the entry during the call.
    check_status(unsafe { proxy_enqueue_shared_queue(queue, entry.as_ptr(), entry.len()) })
}

/// Removes the first entry of a queue of any worker. An empty queue is an error. The SDK's `dequeue_shared_queue` panics
/// on a host without queues.
pub(crate) fn dequeue_shared_queue(queue: u32) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes the address and the size during the call.
    with_output(|data, size| unsafe { proxy_dequeue_shared_queue(queue, data, size) })
}

/// Sends a request without a body to a cluster of the host. Returns the ID of the call, which comes back with the
/// response.
///
/// # Panics
///
/// Uses the SDK's `dispatch_http_call`, which panics on a status other than 0, 2 and 10, and on an ID that is in use.
pub(crate) fn http_call(
    cluster: &str,
    headers: Vec<(&str, &str)>,
    timeout: Duration,
) -> Result<u32, HostError> {
    Ok(proxy_wasm::hostcalls::dispatch_http_call(cluster, headers, None, Vec::new(), timeout)?)
}

/// The right to answer or end one stream. There is one per stream, and it is used up by [`send_local_response`]: two
/// such calls for one HTTP/2 stream in the same callback crash Envoy 1.40.
#[derive(Debug)]
pub(crate) struct StreamEnd {
    stream: u32,
}

impl StreamEnd {
    /// Must be called once per stream, when the host creates its context.
    pub(crate) const fn new(stream: u32) -> Self {
        Self { stream }
    }

    /// Makes the following calls apply to the stream. Only needed in a callback of another context, which must be
    /// restored afterwards by [`set_effective_context`].
    pub(crate) fn make_effective(&self) -> Result<(), HostError> {
        set_effective_context(self.stream)
    }
}

/// Makes the following calls apply to a context. If it fails, they apply to the same context as before. The SDK's
/// `set_effective_context` panics on any failure.
pub(crate) fn set_effective_context(context: u32) -> Result<(), HostError> {
    // SAFETY: no pointers are passed.
    check_status(unsafe { proxy_set_effective_context(context) })
}

/// Answers the request of the stream, or resets the stream if its response has begun. The effective context must be
/// that of the stream. `details` is for the host's access log. The SDK's `send_http_response` passes no details and
/// only UTF-8 values, and panics on any failure.
///
/// # Errors
///
/// Returns the right to end the stream together with the status.
pub(crate) fn send_local_response(
    end: StreamEnd,
    status: u16,
    details: &str,
    headers: &[u8],
    body: &[u8],
) -> Result<(), (StreamEnd, HostError)> {
    const NOT_GRPC: i32 = -1;
    // SAFETY: the host reads the details, the body and the headers during the call.
    check_status(unsafe {
        proxy_send_local_response(
            status.into(),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            NOT_GRPC,
        )
    })
    .map_err(|error| (end, error))
}

/// Returns the ID of the metric. The SDK's `define_metric` panics on a host without metrics.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: the host reads the name, and writes the ID, during the call.
    check_status(unsafe { proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// The SDK's `increment_metric` panics on a host that does not know the ID.
pub(crate) fn increment_metric(id: u32, offset: i64) -> Result<(), HostError> {
    // SAFETY: no pointers are passed.
    check_status(unsafe { proxy_increment_metric(id, offset) })
}

/// The SDK's `record_metric` panics on a host that does not know the ID.
pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: no pointers are passed.
    check_status(unsafe { proxy_record_metric(id, value) })
}

/// Calls a function that only some hosts have. The SDK's `call_foreign_function` panics on a host that answers 12
/// (Unimplemented), as hosts without such functions do.
pub(crate) fn call_foreign_function(name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads the name and the arguments, and writes the address and the size, during the call.
    with_output(|data, size| unsafe {
        proxy_call_foreign_function(
            name.as_ptr(),
            name.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
}

const fn check_status(status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError(status)) }
}

/// Returns the bytes that the host allocated and filled during the call. They are not copied.
fn with_output(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    check_status(call(&raw mut data, &raw mut size))?;
    if data.is_null() || size == 0 {
        return Ok(Vec::new());
    }
    // SAFETY: the ABI has the host obtain `size` bytes from the allocator that the SDK exports (`malloc`), fill them,
    // and pass their ownership on. The SDK takes them from the global allocator with the layout of `size` bytes and
    // keeps no reference.
    Ok(unsafe { Vec::from_raw_parts(data, size, size) })
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, headers: *const u8, headers_size: usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_get_shared_data(
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
        version: *mut u32,
    ) -> u32;
    fn proxy_set_shared_data(
        key: *const u8,
        key_size: usize,
        value: *const u8,
        value_size: usize,
        version: u32,
    ) -> u32;
    fn proxy_register_shared_queue(name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(
        vm_id: *const u8,
        vm_id_size: usize,
        name: *const u8,
        name_size: usize,
        id: *mut u32,
    ) -> u32;
    fn proxy_enqueue_shared_queue(id: u32, entry: *const u8, entry_size: usize) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
}
