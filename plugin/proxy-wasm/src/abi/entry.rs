//! What the host calls. Each costs a crossing wherever it is exported, some of them for every request: there are no
//! more than are needed.

use core::cell::RefCell;

use crate::vm::Vm;

struct Alone(RefCell<Vm>);

// SAFETY: a VM has one thread.
unsafe impl Sync for Alone {}

static VM: Alone = Alone(RefCell::new(Vm::new()));

/// A host that calls back in the middle of a callback gets the answer that lets nothing pass.
fn with<T>(closed: T, callback: impl FnOnce(&mut Vm) -> T) -> T {
    VM.0.try_borrow_mut().map_or(closed, |mut vm| callback(&mut vm))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

/// `parent` is 0 for a root.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, parent: u32) {
    with((), |vm| vm.created(context, parent));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    with((), |vm| vm.deleted(context));
}

/// Whether the configuration is taken.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    with(false, |vm| vm.configure(root)).into()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    with((), |vm| vm.tick(root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(root: u32, token: u32, headers: u32, _body: usize, _trailers: u32) {
    // No headers mean no answer.
    with((), |vm| vm.answered(root, token, headers != 0));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _headers: u32, _end_of_stream: u32) -> u32 {
    with(PAUSE, |vm| if vm.request_headers(context) { CONTINUE } else { PAUSE })
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _trailers: u32) -> u32 {
    with(PAUSE, |vm| if vm.request_trailers(context) { CONTINUE } else { PAUSE })
}

const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
