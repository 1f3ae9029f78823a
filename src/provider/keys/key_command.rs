//! Runs a key command with a time limit and in its own process group.
//!
//! The whole process group is killed when the command ends, and when this process ends in any way. A command
//! cannot read from the terminal, where the user would not see its prompt. The size of its output is limited.
//! Its standard error is not shown, because a program may repeat its arguments there. Arguments are never shown.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::types::KeyLabel;

use super::key_error::{KeyError, MAX_KEY_BYTES};

/// Time limit of a key command: a password store may have to wait for its user.
pub(in crate::provider) const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the command in its first argument, and a second process that waits for the end of our pipe. It kills the
/// group when this process has ended, even if this process was killed.
#[cfg(unix)]
const SCRIPT: &str = "exec 3<&0 </dev/null; { read -r _; kill -s KILL 0; } <&3 >/dev/null 2>&1 & \
                      exec 3<&-; exec sh -c \"$1\"";

#[cfg(not(unix))]
const SCRIPT: &str = "exec </dev/null; exec sh -c \"$1\"";

/// The result of a command.
enum CommandEvent {
    /// The command has ended, with this first line of output; `None` if the output is too long.
    Read(io::Result<Option<String>>),
    /// The system has stopped the command because it used the terminal.
    WantsTerminal,
}

/// Runs `line` with `sh -c` and returns the first line of its output. The command, and every process that keeps
/// its output open, must end within `limit`.
pub(in crate::provider) fn run(
    line: &str,
    label: &dyn Fn() -> KeyLabel,
    limit: Duration,
) -> Result<String, KeyError> {
    let failed = |source| KeyError::Command { label: label(), source };
    let mut group = ProcessGroup::start(line).map_err(failed)?;
    let output = group.child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let pid = group.child.id();
    let (sender, receiver) = mpsc::channel();
    // Reading and waiting block without a time limit, so they run in threads, which end with the command.
    let reader_sender = sender.clone();
    let read_output = move || {
        let read = first_line(output);
        if matches!(read, Ok(Some(_))) {
            await_end(pid);
        }
        // Sending fails when the time limit has expired.
        let _ = reader_sender.send(CommandEvent::Read(read));
    };
    let watch_terminal = move || {
        if is_stopped_by_terminal(pid) {
            let _ = sender.send(CommandEvent::WantsTerminal);
        }
    };
    std::thread::Builder::new().spawn(read_output).map_err(failed)?;
    std::thread::Builder::new().spawn(watch_terminal).map_err(failed)?;
    let read = match receiver.recv_timeout(limit) {
        Ok(CommandEvent::Read(read)) => read,
        Ok(CommandEvent::WantsTerminal) => return Err(KeyError::CommandWantsTerminal { label: label() }),
        Err(_) => return Err(KeyError::CommandTimedOut { label: label() }),
    };
    let Some(first) = read.map_err(failed)? else {
        return Err(KeyError::CommandOutputTooLarge { label: label() });
    };
    let status = group.end().map_err(failed)?;
    if status.success() { Ok(first) } else { Err(KeyError::CommandFailed { label: label(), status }) }
}

/// Reads the output to its end and returns its first line; `None` if the output is too long.
fn first_line(output: ChildStdout) -> io::Result<Option<String>> {
    let mut output = BufReader::new(output.take(MAX_KEY_BYTES + 1));
    let mut first = String::new();
    let length = output.read_line(&mut first)? as u64;
    // A command would fail if its output pipe were closed early.
    let rest = io::copy(&mut output, &mut io::sink())?;
    Ok((length + rest <= MAX_KEY_BYTES).then_some(first))
}

/// A command and all processes that it started. All are killed when the command ends or this value is dropped.
struct ProcessGroup {
    child: Child,
    is_reaped: bool,
    /// The system closes it when this process ends.
    _alive: Option<ChildStdin>,
}

impl ProcessGroup {
    fn start(line: &str) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh", line]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn()?;
        let alive = child.stdin.take();
        Ok(Self { child, is_reaped: false, _alive: alive })
    }

    /// Reaps a command that has ended, kills the rest of its group, and returns the exit status.
    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        self.kill();
        let status = self.child.wait()?;
        self.is_reaped = true;
        Ok(status)
    }

    #[cfg(unix)]
    fn kill(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        // The command has not been reaped, so no other group has its id.
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // Fails if the group has already ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    #[cfg(not(unix))]
    fn kill(&mut self) {
        // Fails if the command has already ended.
        let _ = self.child.kill();
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
            // A killed process ends. If it cannot be reaped, only an entry in the process table remains.
            let _ = self.child.wait();
        }
    }
}

/// Waits until the command has ended, without reaping it, so that its id stays in use. [`ProcessGroup`] reaps
/// it.
#[cfg(unix)]
fn await_end(pid: u32) {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    if let Some(child) = Pid::from_raw(pid.cast_signed()) {
        // Fails only for a reaped child, which has ended.
        let _ = waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
}

#[cfg(not(unix))]
fn await_end(_: u32) {}

/// Waits until the command has ended, or until the system has stopped it because it used the terminal from the
/// background. Returns whether it was stopped. The signal goes to the whole group, including the command itself.
#[cfg(unix)]
fn is_stopped_by_terminal(pid: u32) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    const BY_TERMINAL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];
    let Some(child) = Pid::from_raw(pid.cast_signed()) else { return false };
    let either = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    // Fails only for a reaped child, which has ended.
    while let Ok(Some(status)) = waitid(WaitId::Pid(child), either) {
        match status.stopping_signal() {
            Some(signal) if BY_TERMINAL.contains(&signal) => return true,
            // Another process stopped it and may continue it. Consume the stop, so that it is not reported again.
            Some(_) => drop(waitid(WaitId::Pid(child), WaitIdOptions::STOPPED | WaitIdOptions::NOHANG)),
            None => return false,
        }
    }
    false
}

#[cfg(not(unix))]
fn is_stopped_by_terminal(_: u32) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::thread;

    use super::*;

    fn run_for(line: &str, limit: Duration) -> Result<String, KeyError> {
        run(line, &|| "command:sh".into(), limit)
    }

    const SHORT: Duration = Duration::from_millis(300);

    #[test]
    fn a_command_that_hangs_is_killed() {
        let outcome = run_for("exec sleep 600", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandTimedOut { .. })), "{outcome:?}");
    }

    #[test]
    fn the_time_limit_applies_to_a_command_that_has_closed_its_output() {
        let outcome = run_for("echo sk-1; exec >&-; sleep 600", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandTimedOut { .. })), "{outcome:?}");
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // The grandchild has the other end of the pipe open: the end of the file shows that it has ended.
        let (ended, end) = mpsc::channel();
        let read = pipe.clone();
        thread::spawn(move || {
            io::copy(&mut File::open(read).unwrap(), &mut io::sink()).unwrap();
            ended.send(()).unwrap();
        });
        let outcome = run_for(&format!("sleep 600 3>'{}' & echo sk-1", pipe.display()), SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandTimedOut { .. })), "{outcome:?}");
        for _ in 0..2000 {
            // Unblocks the reader if the grandchild was killed before it opened the pipe.
            let _ = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&pipe);
            if end.recv_timeout(Duration::from_millis(10)).is_ok() {
                return;
            }
        }
        panic!("the grandchild is still running");
    }

    /// Waits until every process that has `pipe` open for writing has ended. The pipe existed before they were
    /// started.
    #[expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]
    fn await_end_of_writers(pipe: &Path) {
        let (ended, end) = mpsc::channel();
        let read = pipe.to_owned();
        thread::spawn(move || {
            io::copy(&mut File::open(read).unwrap(), &mut io::sink()).unwrap();
            ended.send(()).unwrap();
        });
        for _ in 0..2000 {
            // Unblocks the reader if a process was killed before it opened the pipe.
            let _ = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(pipe);
            if end.recv_timeout(Duration::from_millis(10)).is_ok() {
                return;
            }
        }
        panic!("a process is still running");
    }

    #[test]
    fn background_processes_of_a_command_are_killed_when_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // Opened for reading as well, so that the command does not block until a reader exists.
        let line = format!("sleep 600 >/dev/null 3<>'{}' & echo sk-1", pipe.display());
        assert_eq!(run_for(&line, Duration::from_secs(60)).unwrap(), "sk-1\n");
        await_end_of_writers(&pipe);
    }

    #[test]
    fn a_command_that_uses_the_terminal_fails_at_once() {
        for signal in ["TTIN", "TTOU"] {
            let outcome = run_for(&format!("kill -s {signal} 0; sleep 600"), Duration::from_secs(600));
            assert!(matches!(outcome, Err(KeyError::CommandWantsTerminal { .. })), "{outcome:?}");
        }
        // A command that another process has stopped may continue.
        let line = "(sleep 0.1; kill -s CONT $$) & kill -s STOP $$; wait; echo sk-1";
        assert_eq!(run_for(line, Duration::from_secs(60)).unwrap(), "sk-1\n");
        let outcome = run_for("kill -s STOP $$", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandTimedOut { .. })), "{outcome:?}");
    }

    #[test]
    fn a_command_has_empty_input_and_does_not_inherit_the_pipe() {
        let line = "cat; (: <&3) 2>/dev/null && echo open || echo closed";
        assert_eq!(run_for(line, Duration::from_secs(60)).unwrap(), "closed\n");
    }

    #[test]
    fn endless_output_is_refused() {
        let outcome = run_for("yes", Duration::from_secs(60));
        assert!(matches!(outcome, Err(KeyError::CommandOutputTooLarge { .. })), "{outcome:?}");
    }
}
