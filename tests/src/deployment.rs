use crate::envoy::Settings;
use crate::{Connection, ControlPlane, Envoy, Scratch, Store, Upstream};
use anyhow::Result;
use serde_json::Value;

/// A running deployment: control plane, Envoy with the filter, and upstream.
#[derive(Debug)]
pub struct Deployment {
    // Fields are dropped in this order: dependents first.
    pub envoy: Envoy,
    pub control_plane: ControlPlane,
    pub upstream: Upstream,
    pub scratch: Scratch,
}

/// The settings that a test changes.
#[derive(Debug)]
pub struct Options {
    pub store: Store,
    /// Settings of the control plane, as environment variables.
    pub settings: Vec<(&'static str, String)>,
    /// Changes the plugin configuration that `edge enroll` printed.
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

    /// Returns a token of the root user, and a connection to each worker. All of them admit the token.
    pub async fn admitted_token(&self) -> Result<(String, Vec<Connection>)> {
        let token = self.control_plane.token().await?;
        let workers = self.envoy.wait_admitting(&token).await?;
        Ok((token, workers))
    }
}
