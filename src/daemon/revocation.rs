//! What follows when a token is revoked: its runs are paused, because a leaked token must not continue to spend.

use crate::store::{RunNumber, RunState};
use crate::types::error_chain;

use super::daemon::Daemon;
use super::run_command::RunCommand;

impl Daemon {
    /// Pauses the runs in progress that the holder of this token has created. Their calls in flight end.
    pub(super) async fn pause_runs_of(&self, token: &str) {
        for run in self.open_runs().numbers() {
            match self.pause_if_of(run, token).await {
                Ok(true) => tracing::warn!(run = run.0, token, "the run is paused: its token was revoked"),
                Ok(false) => {}
                Err(error) => {
                    let error = error_chain(&error);
                    tracing::error!(
                        run = run.0,
                        token,
                        error,
                        "the run of a revoked token could not be paused"
                    );
                }
            }
        }
    }

    async fn pause_if_of(&self, run: RunNumber, token: &str) -> Result<bool, crate::store::Error> {
        let stored = self.store().run(run).await?;
        if RunCommand::of(&stored).is_none_or(|command| command.created_by != token) {
            return Ok(false);
        }
        let Some(control) = self.open_runs().control(run) else { return Ok(false) };
        self.store().set_state(run, RunState::Paused).await?;
        let why = format!("its token {token} was revoked");
        self.open_runs().set_held(run, why.clone());
        control.pause(why);
        Ok(true)
    }
}
