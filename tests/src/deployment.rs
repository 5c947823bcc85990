use crate::envoy::Settings;
use crate::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream};
use anyhow::Result;
use serde_json::Value;

/// Control plane, Envoy with the filter, upstream: running and in agreement.
#[derive(Debug)]
pub struct Deployment {
    // In the order of their end: first those that depend on the others.
    pub envoy: Envoy,
    pub control_plane: ControlPlane,
    pub upstream: Upstream,
    pub scratch: Scratch,
}

/// What a test wants different from the usual.
#[derive(Debug)]
pub struct Options {
    pub store: Store,
    /// Settings of the control plane, as environment variables.
    pub settings: Vec<(&'static str, String)>,
    /// Changes the plugin configuration that enrolling the edge gave.
    pub plugin: fn(&mut Value),
    pub envoy: fn(&mut Settings),
}

impl Default for Options {
    fn default() -> Self {
        Self { store: Store::Sqlite, settings: Vec::new(), plugin: |_| (), envoy: |_| () }
    }
}

impl Deployment {
    pub async fn start(options: Options) -> Result<Self> {
        let scratch = Scratch::new()?;
        let upstream = Upstream::start(scratch.address(8081)).await?;
        let control_plane = ControlPlane::start(&scratch, options.store, &options.settings).await?;
        let edge = scratch.folder().join("edge");
        let mut plugin_configuration = control_plane.enroll_into("edge", &edge)?.plugin_configuration;
        (options.plugin)(&mut plugin_configuration);
        let mut settings = Settings::for_scratch(&scratch, plugin_configuration)?;
        settings.edge_files = Some(edge);
        (options.envoy)(&mut settings);
        let envoy = Envoy::start(settings, scratch.folder()).await?;
        Ok(Self { envoy, control_plane, upstream, scratch })
    }

    /// A token of the root user, and a connection to each worker, all of which admit it.
    pub async fn admitted_token(&self) -> Result<(String, Vec<Connection>)> {
        let token = self.control_plane.token().await?;
        let workers = self.envoy.wait_admitting(&token).await?;
        Ok((token, workers))
    }
}
