use super::{Host, HttpCall};
use crate::forge::Served;
use anyhow::{Context, Result, ensure};

impl Host {
    /// Plays the control plane until the filter has taken what is served, or refused it, and waits for news.
    pub fn serve(&mut self, served: &Served) -> Result<()> {
        let mut told = false;
        for _ in 0..ROUNDS {
            self.tick()?;
            for call in std::mem::take(&mut self.world().http_calls) {
                let path = path(&call)?;
                if path.starts_with("/edge/v1/manifest") {
                    if told {
                        self.world().http_calls.push(call);
                        return Ok(());
                    }
                    told = true;
                    self.answer(&call, 200, &served.manifest)?;
                } else {
                    let hash = path.rsplit(['/', '=']).next().context("no hash")?;
                    match served.objects.get(hash) {
                        Some(object) => self.answer(&call, 200, object)?,
                        None => self.answer(&call, 404, b"")?,
                    }
                }
            }
            self.world().now += TICK_NANOS;
        }
        ensure!(told, "the filter never asked for a manifest: {:?}", self.world().log);
        Ok(())
    }
}

fn path(call: &HttpCall) -> Result<String> {
    let path = call.headers.get(":path").context("a call without a path")?;
    Ok(String::from_utf8(path.to_vec())?)
}

const TICK_NANOS: u64 = 25_000_000;

/// More ticks than any back-off lasts.
const ROUNDS: u32 = 1000;
