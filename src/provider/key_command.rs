//! Runs the command of a key, within a time limit and in a process group of its own.
//!
//! Everything that the command started is ended with it, and with this process, however that ends. A command cannot
//! read from the terminal, whose user sees no prompt of it. Its output is bounded. Its error output is not shown,
//! because a program may repeat its arguments there. Never shows an argument.

use std::io::{self, BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::types::KeyLabel;

use super::key_error::{KeyError, MAX_KEY_BYTES};

/// A password store may have to ask a person first.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Runs the command that is its first argument, and a process beside it that waits for the end of our pipe: it kills
/// the group when this process has gone, also where that was killed itself.
#[cfg(unix)]
const SCRIPT: &str = "exec 3<&0 </dev/null; { read -r _; kill -s KILL 0; } <&3 >/dev/null 2>&1 & \
                      exec 3<&-; exec sh -c \"$1\"";

#[cfg(not(unix))]
const SCRIPT: &str = "exec </dev/null; exec sh -c \"$1\"";

/// What became of a command.
enum Event {
    /// It has ended, and this is what it wrote; `None` when that is too long.
    Read(io::Result<Option<String>>),
    /// The system has stopped it, because it used the terminal.
    WantsTerminal,
}

/// Runs `line` with `sh -c` and returns the first line of its output. It has to end within `limit`, and so has
/// everything that holds its output open.
pub(super) fn run(line: &str, label: &dyn Fn() -> KeyLabel, limit: Duration) -> Result<String, KeyError> {
    let failed = |source| KeyError::Command { label: label(), source };
    let mut group = Group::start(line).map_err(failed)?;
    let output = group.child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    let number = group.child.id();
    let (sender, receiver) = mpsc::channel();
    // Reading and waiting have no time limit of their own, hence the thread; it ends with the command.
    let to = sender.clone();
    let reader = move || {
        let read = first_line(output);
        if matches!(read, Ok(Some(_))) {
            await_end(number);
        }
        // Nothing receives it when the time is over.
        let _ = to.send(Event::Read(read));
    };
    let watcher = move || {
        if is_stopped_by_terminal(number) {
            let _ = sender.send(Event::WantsTerminal);
        }
    };
    std::thread::Builder::new().spawn(reader).map_err(failed)?;
    std::thread::Builder::new().spawn(watcher).map_err(failed)?;
    let read = match receiver.recv_timeout(limit) {
        Ok(Event::Read(read)) => read,
        Ok(Event::WantsTerminal) => return Err(KeyError::CommandWantsTerminal { label: label() }),
        Err(_) => return Err(KeyError::CommandHung { label: label() }),
    };
    let Some(first) = read.map_err(failed)? else {
        return Err(KeyError::CommandOutput { label: label() });
    };
    let status = group.end().map_err(failed)?;
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

/// A command and everything it started, all of which is killed when it ends or is dropped.
struct Group {
    child: Child,
    is_reaped: bool,
    /// Closed by the system when this process has gone.
    _alive: Option<ChildStdin>,
}

impl Group {
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

    /// Takes the exit status of a command that has ended, and ends what it has left behind.
    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        self.kill();
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

/// Waits until the command has ended or the system has stopped it because it used the terminal from the background, and
/// returns whether it was that. The signal goes to the whole group, and so to the command itself.
#[cfg(unix)]
fn is_stopped_by_terminal(number: u32) -> bool {
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    const BY_TERMINAL: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];
    let Some(child) = Pid::from_raw(number.cast_signed()) else { return false };
    let either = WaitIdOptions::EXITED | WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT;
    // It fails only for a child that has been reaped, which has ended.
    while let Ok(Some(status)) = waitid(WaitId::Pid(child), either) {
        match status.stopping_signal() {
            Some(signal) if BY_TERMINAL.contains(&signal) => return true,
            // Somebody else has stopped it, and may let it run on: this stop is not to be reported again.
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

    /// Waits until every process that has opened `held` to write has ended. The pipe was made before they were started.
    #[expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot continue fails")]
    fn await_end_of_holders(held: &Path) {
        let (ended, end) = mpsc::channel();
        let read = held.to_owned();
        thread::spawn(move || {
            io::copy(&mut File::open(read).unwrap(), &mut io::sink()).unwrap();
            ended.send(()).unwrap();
        });
        for _ in 0..2000 {
            // Frees the reader where a process was ended before it had opened the pipe.
            let _ = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(held);
            if end.recv_timeout(Duration::from_millis(10)).is_ok() {
                return;
            }
        }
        panic!("a process is still there");
    }

    #[test]
    fn what_a_command_leaves_in_the_background_is_ended_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let held = folder.path().join("held");
        assert!(Command::new("mkfifo").arg(&held).status().unwrap().success());
        // Opened to read as well: the command does not wait for a reader then.
        let line = format!("sleep 600 >/dev/null 3<>'{}' & echo sk-1", held.display());
        assert_eq!(run_for(&line, Duration::from_secs(60)).unwrap(), "sk-1\n");
        await_end_of_holders(&held);
    }

    #[test]
    fn a_command_that_the_terminal_stops_is_told_at_once() {
        for signal in ["TTIN", "TTOU"] {
            let outcome = run_for(&format!("kill -s {signal} 0; sleep 600"), Duration::from_secs(600));
            assert!(matches!(outcome, Err(KeyError::CommandWantsTerminal { .. })), "{outcome:?}");
        }
        // Stopped by somebody else it may run on.
        let line = "(sleep 0.1; kill -s CONT $$) & kill -s STOP $$; wait; echo sk-1";
        assert_eq!(run_for(line, Duration::from_secs(60)).unwrap(), "sk-1\n");
        let outcome = run_for("kill -s STOP $$", SHORT);
        assert!(matches!(outcome, Err(KeyError::CommandHung { .. })), "{outcome:?}");
    }

    #[test]
    fn a_command_reads_nothing_and_has_no_pipe_of_ours() {
        let line = "cat; (: <&3) 2>/dev/null && echo open || echo closed";
        assert_eq!(run_for(line, Duration::from_secs(60)).unwrap(), "closed\n");
    }

    #[test]
    fn output_without_an_end_is_refused() {
        let outcome = run_for("yes", Duration::from_secs(60));
        assert!(matches!(outcome, Err(KeyError::CommandOutput { .. })), "{outcome:?}");
    }
}
