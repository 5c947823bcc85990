use super::{Host, HttpCall};
use crate::fake_control_plane::Responses;
use anyhow::{Context, Result, ensure};

impl Host {
    /// Acts as the control plane until the filter has accepted or refused the bundle, and waits for the next one.
    pub fn serve(&mut self, served: &Responses) -> Result<()> {
        let mut was_reported = false;
        for _ in 0..ROUNDS {
            self.tick()?;
            for call in std::mem::take(&mut self.state().http_calls) {
                if was_reported && path(&call)?.starts_with(MANIFEST) {
                    self.state().http_calls.push(call);
                    return Ok(());
                }
                was_reported = true;
                self.reply(&call, served)?;
            }
            self.state().now += TICK_NANOS;
        }
        ensure!(was_reported, "the filter did not request a manifest: {:?}", self.state().log);
        Ok(())
    }

    /// Answers the waiting manifest call and the object calls that follow. No time passes.
    pub fn serve_waiting(&mut self, served: &Responses) -> Result<()> {
        let mut was_reported = false;
        while let Some(call) = self.state().http_calls.pop() {
            if was_reported && path(&call)?.starts_with(MANIFEST) {
                self.state().http_calls.push(call);
                break;
            }
            was_reported = true;
            self.reply(&call, served)?;
        }
        ensure!(was_reported, "no call waits: {:?}", self.state().log);
        Ok(())
    }

    pub fn reply(&mut self, call: &HttpCall, served: &Responses) -> Result<()> {
        let path = path(call)?;
        if path.starts_with(MANIFEST) {
            return self.answer_call(call, 200, &served.manifest);
        }
        let hash = path.rsplit(['/', '=']).next().context("no hash")?;
        match served.objects.get(hash) {
            Some(object) => self.answer_call(call, 200, object),
            None => self.answer_call(call, 404, b""),
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
