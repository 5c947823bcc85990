//! The exports for a wasm host: it writes an object into `room`, opens it, and queries the set.

#![expect(unsafe_code, reason = "exported names are an unsafe attribute; there is no unsafe code")]

use crate::{Kind, Set, fingerprint};
use std::cell::RefCell;

struct State {
    set: Set,
    inbox: Vec<u8>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::new(State { set: Set::new(Kind::Nothing), inbox: Vec::new() });
}

/// Starts a new set of the kind at an index of [`Kind::ALL`].
#[unsafe(no_mangle)]
pub extern "C" fn begin(kind: usize) {
    STATE.with_borrow_mut(|state| state.set = Set::new(Kind::ALL[kind]));
}

#[unsafe(no_mangle)]
pub extern "C" fn room(length: usize) -> *mut u8 {
    STATE.with_borrow_mut(|state| {
        state.inbox = vec![0; length];
        state.inbox.as_mut_ptr()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn open() -> u32 {
    STATE.with_borrow_mut(|state| {
        let object = std::mem::take(&mut state.inbox);
        state.set.open(object)[0].into()
    })
}

/// Returns how many of these members the set contains.
#[unsafe(no_mangle)]
pub extern "C" fn ask(first: u32, step: u32, count: u32) -> u32 {
    STATE.with_borrow(|state| {
        let members = (0..count).map(|number| fingerprint(first + step * number));
        members.map(|member| u32::from(state.set.contains(&member))).sum()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn bytes() -> usize {
    STATE.with_borrow(|state| state.set.bytes())
}
