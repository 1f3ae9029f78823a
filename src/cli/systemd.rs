//! Notifies systemd, for units with `Type=notify` and `WatchdogSec=`.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing is sent.

use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::terminal_text;

/// Reports that the start is complete.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// Reports that the configuration is being reloaded. [`ready`] ends the reload.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        // Without the time, systemd would end the service.
        Err(error) => warn!(%error, "systemd was not notified of the reload"),
    }
}

/// Reports that the service is being stopped.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// Notifies the watchdog twice in its period, as long as `is_alive` returns true. Returns at once if the unit has no
/// watchdog, and otherwise never.
///
/// If this task is not polled in time, or `is_alive` returns false, systemd restarts the service.
pub(super) async fn watchdog(is_alive: impl Fn() -> bool) {
    let Some(period) = sd_notify::watchdog_enabled().map(|period| period / 2).filter(|half| !half.is_zero())
    else {
        return;
    };
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if is_alive() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

/// A line end would begin another notification.
fn one_line(text: &str) -> String {
    terminal_text::line(text).into_owned()
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd was not notified");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::unix::net::UnixDatagram;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use tokio::sync::Notify;

    use super::*;

    /// The variable with what the child process is to do. The socket is read from the environment, and that of this
    /// process cannot be changed safely.
    const CHILD: &str = "POINTSMAN_TEST_SYSTEMD";

    const WATCHDOG: Duration = Duration::from_millis(40);

    /// A process that notifies the socket of a test.
    struct Service {
        process: Child,
        socket: UnixDatagram,
        _folder: tempfile::TempDir,
    }

    impl Service {
        fn start(child: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let process = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "cli::systemd::tests::the_child_process", "--nocapture"])
                .env(CHILD, child)
                .env("NOTIFY_SOCKET", path)
                .env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string())
                .env_remove("WATCHDOG_PID")
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            Self { process, socket, _folder: folder }
        }

        /// Returns the lines of the next notification.
        fn next(&self) -> Vec<String> {
            let mut bytes = [0; 1024];
            let len = self.socket.recv(&mut bytes).unwrap();
            std::str::from_utf8(&bytes[..len]).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Drop for Service {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    /// Does nothing, except in the child process of another test.
    #[test]
    fn the_child_process() {
        match std::env::var(CHILD).as_deref() {
            Ok("states") => {
                ready("ready at 127.0.0.1:7700");
                notify(&[NotifyState::Status(&one_line("line\nSTOPPING=1"))]);
                reloading();
                stopping();
            }
            Ok("watchdog") => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                let checks = Cell::new(0);
                let last_check = Notify::new();
                let is_alive = || {
                    checks.set(checks.get() + 1);
                    match checks.get() {
                        4 => notify(&[NotifyState::Status("not alive")]),
                        6 => last_check.notify_one(),
                        _ => {}
                    }
                    checks.get() < 4
                };
                runtime.block_on(async {
                    tokio::select! {
                        () = watchdog(is_alive) => panic!("there is no watchdog"),
                        () = last_check.notified() => stopping(),
                    }
                });
            }
            _ => {}
        }
    }

    #[test]
    fn the_states_of_a_service_are_sent_to_the_socket() {
        let service = Service::start("states");
        assert_eq!(service.next(), ["READY=1", "STATUS=ready at 127.0.0.1:7700"]);
        let status = service.next();
        assert!(matches!(status.as_slice(), [one] if one.starts_with("STATUS=line")), "{status:?}");
        let reloading = service.next();
        let time = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
        assert_eq!((reloading.len(), reloading[0].as_str()), (2, "RELOADING=1"));
        assert!(time.parse::<u64>().unwrap() > 0);
        assert_eq!(service.next(), ["STOPPING=1"]);
    }

    #[test]
    fn the_watchdog_is_notified_only_while_the_process_is_alive() {
        let service = Service::start("watchdog");
        for _ in 0..3 {
            assert_eq!(service.next(), ["WATCHDOG=1"]);
        }
        assert_eq!(service.next(), ["STATUS=not alive"]);
        assert_eq!(service.next(), ["STOPPING=1"]);
    }

    #[tokio::test]
    async fn nothing_is_sent_and_no_watchdog_runs_outside_of_systemd() {
        if std::env::var_os("NOTIFY_SOCKET").is_none() && std::env::var_os("WATCHDOG_USEC").is_none() {
            ready("ready");
            watchdog(|| panic!("the watchdog runs")).await;
        }
    }
}
