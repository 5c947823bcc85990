//! The host calls of ABI 0.2.1. A pointer out of bounds is a trap.

use super::pairs::Pairs;
use super::state::{BAD_ARGUMENT, EMPTY, HostState, HttpCall, LocalResponse, MISMATCH, NOT_FOUND, OK};
use wasmtime::{Caller, Extern, Linker, Memory, Result, Val};

type Guest<'a> = Caller<'a, HostState>;
/// The address and size of bytes in the memory of the guest.
type At = (u32, u32);

pub(super) fn define_hostcalls(linker: &mut Linker<HostState>) -> Result<()> {
    /// Defines a call that is counted, and that fails if the world is configured so.
    macro_rules! call {
        ($name:ident, |$guest:ident $(, $argument:ident: $type:ty)*| $body:expr) => {
            linker.func_wrap(
                "env",
                stringify!($name),
                |mut $guest: Guest<'_> $(, $argument: $type)*| -> Result<u32> {
                    interrupt(&mut $guest, stringify!($name))?;
                    match fault(&mut $guest, stringify!($name)) {
                        Some(status) => Ok(status),
                        None => $body,
                    }
                },
            )?;
        };
    }

    call!(proxy_log, |guest, _level: u32, message: u32, size: u32| {
        let message = String::from_utf8_lossy(&read(&mut guest, (message, size))?).into_owned();
        guest.data_mut().log.push(message);
        Ok(OK)
    });
    call!(proxy_get_current_time_nanoseconds, |guest, at: u32| {
        let now = guest.data().now;
        write(&mut guest, at, &now.to_le_bytes())
    });
    call!(proxy_set_tick_period_milliseconds, |guest, period: u32| {
        guest.data_mut().tick_period_ms = Some(period);
        Ok(OK)
    });
    call!(proxy_get_buffer_bytes, |guest, kind: u32, start: u32, max: u32, data: u32, size: u32| {
        let bytes = match kind {
            4 => guest.data().call_response.1.clone(),
            7 => guest.data().configuration.clone(),
            _ => return Ok(BAD_ARGUMENT),
        };
        let bytes = bytes.iter().skip(start as usize).take(max as usize).copied().collect::<Vec<u8>>();
        write_to_guest(&mut guest, &bytes, (data, size))
    });
    call!(proxy_get_header_map_pairs, |guest, map: u32, data: u32, size: u32| {
        match headers(guest.data_mut(), map) {
            Some(pairs) => {
                let bytes = pairs.encode();
                write_to_guest(&mut guest, &bytes, (data, size))
            }
            None => Ok(BAD_ARGUMENT),
        }
    });
    call!(proxy_set_header_map_pairs, |guest, map: u32, data: u32, size: u32| {
        let pairs = Pairs::decode(&read(&mut guest, (data, size))?);
        match (headers(guest.data_mut(), map), pairs) {
            (Some(held), Some(pairs)) => {
                *held = pairs;
                Ok(OK)
            }
            _ => Ok(BAD_ARGUMENT),
        }
    });
    call!(proxy_remove_header_map_value, |guest, map: u32, key: u32, key_size: u32| {
        let name = read(&mut guest, (key, key_size))?;
        let Some(pairs) = headers(guest.data_mut(), map) else { return Ok(BAD_ARGUMENT) };
        pairs.0.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
        Ok(OK)
    });
    call!(proxy_add_header_map_value, |guest, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
        let pair = (read(&mut guest, (key, key_size))?, read(&mut guest, (data, size))?);
        let Some(pairs) = headers(guest.data_mut(), map) else { return Ok(BAD_ARGUMENT) };
        pairs.0.push(pair);
        Ok(OK)
    });
    call!(proxy_get_header_map_value, |guest, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
        let name = read(&mut guest, (key, key_size))?;
        let Some(pairs) = headers(guest.data_mut(), map) else { return Ok(BAD_ARGUMENT) };
        match pairs.0.iter().find(|(known, _)| *known == name) {
            Some((_, value)) => {
                let value = value.clone();
                write_to_guest(&mut guest, &value, (data, size))
            }
            None => Ok(NOT_FOUND),
        }
    });
    call!(proxy_get_property, |guest, path: u32, path_size: u32, data: u32, size: u32| {
        let path = property(&read(&mut guest, (path, path_size))?);
        match guest.data().properties.get(&path).cloned() {
            Some(value) => write_to_guest(&mut guest, &value, (data, size)),
            None => Ok(NOT_FOUND),
        }
    });
    call!(proxy_set_property, |guest, path: u32, path_size: u32, data: u32, size: u32| {
        let path = property(&read(&mut guest, (path, path_size))?);
        let value = read(&mut guest, (data, size))?;
        guest.data_mut().properties.insert(path, value);
        Ok(OK)
    });
    call!(proxy_get_shared_data, |guest, key: u32, key_size: u32, data: u32, size: u32, version: u32| {
        let key = read(&mut guest, (key, key_size))?;
        let held = guest.data().shared.values.borrow().get(&key).cloned();
        match held {
            Some((value, held)) => {
                write(&mut guest, version, &held.to_le_bytes())?;
                write_to_guest(&mut guest, &value, (data, size))
            }
            None => Ok(NOT_FOUND),
        }
    });
    call!(proxy_set_shared_data, |guest, key: u32, key_size: u32, data: u32, size: u32, version: u32| {
        let (key, value) = (read(&mut guest, (key, key_size))?, read(&mut guest, (data, size))?);
        let mut shared = guest.data().shared.values.borrow_mut();
        let held = shared.get(&key).map_or(0, |(_, held)| *held);
        if version != 0 && version != held {
            return Ok(MISMATCH);
        }
        shared.insert(key, (value, held + 1));
        Ok(OK)
    });
    call!(proxy_register_shared_queue, |guest, name: u32, name_size: u32, id: u32| {
        let name = String::from_utf8_lossy(&read(&mut guest, (name, name_size))?).into_owned();
        let HostState { shared, thread, effective_context, .. } = guest.data();
        let queue = shared.queues.borrow_mut().register(name, *thread, *effective_context);
        write(&mut guest, id, &queue.to_le_bytes())
    });
    call!(proxy_resolve_shared_queue, |guest,
                                       _vm_id: u32,
                                       vm_id_size: u32,
                                       name: u32,
                                       name_size: u32,
                                       id: u32| {
        let name = String::from_utf8_lossy(&read(&mut guest, (name, name_size))?).into_owned();
        let queue = guest.data().shared.queues.borrow().resolve(&name);
        match queue {
            Some(queue) if vm_id_size == 0 => write(&mut guest, id, &queue.to_le_bytes()),
            _ => Ok(NOT_FOUND),
        }
    });
    call!(proxy_enqueue_shared_queue, |guest, id: u32, entry: u32, entry_size: u32| {
        let entry = read(&mut guest, (entry, entry_size))?;
        let is_known = guest.data().shared.queues.borrow_mut().enqueue(id, entry);
        Ok(if is_known { OK } else { NOT_FOUND })
    });
    call!(proxy_dequeue_shared_queue, |guest, id: u32, data: u32, size: u32| {
        let entry = guest.data().shared.queues.borrow_mut().dequeue(id);
        match entry {
            Ok(Some(entry)) => write_to_guest(&mut guest, &entry, (data, size)),
            Ok(None) => Ok(EMPTY),
            Err(()) => Ok(NOT_FOUND),
        }
    });
    call!(proxy_set_effective_context, |guest, context: u32| {
        let state = guest.data_mut();
        if !state.contexts.contains(&context) {
            return Ok(BAD_ARGUMENT);
        }
        state.effective_context = context;
        Ok(OK)
    });
    call!(proxy_http_call, |guest,
                            upstream: u32,
                            upstream_size: u32,
                            headers: u32,
                            headers_size: u32,
                            _body: u32,
                            _body_size: u32,
                            _trailers: u32,
                            _trailers_size: u32,
                            timeout_ms: u32,
                            token: u32| {
        let upstream = String::from_utf8_lossy(&read(&mut guest, (upstream, upstream_size))?).into_owned();
        let Some(headers) = Pairs::decode(&read(&mut guest, (headers, headers_size))?) else {
            return Ok(BAD_ARGUMENT);
        };
        let state = guest.data_mut();
        state.last_call_id += 1;
        let number = state.fixed_call_id.unwrap_or(state.last_call_id);
        state.http_calls.push(HttpCall { token: number, upstream, headers, timeout_ms });
        write(&mut guest, token, &number.to_le_bytes())
    });
    call!(proxy_send_local_response, |guest,
                                      status: u32,
                                      details: u32,
                                      details_size: u32,
                                      body: u32,
                                      body_size: u32,
                                      headers: u32,
                                      headers_size: u32,
                                      _grpc_status: u32| {
        let details = String::from_utf8_lossy(&read(&mut guest, (details, details_size))?).into_owned();
        let body = read(&mut guest, (body, body_size))?;
        let Some(headers) = Pairs::decode(&read(&mut guest, (headers, headers_size))?) else {
            return Ok(BAD_ARGUMENT);
        };
        let response = LocalResponse { status, details, headers, body };
        let state = guest.data_mut();
        state.closing_actions.push((state.effective_context, response.clone()));
        state.response = Some(response);
        Ok(OK)
    });
    call!(proxy_define_metric, |guest, _kind: u32, name: u32, name_size: u32, id: u32| {
        let name = String::from_utf8_lossy(&read(&mut guest, (name, name_size))?).into_owned();
        let metrics = &mut guest.data_mut().metrics;
        metrics.push((name, 0));
        let number = u32::try_from(metrics.len() - 1)?;
        write(&mut guest, id, &number.to_le_bytes())
    });
    call!(proxy_increment_metric, |guest, id: u32, by: i64| {
        Ok(metric(guest.data_mut(), id, |value| value + by))
    });
    call!(proxy_record_metric, |guest, id: u32, value: i64| Ok(metric(guest.data_mut(), id, |_| value)));
    call!(proxy_call_foreign_function, |guest,
                                        name: u32,
                                        name_size: u32,
                                        arguments: u32,
                                        arguments_size: u32,
                                        data: u32,
                                        size: u32| {
        let name = String::from_utf8_lossy(&read(&mut guest, (name, name_size))?).into_owned();
        let arguments = read(&mut guest, (arguments, arguments_size))?;
        match guest.data_mut().functions.get_mut(&name).map(|function| function(&arguments)) {
            Some(Ok(result)) => write_to_guest(&mut guest, &result, (data, size)),
            Some(Err(status)) => Ok(status),
            None => Ok(NOT_FOUND),
        }
    });
    define_wasi(linker)
}

/// Defines the environment and randomness. Status 0 is success; any other means that the host has none.
fn define_wasi(linker: &mut Linker<HostState>) -> Result<()> {
    let module = "wasi_snapshot_preview1";
    linker.func_wrap(module, "environ_sizes_get", |mut guest: Guest<'_>, count: u32, size: u32| {
        if let Some(status) = fault(&mut guest, "environ_sizes_get") {
            return Ok(status);
        }
        let block = guest.data().environment.clone();
        let entries = u32::try_from(block.split(|byte| *byte == 0).count())?;
        write(&mut guest, count, &entries.to_le_bytes())?;
        write(&mut guest, size, &u32::try_from(block.len())?.to_le_bytes())
    })?;
    linker.func_wrap(module, "environ_get", |mut guest: Guest<'_>, entries: u32, bytes: u32| {
        if let Some(status) = fault(&mut guest, "environ_get") {
            return Ok(status);
        }
        let block = guest.data().environment.clone();
        let mut at = bytes;
        for (index, entry) in (0..).zip(block.split(|byte| *byte == 0)) {
            write(&mut guest, entries + 4 * index, &at.to_le_bytes())?;
            at += u32::try_from(entry.len())? + 1;
        }
        write(&mut guest, bytes, &block)
    })?;
    // The bytes are the same at each call, so that the cost is.
    linker.func_wrap(module, "random_get", |mut guest: Guest<'_>, buffer: u32, size: u32| {
        match fault(&mut guest, "random_get") {
            Some(status) => Ok(status),
            None => write(&mut guest, buffer, &vec![7; size as usize]),
        }
    })?;
    Ok(())
}

/// Runs the callback that interrupts this call.
fn interrupt(guest: &mut Guest<'_>, call: &'static str) -> Result<()> {
    let Some(interruption) = guest.data_mut().interruption.take_if(|next| next.call == call) else {
        return Ok(());
    };
    let callback = guest.get_export(interruption.callback).and_then(Extern::into_func);
    let callback = callback.ok_or_else(|| wasmtime::Error::msg("no such callback"))?;
    let arguments: Vec<Val> =
        interruption.arguments.iter().map(|argument| Val::I32(argument.cast_signed())).collect();
    let mut results = vec![Val::I32(0); callback.ty(&*guest).results().len()];
    callback.call(&mut *guest, &arguments, &mut results)?;
    guest.data_mut().interrupted = results.first().and_then(Val::i32).map(i32::cast_unsigned);
    Ok(())
}

fn fault(guest: &mut Guest<'_>, call: &'static str) -> Option<u32> {
    let state = guest.data_mut();
    *state.counts.entry(call).or_default() += 1;
    state.faults.0.as_mut()?(call)
}

fn headers(state: &mut HostState, map: u32) -> Option<&mut Pairs> {
    match map {
        0 => Some(&mut state.request_headers),
        1 => Some(&mut state.request_trailers),
        6 => Some(&mut state.call_response.0),
        _ => None,
    }
}

fn metric(state: &mut HostState, id: u32, change: impl FnOnce(i64) -> i64) -> u32 {
    match state.metrics.get_mut(id as usize) {
        Some((_, value)) => {
            *value = change(*value);
            OK
        }
        None => NOT_FOUND,
    }
}

fn property(path: &[u8]) -> String {
    String::from_utf8_lossy(path).replace('\0', ".")
}

fn memory(guest: &mut Guest<'_>) -> Memory {
    guest.get_export("memory").and_then(Extern::into_memory).expect("seen when it was started")
}

fn read(guest: &mut Guest<'_>, (at, size): At) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    memory(guest).read(guest, at as usize, &mut bytes)?;
    Ok(bytes)
}

fn write(guest: &mut Guest<'_>, at: u32, bytes: &[u8]) -> Result<u32> {
    memory(guest).write(guest, at as usize, bytes)?;
    Ok(OK)
}

/// Copies bytes into memory that the guest allocates, and writes their address and size.
fn write_to_guest(guest: &mut Guest<'_>, bytes: &[u8], (data, size): At) -> Result<u32> {
    let length = u32::try_from(bytes.len())?;
    let mut room = 0;
    if length > 0 {
        let allocate = guest.get_export("malloc").and_then(Extern::into_func);
        let allocate = allocate.expect("every filter exports it").typed::<u32, u32>(&*guest)?;
        room = allocate.call(&mut *guest, length)?;
        write(guest, room, bytes)?;
    }
    write(guest, data, &room.to_le_bytes())?;
    write(guest, size, &length.to_le_bytes())
}
