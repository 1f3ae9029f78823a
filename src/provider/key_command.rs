//! Runs the command of a key, within a time limit and in a process group of its own.
//!
//! Everything that the command started is ended with it. Its output is bounded. Its error output is not shown,
//! because a program may repeat its arguments there. Never shows an argument.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::types::KeyLabel;

use super::key_error::{KeyError, MAX_KEY_BYTES};

/// A password store may have to ask a person first.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Runs `line` with `sh -c` and returns the first line of its output. It has to end within `limit`, and so has
/// everything that holds its output open.
pub(super) fn run(line: &str, label: &dyn Fn() -> KeyLabel, limit: Duration) -> Result<String, KeyError> {
    let failed = |source| KeyError::Command { label: label(), source };
    let mut group = Group::start(line).map_err(failed)?;
    let output = group.child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let number = group.child.id();
    let (sender, receiver) = mpsc::channel();
    // Reading and waiting have no time limit of their own, hence the thread; it ends with the command.
    let reader = move || {
        let read = first_line(output);
        if matches!(read, Ok(Some(_))) {
            await_end(number);
        }
        // Nothing receives it when the time is over.
        let _ = sender.send(read);
    };
    std::thread::Builder::new().spawn(reader).map_err(failed)?;
    let Ok(read) = receiver.recv_timeout(limit) else {
        return Err(KeyError::CommandHung { label: label() });
    };
    let Some(first) = read.map_err(failed)? else {
        return Err(KeyError::CommandOutput { label: label() });
    };
    let status = group.reap().map_err(failed)?;
    if status.success() { Ok(first) } else { Err(KeyError::CommandFailed { label: label(), status }) }
}

/// Reads the output to its end; `None` when it is too long.
fn first_line(output: ChildStdout) -> io::Result<Option<String>> {
    let mut output = BufReader::new(output.take(MAX_KEY_BYTES + 1));
    let mut first = String::new();
    let length = output.read_line(&mut first)? as u64;
    // A command that finds its pipe closed would fail for no fault of its own.
    let rest = io::copy(&mut output, &mut io::sink())?;
    Ok((length + rest <= MAX_KEY_BYTES).then_some(first))
}

/// A command and everything it started. Dropped before it is reaped, all of it is killed.
struct Group {
    child: Child,
    is_reaped: bool,
}

impl Group {
    fn start(line: &str) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", line]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(Self { child: command.spawn()?, is_reaped: false })
    }

    /// Takes the exit status of a command that has ended.
    fn reap(&mut self) -> io::Result<std::process::ExitStatus> {
        let status = self.child.wait()?;
        self.is_reaped = true;
        Ok(status)
    }

    #[cfg(unix)]
    fn kill(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // It has not been reaped, so its number belongs to no other group.
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
            // A killed process ends; what cannot be reaped leaves an entry in the system's table.
            let _ = self.child.wait();
        }
    }
}

/// Waits until the command has ended, and leaves its number taken: it is reaped by its [`Group`].
#[cfg(unix)]
fn await_end(number: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    if let Some(child) = Pid::from_raw(number.cast_signed()) {
        // It fails only for a child that has been reaped, which has ended.
        let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
}

#[cfg(not(unix))]
fn await_end(_: u32) {}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::thread;

    use super::*;

    fn run_for(line: &str, limit: Duration) -> Result<String, KeyError> {
        run(line, &|| "command:sh".into(), limit)
    }

    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn a_command_that_hangs_is_ended() {
        let outcome = run_for("exec sleep 600", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandHung { .. })), "{outcome:?}");
    }

    #[test]
    fn a_command_that_closes_its_output_and_runs_on_keeps_the_limit() {
        let outcome = run_for("echo sk-1; exec >&-; sleep 600", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandHung { .. })), "{outcome:?}");
    }

    #[test]
    fn a_grandchild_that_holds_the_output_open_is_ended_with_its_command() {
        let folder = tempfile::tempdir().unwrap();
        let held = folder.path().join("held");
        assert!(Command::new("mkfifo").arg(&held).status().unwrap().success());
        // The grandchild holds the pipe's other end: its end is the end of the file.
        let (ended, end) = mpsc::channel();
        let read = held.clone();
        thread::spawn(move || {
            io::copy(&mut File::open(read).unwrap(), &mut io::sink()).unwrap();
            ended.send(()).unwrap();
        });
        let outcome = run_for(&format!("sleep 600 3>'{}' & echo sk-1", held.display()), SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandHung { .. })), "{outcome:?}");
        for _ in 0..2000 {
            // Frees the reader where the grandchild was ended before it had opened the pipe.
            let _ = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&held);
            if end.recv_timeout(Duration::from_millis(10)).is_ok() {
                return;
            }
        }
        panic!("the grandchild is still there");
    }

    #[test]
    fn output_without_an_end_is_refused() {
        let outcome = run_for("yes", Duration::from_secs(60));
        assert!(matches!(outcome, Err(KeyError::CommandOutput { .. })), "{outcome:?}");
    }
}
