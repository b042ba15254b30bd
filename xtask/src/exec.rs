//! The only place that starts a process: echo, interruption, and that a dry run starts nothing that writes.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, BufReader, IsTerminal};
use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub use crate::command::{Cmd, Effect};
use crate::error::{Error, Result};
use crate::term::Term;

/// What a finished command left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Whether it ended with 0.
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }

    /// Its stdout as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The last lines that it wrote, stderr where there is any.
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let bytes = if self.stderr.iter().any(|b| !b.is_ascii_whitespace()) { &self.stderr } else { &self.stdout };
        tail(&String::from_utf8_lossy(bytes), lines)
    }

    /// Itself when it ended with 0, otherwise an error that shows the command and its last words.
    pub fn checked(self, cmd: &Cmd, fix: &str) -> Result<Self> {
        if self.ok() {
            return Ok(self);
        }
        let status = self.code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
        Err(Error::Command { command: cmd.shell(), status, seen: self.tail(6), fix: fix.to_owned() })
    }
}

/// The last lines of a text that are not blank.
pub fn tail(text: &str, lines: usize) -> Vec<String> {
    let all: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    all[all.len().saturating_sub(lines)..].iter().map(|&line| line.to_owned()).collect()
}

/// Runs commands. The real one starts processes; the one of a dry run refuses to write.
pub trait Runner: Sync {
    /// Runs a command to its end and gives back what it left, whatever its exit code.
    ///
    /// # Errors
    /// The program cannot be started, or a signal asked this process to end.
    fn run(&self, cmd: &Cmd) -> Result<Output>;

    /// Runs a command and hands over each line of its stdout and stderr as it comes, until `enough` or its end.
    ///
    /// # Errors
    /// As for [`Runner::run`]. A command that was told to end because `line` answered `false` is no error.
    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<()>;

    /// The signal that has asked this process to end, if one has.
    fn interrupted(&self) -> Option<usize> {
        None
    }
}

/// Whether a signal has asked this process to end.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicUsize>);

impl Interrupt {
    /// Listens to SIGINT, SIGTERM and SIGHUP. The first is remembered; the second ends the process at once.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn install() -> Result<Self> {
        let flag = Self::default();
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
            let armed = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&armed))
                .and_then(|_| signal_hook::flag::register(signal, armed))
                .and_then(|_| {
                    let number = usize::try_from(signal).unwrap_or_default();
                    signal_hook::flag::register_usize(signal, Arc::clone(&flag.0), number)
                })
                .map_err(Error::io("listen to signals"))?;
        }
        Ok(flag)
    }

    /// The signal's number, once there was one.
    pub fn signal(&self) -> Option<usize> {
        Some(self.0.load(Ordering::Relaxed)).filter(|&signal| signal != 0)
    }
}

/// Starts real processes.
pub struct Processes {
    interrupt: Interrupt,
    term: Term,
}

/// How long a command may go on after a signal: what changes something is not cut in the middle, and what looks has
/// the time to say what is left.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

impl Processes {
    /// Processes that stop when the interrupt does say so, echoed as the terminal wishes.
    pub fn new(interrupt: Interrupt, term: Term) -> Self {
        Self { interrupt, term }
    }

    /// The same, echoed on another terminal.
    pub fn with(&self, term: Term) -> Self {
        Self { interrupt: self.interrupt.clone(), term }
    }

    fn started(cmd: &Cmd, result: std::io::Result<duct::Handle>) -> Result<duct::Handle> {
        result.map_err(Error::io(format!("start `{}`", cmd.program)))
    }

    /// Runs a command on this terminal: it may ask for a password or show its own progress, and gets Ctrl-C itself.
    /// What it writes goes to stderr, so that whoever reads `--json` finds nothing else on stdout.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn attached(&self, cmd: &Cmd) -> Result<Output> {
        self.foreground(cmd, &cmd.expression().stdout_to_stderr())
    }

    /// The same for a command whose output is the answer of the task.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn answering(&self, cmd: &Cmd) -> Result<Output> {
        self.foreground(cmd, &cmd.expression())
    }

    fn foreground(&self, cmd: &Cmd, expression: &duct::Expression) -> Result<Output> {
        self.term.command(&cmd.shell());
        let handle = Self::started(cmd, expression.start())?;
        // Ctrl-C on a terminal reaches the command by itself, and a second time would tell it to drop everything.
        let mut passed_on = std::io::stdin().is_terminal();
        let output = loop {
            if let Some(output) = handle.wait_timeout(POLL).map_err(Error::io(format!("wait for `{}`", cmd.program)))? {
                break output.clone();
            }
            if let Some(signal) = self.interrupt.signal().filter(|_| !passed_on) {
                passed_on = true;
                let pids = handle.pids().into_iter().map(|pid| pid.to_string());
                let kill = duct::cmd("kill", [format!("-{signal}")].into_iter().chain(pids)).unchecked().stderr_null();
                kill.run().map_err(Error::io("pass a signal on"))?;
            }
        };
        if let Some(signal) = self.interrupt.signal() {
            return Err(Error::Interrupted { signal, left: String::new() });
        }
        Ok(Output { code: output.status.code(), ..Output::default() })
    }

    fn wait(&self, cmd: &Cmd, handle: &duct::Handle) -> Result<Output> {
        let failed = || format!("wait for `{}`", cmd.program);
        let mut deadline = None;
        loop {
            if let Some(output) = handle.wait_timeout(POLL).map_err(Error::io(failed()))? {
                return Ok(Output {
                    code: output.status.code(),
                    stdout: output.stdout.clone(),
                    stderr: output.stderr.clone(),
                });
            }
            let Some(signal) = self.interrupt.signal() else {
                continue;
            };
            if Instant::now() >= *deadline.get_or_insert_with(|| Instant::now() + GRACE) {
                handle.kill().map_err(Error::io(failed()))?;
                return Err(Error::Interrupted { signal, left: String::new() });
            }
        }
    }
}

impl Runner for Processes {
    fn run(&self, cmd: &Cmd) -> Result<Output> {
        self.term.command_verbose(&cmd.shell());
        let mut expression = cmd.expression().stdout_capture().stderr_capture().before_spawn(own_group);
        expression = match &cmd.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };
        let handle = Self::started(cmd, expression.start())?;
        self.wait(cmd, &handle)
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<()> {
        self.term.command_verbose(&cmd.shell());
        let reader = cmd
            .expression()
            .stderr_to_stdout()
            .stdin_null()
            .before_spawn(own_group)
            .reader()
            .map_err(Error::io(format!("start `{}`", cmd.program)))?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A read blocks for as long as the command is silent, so a signal has to reach the command itself.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if self.interrupt.signal().is_some() {
                        let _ = reader.kill();
                        return;
                    }
                    std::thread::sleep(POLL / 2);
                }
            });
            let mut buffer = Vec::new();
            let mut input = BufReader::new(&reader);
            while input.read_until(b'\n', &mut buffer).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&buffer);
                if !line(text.trim_end_matches(['\n', '\r'])) {
                    let _ = reader.kill();
                    break;
                }
                buffer.clear();
            }
            done.store(true, Ordering::Relaxed);
        });
        match self.interrupt.signal() {
            Some(signal) => Err(Error::Interrupted { signal, left: String::new() }),
            None => Ok(()),
        }
    }

    fn interrupted(&self) -> Option<usize> {
        self.interrupt.signal()
    }
}

/// Ctrl-C on the terminal reaches the whole foreground group; a command in a group of its own is ended by us, in order.
#[allow(clippy::unnecessary_wraps)]
fn own_group(command: &mut std::process::Command) -> std::io::Result<()> {
    command.process_group(0);
    Ok(())
}

/// The runner of a dry run: what reads goes through, what writes is refused.
pub struct ReadOnly<'a>(pub &'a dyn Runner);

impl ReadOnly<'_> {
    fn refuse(cmd: &Cmd) -> Result<()> {
        match cmd.effect() {
            Effect::Read => Ok(()),
            Effect::Write => Err(Error::Command {
                command: cmd.shell(),
                status: "nothing: a dry run does not start it".to_owned(),
                seen: Vec::new(),
                fix: "report this: a dry run must not get this far".to_owned(),
            }),
        }
    }
}

impl Runner for ReadOnly<'_> {
    fn run(&self, cmd: &Cmd) -> Result<Output> {
        Self::refuse(cmd)?;
        self.0.run(cmd)
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<()> {
        Self::refuse(cmd)?;
        self.0.lines(cmd, line)
    }

    fn interrupted(&self) -> Option<usize> {
        self.0.interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

    fn runner() -> Processes {
        Processes::new(Interrupt::default(), Term::silent())
    }

    #[test]
    fn what_is_echoed_of_directory_and_environment_is_what_runs() {
        let dir = std::env::temp_dir().canonicalize().unwrap();
        let dir = Utf8PathBuf::from_path_buf(dir).unwrap();
        let cmd = Cmd::read("sh").args(["-c", "pwd; echo ${CARGO-none} $X"]).env("X", "a b");
        let cmd = cmd.env_remove("CARGO").dir(&dir);
        let ran = runner().run(&cmd).unwrap().text();
        assert_eq!(ran, format!("{dir}\nnone a b\n"));
        let pasted = runner().run(&Cmd::read("sh").args(["-c", &cmd.shell()])).unwrap().text();
        assert_eq!(pasted, ran, "{}", cmd.shell());
    }

    #[test]
    fn a_command_that_fails_is_an_output_until_it_is_checked() {
        let cmd = Cmd::read("sh").args(["-c", "echo out; echo err >&2; exit 3"]);
        let output = runner().run(&cmd).unwrap();
        assert_eq!((output.code, output.text().as_str()), (Some(3), "out\n"));
        let error = output.checked(&cmd, "do it").unwrap_err();
        assert_eq!(error.to_string(), "`sh -c 'echo out; echo err >&2; exit 3'` ended with exit code 3\n  | err");
        assert_eq!(error.fix(), Some("do it"));
    }

    #[test]
    fn stdin_reaches_the_command_and_not_the_echo() {
        let cmd = Cmd::read("cat").stdin("secret");
        assert_eq!(runner().run(&cmd).unwrap().text(), "secret");
        assert!(!cmd.shell().contains("secret"));
    }

    #[test]
    fn a_dry_run_refuses_what_writes() {
        let real = runner();
        let dry = ReadOnly(&real);
        assert!(dry.run(&Cmd::read("true")).unwrap().ok());
        assert!(dry.run(&Cmd::write("true")).is_err());
    }

    #[test]
    fn lines_stop_when_the_reader_has_enough() {
        let mut seen = Vec::new();
        let cmd = Cmd::read("sh").args(["-c", "echo a; echo b >&2; sleep 60"]);
        let started = Instant::now();
        runner()
            .lines(&cmd, &mut |line| {
                seen.push(line.to_owned());
                seen.len() < 2
            })
            .unwrap();
        assert_eq!(seen, ["a", "b"]);
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_signal_ends_a_command_that_reads() {
        let interrupt = Interrupt::default();
        interrupt.0.store(2, Ordering::Relaxed);
        let runner = Processes::new(interrupt, Term::silent());
        let error = runner.run(&Cmd::read("sleep").arg("60")).unwrap_err();
        assert_eq!(error.code(), 130);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = runner().run(&Cmd::read("no-such-program-anywhere")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
    }
}
