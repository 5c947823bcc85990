use super::{Host, HttpCall};
use crate::forge::Served;
use anyhow::{Context, Result, ensure};

impl Host {
    /// Acts as the control plane until the filter has accepted or refused the bundle, and waits for the next one.
    pub fn serve(&mut self, served: &Served) -> Result<()> {
        let mut told = false;
        for _ in 0..ROUNDS {
            self.tick()?;
            for call in std::mem::take(&mut self.world().http_calls) {
                if told && path(&call)?.starts_with(MANIFEST) {
                    self.world().http_calls.push(call);
                    return Ok(());
                }
                told = true;
                self.reply(&call, served)?;
            }
            self.world().now += TICK_NANOS;
        }
        ensure!(told, "the filter did not request a manifest: {:?}", self.world().log);
        Ok(())
    }

    /// Answers the waiting manifest call and the object calls that follow. No time passes.
    pub fn serve_waiting(&mut self, served: &Served) -> Result<()> {
        let mut told = false;
        while let Some(call) = self.world().http_calls.pop() {
            if told && path(&call)?.starts_with(MANIFEST) {
                self.world().http_calls.push(call);
                break;
            }
            told = true;
            self.reply(&call, served)?;
        }
        ensure!(told, "no call waits: {:?}", self.world().log);
        Ok(())
    }

    pub fn reply(&mut self, call: &HttpCall, served: &Served) -> Result<()> {
        let path = path(call)?;
        if path.starts_with(MANIFEST) {
            return self.answer(call, 200, &served.manifest);
        }
        let hash = path.rsplit(['/', '=']).next().context("no hash")?;
        match served.objects.get(hash) {
            Some(object) => self.answer(call, 200, object),
            None => self.answer(call, 404, b""),
        }
    }
}

fn path(call: &HttpCall) -> Result<String> {
    let path = call.headers.get(":path").context("a call without a path")?;
    Ok(String::from_utf8(path.to_vec())?)
}

const MANIFEST: &str = "/edge/v1/manifest";

const TICK_NANOS: u64 = 25_000_000;

/// More ticks than the longest back-off.
const ROUNDS: u32 = 1000;
