//! A second host: the filter that ships, in Wasmtime, in this process.
//!
//! What a real proxy cannot be made to do is done here: any status of any call, any clock, any bytes; and every request
//! has a price in *fuel*, instructions of WebAssembly, which is the same on every machine, however busy.

mod calls;
mod pairs;
mod serve;
mod state;

use crate::tools;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, WasmParams, WasmResults};

pub use pairs::Pairs;
pub use state::{Faults, HostState, HttpCall, Interruption, LocalResponse, Shared, UNIMPLEMENTED};

/// One worker: a VM with one root.
pub struct Host {
    store: Store<HostState>,
    instance: Instance,
    memory: Memory,
    streams: u32,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes to the upstream with these headers.
    Forwarded(Pairs),
    Answered(LocalResponse),
    /// It waits, without an answer.
    Held,
}

/// What a request took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    pub fuel: u64,
    pub calls: BTreeMap<&'static str, u32>,
}

impl Host {
    /// Loads the filter and configures it; false when it refuses the configuration.
    pub fn start(state: HostState) -> Result<(Self, bool)> {
        let module = module()?;
        let mut store = Store::new(module.engine(), state);
        store.set_fuel(PATIENCE).map_err(fail_start)?;
        let mut linker = Linker::new(module.engine());
        calls::define_hostcalls(&mut linker).map_err(fail_start)?;
        // The SDK imports the whole ABI. What the filter does not call is a trap.
        linker.define_unknown_imports_as_traps(module).map_err(fail_start)?;
        let instance = linker.instantiate(&mut store, module).map_err(fail_start)?;
        let memory = instance.get_memory(&mut store, "memory").context("no memory is exported")?;
        let mut host = Self { store, instance, memory, streams: ROOT };
        host.call::<_, ()>("_initialize", ())?;
        host.call::<_, ()>("proxy_on_context_create", (ROOT, 0))?;
        let size = u32::try_from(host.state().configuration.len())?;
        let taken = host.call::<_, u32>("proxy_on_configure", (ROOT, size))? != 0;
        Ok((host, taken))
    }

    /// Starts a new VM in the place of one that has trapped, as Envoy does with `FAIL_RELOAD`. Shared data outlives the
    /// VM; the calls that it made do not.
    pub fn restart(&mut self) -> Result<()> {
        let state =
            HostState { http_calls: Vec::new(), tick_period_ms: None, ..std::mem::take(self.state()) };
        let (host, taken) = Self::start(state)?;
        *self = host;
        ensure!(taken, "the filter refuses the configuration that it had: {:?}", self.state().log);
        Ok(())
    }

    pub fn state(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    pub fn tick(&mut self) -> Result<()> {
        self.call("proxy_on_tick", ROOT)
    }

    /// Answers a call that the filter made; status 0 is that there is no answer.
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
        self.call("proxy_on_http_call_response", arguments)
    }

    pub fn request(&mut self, headers: &Pairs) -> Result<Outcome> {
        let stream = self.open_stream()?;
        let outcome = self.headers(stream, headers)?;
        self.close_stream(stream)?;
        Ok(outcome)
    }

    /// A stream begins; a filter in front of ours may hold it.
    pub fn open_stream(&mut self) -> Result<u32> {
        self.streams += 1;
        let stream = self.streams;
        self.call::<_, ()>("proxy_on_context_create", (stream, ROOT))?;
        Ok(stream)
    }

    pub fn headers(&mut self, stream: u32, headers: &Pairs) -> Result<Outcome> {
        let state = self.state();
        state.request_headers = headers.clone();
        state.response = None;
        let count = u32::try_from(headers.0.len())?;
        let action = self.call::<_, u32>("proxy_on_request_headers", (stream, count, 1_u32))?;
        let state = self.state();
        Ok(match (action, state.response.take()) {
            (0, None) => Outcome::Forwarded(std::mem::take(&mut state.request_headers)),
            (_, Some(response)) => Outcome::Answered(response),
            (_, None) => Outcome::Held,
        })
    }

    pub fn close_stream(&mut self, stream: u32) -> Result<()> {
        self.call("proxy_on_delete", stream)
    }

    /// As [`Host::request`], with its price.
    pub fn request_with_cost(&mut self, headers: &Pairs) -> Result<(Outcome, Cost)> {
        self.state().counts.clear();
        let before = self.store.get_fuel().map_err(fail_start)?;
        let outcome = self.request(headers)?;
        let fuel = before - self.store.get_fuel().map_err(fail_start)?;
        Ok((outcome, Cost { fuel, calls: self.state().counts.clone() }))
    }

    /// The trailers as the upstream gets them; None when they do not reach it.
    pub fn trailers(&mut self, trailers: &Pairs) -> Result<Option<Pairs>> {
        self.state().request_trailers = trailers.clone();
        let (stream, count) = (self.open_stream()?, u32::try_from(trailers.0.len())?);
        let action = self.call::<_, u32>("proxy_on_request_trailers", (stream, count))?;
        self.close_stream(stream)?;
        Ok((action == 0).then(|| std::mem::take(&mut self.state().request_trailers)))
    }

    /// The names of everything that the filter exports.
    pub fn exports() -> Result<Vec<String>> {
        Ok(module()?.exports().map(|export| export.name().to_owned()).collect())
    }

    /// Memory in pages of 64 KiB.
    pub fn memory_pages(&self) -> u64 {
        self.memory.size(&self.store)
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

/// Compiled once for all the hosts of a process.
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
    ensure!(module.get_export("proxy_abi_version_0_2_1").is_some(), "the filter speaks no known ABI");
    Ok(module)
}

fn fail_start(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:?}")
}

/// The first plugin context of a VM.
pub const ROOT: u32 = 1;

/// Far more than any callback takes: an endless loop ends in a trap.
const PATIENCE: u64 = 20_000_000_000;
