//! A second host: the filter that ships, in Wasmtime, in this process.
//!
//! This host can do what a real proxy cannot: return any status from any call, have any clock, send any bytes. It measures
//! each request in *fuel*, WebAssembly instructions, which does not depend on the load of the machine.

mod calls;
mod pairs;
mod queues;
mod serve;
mod state;

use crate::tools;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::OnceLock;
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, WasmParams, WasmResults};

pub use pairs::Pairs;
pub use queues::Queues;
pub use state::{Faults, HostState, HttpCall, Interruption, LocalResponse, Shared, UNIMPLEMENTED};

/// One worker: a VM with one plugin context.
pub struct Host {
    store: Store<HostState>,
    instance: Instance,
    memory: Memory,
    streams: u32,
}

/// The result of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It continues to the upstream with these headers.
    Forwarded(Pairs),
    Answered(LocalResponse),
    /// It is paused, without a response.
    Held,
}

/// The cost of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    pub fuel: u64,
    pub calls: BTreeMap<&'static str, u32>,
}

impl Host {
    /// Loads and configures the filter. Returns false if it refuses the configuration.
    pub fn start(mut state: HostState) -> Result<(Self, bool)> {
        if state.thread == 0 {
            state.thread = state.shared.queues.borrow_mut().new_thread();
        }
        let module = module()?;
        let mut store = Store::new(module.engine(), state);
        store.set_fuel(PATIENCE).map_err(fail_start)?;
        let mut linker = Linker::new(module.engine());
        calls::define_hostcalls(&mut linker).map_err(fail_start)?;
        // The SDK imports all calls of the ABI. Those that the filter does not use are traps.
        linker.define_unknown_imports_as_traps(module).map_err(fail_start)?;
        let instance = linker.instantiate(&mut store, module).map_err(fail_start)?;
        let memory = instance.get_memory(&mut store, "memory").context("no memory is exported")?;
        let mut host = Self { store, instance, memory, streams: ROOT };
        host.call::<_, ()>("_initialize", ())?;
        host.create_context(ROOT, 0)?;
        let size = u32::try_from(host.state().configuration.len())?;
        let taken = host.call::<_, u32>("proxy_on_configure", (ROOT, size))? != 0;
        Ok((host, taken))
    }

    /// Replaces a VM that has trapped by a new one, as Envoy does with `FAIL_RELOAD`. Shared data and queues survive; the
    /// HTTP calls of the old VM and the callbacks for its queues do not.
    pub fn restart(&mut self) -> Result<()> {
        let thread = self.state().thread;
        self.state().shared.queues.borrow_mut().lose_callbacks(thread);
        let state = HostState {
            http_calls: Vec::new(),
            contexts: BTreeSet::new(),
            tick_period_ms: None,
            ..std::mem::take(self.state())
        };
        let (host, taken) = Self::start(state)?;
        *self = host;
        ensure!(taken, "the filter refuses the configuration that it had: {:?}", self.state().log);
        Ok(())
    }

    pub fn state(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    pub fn tick(&mut self) -> Result<()> {
        self.tick_of(ROOT)
    }

    pub fn tick_of(&mut self, plugin_context: u32) -> Result<()> {
        self.callback("proxy_on_tick", plugin_context, plugin_context)
    }

    /// Runs the callback for an entry in a queue, whether there is one or not.
    pub fn queue_ready(&mut self, queue: u32) -> Result<()> {
        self.callback("proxy_on_queue_ready", ROOT, (ROOT, queue))
    }

    /// Runs the callbacks for entries in queues, those for the entries that they add included. Returns their number.
    pub fn run_queue_callbacks(&mut self) -> Result<u32> {
        let (queues, thread) = (Rc::clone(&self.state().shared.queues), self.state().thread);
        for number in 0.. {
            let Some(callback) = queues.borrow_mut().next_callback(thread) else { return Ok(number) };
            // A context that is gone gets none.
            if self.state().contexts.contains(&callback.context) {
                let arguments = (callback.context, callback.queue);
                self.callback::<_, ()>("proxy_on_queue_ready", callback.context, arguments)?;
            }
            ensure!(number < MAX_CALLBACKS, "each callback causes another one");
        }
        Ok(0)
    }

    /// Responds to an HTTP call of the filter. Status 0 means no response.
    pub fn answer_call(&mut self, call: &HttpCall, status: u16, body: &[u8]) -> Result<()> {
        let state = self.state();
        let headers = if status == 0 {
            Pairs::default()
        } else {
            Pairs::from_slice(&[(":status", &status.to_string())])
        };
        let count = u32::try_from(headers.0.len())?;
        state.call_response = (headers, body.to_vec());
        let arguments = (ROOT, call.token, count, u32::try_from(body.len())?, 0_u32);
        self.callback("proxy_on_http_call_response", ROOT, arguments)
    }

    pub fn request(&mut self, headers: &Pairs) -> Result<Outcome> {
        let stream = self.open_stream()?;
        let outcome = self.headers(stream, headers)?;
        self.close_stream(stream)?;
        Ok(outcome)
    }

    /// Creates a stream. A filter in front of Keystile may delay its headers.
    pub fn open_stream(&mut self) -> Result<u32> {
        self.streams += 1;
        let stream = self.streams;
        self.create_context(stream, ROOT)?;
        Ok(stream)
    }

    /// Creates a plugin context, whose parent is 0, or the context of a stream.
    pub fn create_context(&mut self, context: u32, parent: u32) -> Result<()> {
        self.state().contexts.insert(context);
        self.callback("proxy_on_context_create", context, (context, parent))
    }

    pub fn delete_context(&mut self, context: u32) -> Result<()> {
        self.callback::<_, ()>("proxy_on_delete", context, context)?;
        self.state().contexts.remove(&context);
        Ok(())
    }

    pub fn headers(&mut self, stream: u32, headers: &Pairs) -> Result<Outcome> {
        let state = self.state();
        state.request_headers = headers.clone();
        state.response = None;
        let count = u32::try_from(headers.0.len())?;
        let action = self.callback::<_, u32>("proxy_on_request_headers", stream, (stream, count, 1_u32))?;
        let state = self.state();
        Ok(match (action, state.response.take()) {
            (0, None) => Outcome::Forwarded(std::mem::take(&mut state.request_headers)),
            (_, Some(response)) => Outcome::Answered(response),
            (_, None) => Outcome::Held,
        })
    }

    pub fn close_stream(&mut self, stream: u32) -> Result<()> {
        self.delete_context(stream)
    }

    /// Like [`Host::request`], and returns the cost.
    pub fn request_with_cost(&mut self, headers: &Pairs) -> Result<(Outcome, Cost)> {
        self.state().counts.clear();
        let before = self.store.get_fuel().map_err(fail_start)?;
        let outcome = self.request(headers)?;
        let fuel = before - self.store.get_fuel().map_err(fail_start)?;
        Ok((outcome, Cost { fuel, calls: self.state().counts.clone() }))
    }

    /// Returns the trailers as the upstream gets them; `None` if they do not reach it.
    pub fn trailers(&mut self, trailers: &Pairs) -> Result<Option<Pairs>> {
        self.state().request_trailers = trailers.clone();
        let stream = self.open_stream()?;
        let forwarded = self.trailers_of(stream)?;
        self.close_stream(stream)?;
        Ok(forwarded.then(|| std::mem::take(&mut self.state().request_trailers)))
    }

    /// Runs the callback for the trailers of a stream. Returns false if they do not continue.
    pub fn trailers_of(&mut self, stream: u32) -> Result<bool> {
        let count = u32::try_from(self.state().request_trailers.0.len())?;
        Ok(self.callback::<_, u32>("proxy_on_request_trailers", stream, (stream, count))? == 0)
    }

    /// Returns the names of all exports of the filter.
    pub fn exports() -> Result<Vec<String>> {
        Ok(module()?.exports().map(|export| export.name().to_owned()).collect())
    }

    /// Returns the memory in pages of 64 KiB.
    pub fn memory_pages(&self) -> u64 {
        self.memory.size(&self.store)
    }

    /// Calls an export of the filter for a context. Calls of the filter apply to it. An error is a trap.
    fn callback<P: WasmParams, R: WasmResults>(
        &mut self,
        name: &str,
        context: u32,
        arguments: P,
    ) -> Result<R> {
        self.state().effective_context = context;
        self.call(name, arguments)
    }

    /// Calls an export of the filter. An error is a trap.
    pub fn call<P: WasmParams, R: WasmResults>(&mut self, name: &str, arguments: P) -> Result<R> {
        if self.store.get_fuel().map_err(fail_start)? < PATIENCE / 2 {
            self.store.set_fuel(PATIENCE).map_err(fail_start)?;
        }
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, name).map_err(fail_start)?;
        function.call(&mut self.store, arguments).map_err(fail_start).with_context(|| format!("in {name}"))
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("world", self.store.data()).finish_non_exhaustive()
    }
}

/// Returns the compiled module, which all hosts of a process share.
fn module() -> Result<&'static Module> {
    static MODULE: OnceLock<Result<Module, String>> = OnceLock::new();
    let compiled = MODULE.get_or_init(|| {
        let mut config = Config::new();
        config.consume_fuel(true);
        let engine = Engine::new(&config).map_err(|error| format!("{error:?}"))?;
        let file = tools::wasm().map_err(|error| format!("{error:#}"))?;
        Module::from_file(&engine, file).map_err(|error| format!("{error:?}"))
    });
    let module = compiled.as_ref().map_err(|error| anyhow!("{error}"))?;
    ensure!(module.get_export("proxy_abi_version_0_2_1").is_some(), "the filter has no known ABI");
    Ok(module)
}

fn fail_start(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}

/// The ID of the first plugin context of a VM.
pub const ROOT: u32 = 1;

/// More than any test causes.
const MAX_CALLBACKS: u32 = 10_000;

/// Far more fuel than any callback needs. An endless loop ends in a trap.
const PATIENCE: u64 = 20_000_000_000;
