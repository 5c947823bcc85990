//! Calls to the host. None of them panics, whatever the host answers.

use alloc::vec::Vec;
use core::{fmt, ptr};

use super::memory::received;

/// The status of a call that the host did not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HostError(u32);

impl HostError {
    pub(crate) const NOT_FOUND: Self = Self(1);
    pub(crate) const BAD_ARGUMENT: Self = Self(2);
    /// Somebody else has written since.
    pub(crate) const MISMATCH: Self = Self(8);
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.0)
    }
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum LogLevel {
    Info = 2,
    Warn = 3,
    Error = 4,
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Buffer {
    CallResponseBody = 4,
    PluginConfiguration = 7,
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    CallResponseHeaders = 6,
}

#[derive(Debug, Clone, Copy)]
#[repr(u32)]
pub(crate) enum Metric {
    Counter = 0,
    Gauge = 1,
}

pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: the host reads the message during the call. Where it cannot log, nothing can be said about it.
    let _ = unsafe { proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn current_time() -> Result<u64, HostError> {
    let mut nanos = 0;
    // SAFETY: the host writes the number during the call.
    done(unsafe { proxy_get_current_time_nanoseconds(&raw mut nanos) })?;
    Ok(nanos)
}

pub(crate) fn set_tick_period(milliseconds: u32) -> Result<(), HostError> {
    // SAFETY: no pointers.
    done(unsafe { proxy_set_tick_period_milliseconds(milliseconds) })
}

/// At most `max` bytes from the beginning.
pub(crate) fn buffer(buffer: Buffer, max: usize) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes where and how much during the call.
    given(|data, size| unsafe { proxy_get_buffer_bytes(buffer as u32, 0, max, data, size) })
}

/// As [`crate::pairs`] reads them.
pub(crate) fn headers(map: Map) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes where and how much during the call.
    given(|data, size| unsafe { proxy_get_header_map_pairs(map as u32, data, size) })
}

/// As [`crate::pairs`] writes them.
pub(crate) fn set_headers(map: Map, pairs: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads the pairs during the call.
    done(unsafe { proxy_set_header_map_pairs(map as u32, pairs.as_ptr(), pairs.len()) })
}

/// All of that name.
pub(crate) fn remove_header(map: Map, name: &str) -> Result<(), HostError> {
    // SAFETY: the host reads the name during the call.
    done(unsafe { proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

pub(crate) fn add_header(map: Map, name: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads name and value during the call.
    done(unsafe {
        proxy_add_header_map_value(map as u32, name.as_ptr(), name.len(), value.as_ptr(), value.len())
    })
}

pub(crate) fn header(map: Map, name: &str) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads the name and writes where and how much during the call.
    given(|data, size| unsafe {
        proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    })
}

/// `path` has a 0 between its parts.
pub(crate) fn property(path: &str) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads the path and writes where and how much during the call.
    given(|data, size| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// The value and its version, for [`set_shared_data`] to compare with. No value is an error.
pub(crate) fn shared_data(key: &str) -> Result<(Vec<u8>, u32), HostError> {
    let mut version = 0;
    // SAFETY: the host reads the key and writes version, where and how much during the call.
    let value = given(|data, size| unsafe {
        proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut version)
    })?;
    Ok((value, version))
}

/// Version 0 overwrites whatever is there.
pub(crate) fn set_shared_data(key: &str, value: &[u8], version: u32) -> Result<(), HostError> {
    // SAFETY: the host reads key and value during the call.
    done(unsafe { proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), version) })
}

/// The token of the call, which comes back with the answer.
pub(crate) fn http_call(upstream: &str, headers: &[u8], timeout_ms: u32) -> Result<u32, HostError> {
    const NO_TRAILERS: [u8; 4] = [0; 4];
    let mut token = 0;
    // SAFETY: the host reads upstream, headers and trailers and writes the token during the call.
    done(unsafe {
        proxy_http_call(
            upstream.as_ptr(),
            upstream.len(),
            headers.as_ptr(),
            headers.len(),
            ptr::null(),
            0,
            NO_TRAILERS.as_ptr(),
            NO_TRAILERS.len(),
            timeout_ms,
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// `details` is for the access log of the host.
pub(crate) fn send_response(
    status: u16,
    details: &str,
    headers: &[u8],
    body: &[u8],
) -> Result<(), HostError> {
    const NOT_GRPC: i32 = -1;
    // SAFETY: the host reads details, body and headers during the call.
    done(unsafe {
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
}

pub(crate) fn define_metric(metric: Metric, name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: the host reads the name and writes the number during the call.
    done(unsafe { proxy_define_metric(metric as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

pub(crate) fn increment_metric(id: u32, by: i64) -> Result<(), HostError> {
    // SAFETY: no pointers.
    done(unsafe { proxy_increment_metric(id, by) })
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: no pointers.
    done(unsafe { proxy_record_metric(id, value) })
}

pub(crate) fn set_property(path: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads path and value during the call.
    done(unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) })
}

/// A function that only some hosts have.
pub(crate) fn call_foreign_function(name: &str, arguments: &[u8]) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host reads name and arguments and writes where and how much during the call.
    given(|data, size| unsafe {
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

fn done(status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError(status)) }
}

fn given(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    done(call(&raw mut data, &raw mut size))?;
    Ok(received(data, size))
}

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, message: *const u8, message_size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(nanos: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(
        buffer: u32,
        start: usize,
        max: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_header_map_pairs(map: u32, pairs: *const u8, pairs_size: usize) -> u32;
    fn proxy_remove_header_map_value(map: u32, name: *const u8, name_size: usize) -> u32;
    fn proxy_add_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        value: *const u8,
        value_size: usize,
    ) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        name: *const u8,
        name_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, size: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        arguments: *const u8,
        arguments_size: usize,
        data: *mut *mut u8,
        size: *mut usize,
    ) -> u32;
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
    fn proxy_http_call(
        upstream: *const u8,
        upstream_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout: u32,
        token: *mut u32,
    ) -> u32;
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
    fn proxy_define_metric(metric: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
    fn proxy_increment_metric(id: u32, by: i64) -> u32;
    fn proxy_record_metric(id: u32, value: u64) -> u32;
}
