//! One VM: the roots that share it. Mostly there is one; two while a new configuration replaces an old one, and where
//! several filters of one proxy have the same `vm_id`.

use alloc::{collections::BTreeMap, format, vec::Vec};

use verdict::Policy;

use crate::{
    abi::{self, Buffer},
    filter, log,
    root::Root,
};

pub(crate) struct Vm {
    roots: Vec<(u32, Root)>,
    /// The root of each stream.
    streams: BTreeMap<u32, u32>,
}

impl Vm {
    pub(crate) const fn new() -> Self {
        Self { roots: Vec::new(), streams: BTreeMap::new() }
    }

    pub(crate) fn created(&mut self, context: u32, parent: u32) {
        if parent != 0 {
            self.streams.insert(context, parent);
        }
    }

    pub(crate) fn deleted(&mut self, context: u32) {
        if self.streams.remove(&context).is_none() {
            self.roots.retain(|(root, _)| *root != context);
        }
    }

    pub(crate) fn configure(&mut self, id: u32) -> bool {
        let json = abi::buffer(Buffer::PluginConfiguration, usize::MAX).unwrap_or_default();
        match Policy::from_json(&json) {
            Ok(policy) => {
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
        let root = *self.streams.get(&stream)?;
        self.root(root)
    }

    fn root(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().find(|(root, _)| *root == id).map(|(_, root)| root)
    }
}
