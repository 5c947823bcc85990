//! One VM: the roots that share it. Mostly there is one; two while a new configuration replaces an old one, and where
//! several filters of one proxy have the same `vm_id`.

use alloc::{format, vec::Vec};

use verdict::{Environment, Policy};

use crate::{
    abi::{self, Buffer},
    filter, log,
    root::Root,
};

pub(crate) struct Vm {
    roots: Vec<(u32, Root)>,
    /// Each stream and its root, by stream: a host gives each a higher number than the one before.
    streams: Vec<(u32, u32)>,
}

impl Vm {
    pub(crate) const fn new() -> Self {
        Self { roots: Vec::new(), streams: Vec::new() }
    }

    pub(crate) fn created(&mut self, context: u32, parent: u32) {
        if parent != 0 {
            let place = self.streams.partition_point(|(stream, _)| *stream < context);
            self.streams.insert(place, (context, parent));
        }
    }

    pub(crate) fn deleted(&mut self, context: u32) {
        match self.place(context) {
            Ok(place) => drop(self.streams.remove(place)),
            Err(_) => self.roots.retain(|(root, _)| *root != context),
        }
    }

    pub(crate) fn configure(&mut self, id: u32) -> bool {
        let json = abi::buffer(Buffer::PluginConfiguration, usize::MAX).unwrap_or_default();
        let environment = Environment::from_block(abi::environment());
        match Policy::from_json_in(&json, &environment) {
            Ok(policy) => {
                if policy.has_inline_secrets() {
                    log::warn(
                        "a secret stands in the plugin configuration, where whoever reads the host's configuration \
                         dump finds it; see `allow_inline_secrets` in the documentation for better places",
                    );
                }
                let root = Root::new(policy, &json);
                let taken = root.is_some();
                self.deleted(id);
                self.roots.extend(root.map(|root| (id, root)));
                taken
            }
            Err(error) => {
                log::error(&format!("the plugin configuration is wrong at {error}"));
                false
            }
        }
    }

    pub(crate) fn tick(&mut self, id: u32) {
        if let Some(root) = self.root(id) {
            root.tick();
        }
    }

    pub(crate) fn answered(&mut self, id: u32, token: u32, answered: bool) {
        if let Some(root) = self.root(id) {
            root.answered(token, answered);
        }
    }

    /// Whether the request goes on.
    pub(crate) fn request_headers(&mut self, stream: u32) -> bool {
        match self.root_of(stream) {
            Some(root) => filter::request_headers(root.worker()),
            None => filter::closed(),
        }
    }

    /// Whether the request goes on.
    pub(crate) fn request_trailers(&mut self, stream: u32) -> bool {
        match self.root_of(stream) {
            Some(root) => filter::request_trailers(root.worker()),
            None => filter::closed(),
        }
    }

    fn root_of(&mut self, stream: u32) -> Option<&mut Root> {
        let (_, root) = *self.streams.get(self.place(stream).ok()?)?;
        self.root(root)
    }

    fn place(&self, stream: u32) -> Result<usize, usize> {
        self.streams.binary_search_by_key(&stream, |(stream, _)| *stream)
    }

    fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(root, _)| *root == id).map(|(_, root)| root)
    }
}
