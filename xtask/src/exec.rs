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

    /// Runs a command and hands over each line of its stdout and stderr as it comes, until one is answered with `false`
    /// or it ends; whether it ended well, which the first of these is.
    ///
    /// # Errors
    /// As for [`Runner::run`].
    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool>;

    /// The signal that has asked this process to end, if one has.
    fn interrupted(&self) -> Option<usize> {
        None
    }

    /// Asked between two steps, so that the next one is not begun after a signal.
    ///
    /// # Errors
    /// A signal has asked this process to end.
    fn go_on(&self) -> Result<()> {
        self.interrupted().map_or(Ok(()), |signal| Err(Error::Interrupted { signal, left: String::new() }))
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
#[derive(Clone)]
pub struct Processes {
    interrupt: Interrupt,
    term: Term,
    read_only: bool,
    /// The variables that hold passwords: this process's own business, and no other's.
    secrets: Vec<String>,
    silence: Arc<Silence>,
}

/// What a run remembers of commands that did not answer at once.
#[derive(Debug, Default)]
struct Silence {
    announced: AtomicBool,
    given_up: AtomicBool,
}

/// How long a command may go on after a signal: what changes something is not cut in the middle, and what looks has
/// the time to say what is left.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);
/// How long a command that should answer at once may be silent before the user is told what is awaited.
const UNANNOUNCED: Duration = Duration::from_secs(2);
/// How long the next ones are awaited once one has been given up: a run has one limit, not one for each command.
const AFTER_GIVING_UP: Duration = Duration::from_secs(2);

impl Processes {
    /// Processes that stop when the interrupt does say so, echoed as the terminal wishes.
    pub fn new(interrupt: Interrupt, term: Term) -> Self {
        Self { interrupt, term, read_only: false, secrets: Vec::new(), silence: Arc::default() }
    }

    /// The same, which start no process that inherits these variables.
    pub fn keeping_secret(self, variables: impl IntoIterator<Item = String>) -> Self {
        Self { secrets: variables.into_iter().collect(), ..self }
    }

    /// The same, which start nothing that writes where this is a dry run.
    pub fn read_only(self, read_only: bool) -> Self {
        Self { read_only, ..self }
    }

    /// The same for a clean-up that a signal calls for, and does not cut short. A second signal still does.
    pub fn to_the_end(&self) -> Self {
        Self { interrupt: Interrupt::default(), ..self.clone() }
    }

    /// The same, echoed on another terminal.
    pub fn with(&self, term: Term) -> Self {
        Self { term, ..self.clone() }
    }

    /// Echoes a command that may be started.
    fn admit(&self, cmd: &Cmd, echo: impl FnOnce(Term, &str)) -> Result<()> {
        if self.read_only {
            refuse_writes(cmd)?;
        }
        echo(self.term, &cmd.shell());
        Ok(())
    }

    fn expression(&self, cmd: &Cmd) -> duct::Expression {
        cmd.expression(&self.secrets)
    }

    /// How long a command may take, after what this run has seen of others.
    fn limit(&self, cmd: &Cmd) -> Option<Duration> {
        let given_up = self.silence.given_up.load(Ordering::Relaxed);
        cmd.limit().map(|limit| if given_up && cmd.is_prompt() { limit.min(AFTER_GIVING_UP) } else { limit })
    }

    /// Says once a run what is awaited.
    fn announce(&self, cmd: &Cmd, waited: Duration) {
        if cmd.is_prompt() && waited > UNANNOUNCED && !self.silence.announced.swap(true, Ordering::Relaxed) {
            self.term.step(&format!("Waiting for an answer to `{}`", cmd.shell()));
        }
    }

    fn give_up(&self, cmd: &Cmd, waited: Duration) -> Error {
        self.silence.given_up.store(true, Ordering::Relaxed);
        Error::Command {
            command: cmd.shell(),
            status: format!("no answer within {} s", waited.as_secs()),
            seen: Vec::new(),
            fix: NO_ANSWER.to_owned(),
        }
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
        self.foreground(cmd, &self.expression(cmd).stdout_to_stderr())
    }

    /// The same for a command whose output is the answer of the task.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn answering(&self, cmd: &Cmd) -> Result<Output> {
        self.foreground(cmd, &self.expression(cmd))
    }

    fn foreground(&self, cmd: &Cmd, expression: &duct::Expression) -> Result<Output> {
        self.go_on()?;
        self.admit(cmd, Term::command)?;
        let handle = Self::started(cmd, expression.start())?;
        let mut passed_on = false;
        let output = loop {
            if let Some(output) = handle.wait_timeout(POLL).map_err(Error::io(format!("wait for `{}`", cmd.program)))? {
                break output.clone();
            }
            if let Some(signal) = self.interrupt.signal().filter(|_| !passed_on) {
                passed_on = true;
                pass_on(cmd, &handle, signal)?;
            }
        };
        self.go_on()?;
        Ok(Output { code: output.status.code(), ..Output::default() })
    }

    fn wait(&self, cmd: &Cmd, handle: &duct::Handle) -> Result<Output> {
        let failed = || format!("wait for `{}`", cmd.program);
        let started = Instant::now();
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
                self.announce(cmd, started.elapsed());
                if self.limit(cmd).is_some_and(|limit| started.elapsed() > limit) {
                    handle.kill().map_err(Error::io(failed()))?;
                    return Err(self.give_up(cmd, started.elapsed()));
                }
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
        self.admit(cmd, Term::command_verbose)?;
        let mut expression = self.expression(cmd).stdout_capture().stderr_capture().before_spawn(own_group);
        expression = match &cmd.stdin {
            Some(bytes) => expression.stdin_bytes(bytes.clone()),
            None => expression.stdin_null(),
        };
        let handle = Self::started(cmd, expression.start())?;
        self.wait(cmd, &handle)
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        self.admit(cmd, Term::command_verbose)?;
        let reader = self
            .expression(cmd)
            .stderr_to_stdout()
            .stdin_null()
            .before_spawn(own_group)
            .reader()
            .map_err(Error::io(format!("start `{}`", cmd.program)))?;
        let (done, silent, mut enough) = (AtomicBool::new(false), AtomicBool::new(false), false);
        let started = Instant::now();
        std::thread::scope(|scope| {
            // A read blocks for as long as the command is silent, so a signal has to reach the command itself.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    silent.store(self.limit(cmd).is_some_and(|limit| started.elapsed() > limit), Ordering::Relaxed);
                    if self.interrupt.signal().is_some() || silent.load(Ordering::Relaxed) {
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
                    enough = true;
                    let _ = reader.kill();
                    break;
                }
                buffer.clear();
            }
            done.store(true, Ordering::Relaxed);
        });
        self.go_on()?;
        if silent.into_inner() && !enough {
            return Err(self.give_up(cmd, started.elapsed()));
        }
        let ended = reader.try_wait().map_err(Error::io(format!("wait for `{}`", cmd.program)))?;
        Ok(enough || ended.is_some_and(|output| output.status.success()))
    }

    fn interrupted(&self) -> Option<usize> {
        self.interrupt.signal()
    }
}

const NO_ANSWER: &str = "check that the engine responds (`docker version`), and restart it if it does not";

/// Ctrl-C on the terminal reaches the whole foreground group; a command in a group of its own is ended by us, in order.
#[allow(clippy::unnecessary_wraps)]
fn own_group(command: &mut std::process::Command) -> std::io::Result<()> {
    command.process_group(0);
    Ok(())
}

/// Passes a signal on to a command on this terminal. Ctrl-C reaches it there by itself, and a second one would tell it
/// to drop everything.
fn pass_on(cmd: &Cmd, handle: &duct::Handle, signal: usize) -> Result<()> {
    let by_itself = std::io::stdin().is_terminal() && i32::try_from(signal) == Ok(signal_hook::consts::SIGINT);
    if by_itself {
        return Ok(());
    }
    // What sudo started is root's, and takes a signal from root alone.
    let sudo = ["sudo", "-n"].into_iter().take(if cmd.program == "sudo" { 2 } else { 0 });
    let words = sudo.map(str::to_owned).chain(["kill".to_owned(), format!("-{signal}")]);
    let mut words = words.chain(handle.pids().into_iter().map(|pid| pid.to_string()));
    let kill = duct::cmd(words.next().unwrap_or_default(), words).unchecked().stdin_null().stderr_null();
    kill.run().map(|_| ()).map_err(Error::io("pass a signal on"))
}

/// Says no to a command that writes.
fn refuse_writes(cmd: &Cmd) -> Result<()> {
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

/// A runner that looks only, on top of any other.
pub struct ReadOnly<'a>(pub &'a dyn Runner);

impl Runner for ReadOnly<'_> {
    fn run(&self, cmd: &Cmd) -> Result<Output> {
        refuse_writes(cmd)?;
        self.0.run(cmd)
    }

    fn lines(&self, cmd: &Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        refuse_writes(cmd)?;
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
        let cmd = Cmd::read("sh").args(["-c", "pwd; echo ${CARGO-none} $X; umask; cat"]).env("X", "a b");
        let cmd = cmd.env_remove("CARGO").dir(&dir).umask("027").no_input();
        let ran = runner().run(&cmd).unwrap().text();
        assert_eq!(ran, format!("{dir}\nnone a b\n0027\n"));
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
    fn a_command_says_whether_it_ended_well_after_its_lines() {
        let of =
            |script: &str| runner().lines(&Cmd::read("sh").args(["-c", script]), &mut |line| line != "enough").unwrap();
        assert!(of("echo a"));
        assert!(!of("echo a; exit 1"));
        assert!(of("echo enough; exit 1"));
    }

    #[test]
    fn nothing_is_begun_on_this_terminal_after_a_signal() {
        let interrupt = Interrupt::default();
        interrupt.0.store(2, Ordering::Relaxed);
        let file = std::env::temp_dir().join(format!("begun-{}", std::process::id()));
        let cmd = Cmd::write("touch").arg(file.to_string_lossy());
        assert_eq!(Processes::new(interrupt, Term::silent()).attached(&cmd).unwrap_err().code(), 130);
        assert!(!file.exists());
    }

    #[test]
    fn a_dry_run_refuses_what_writes() {
        let real = runner();
        let dry = ReadOnly(&real);
        assert!(dry.run(&Cmd::read("true")).unwrap().ok());
        assert!(dry.run(&Cmd::write("true")).is_err());
        let dry = runner().read_only(true);
        assert!(dry.run(&Cmd::read("true")).unwrap().ok());
        assert!(dry.run(&Cmd::write("true")).is_err() && dry.attached(&Cmd::write("true")).is_err());
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
    fn what_does_not_end_in_its_time_is_given_up() {
        let cmd = Cmd::write("sleep").arg("60").within(Duration::from_millis(200));
        let error = runner().run(&cmd).unwrap_err();
        assert!(error.to_string().contains("no answer within 0 s"), "{error}");
        assert_eq!(Cmd::write("true").limit(), None);
    }

    #[test]
    fn once_one_is_given_up_the_next_are_not_awaited_as_long() {
        let runner = runner();
        let silent = Cmd::read("sleep").arg("60");
        assert!(runner.run(&silent.clone().within(Duration::from_millis(200))).is_err());
        let started = Instant::now();
        assert!(runner.run(&silent).is_err());
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        // What takes its time by design still may.
        assert!(runner.run(&Cmd::read("sleep").arg("3").unhurried()).unwrap().ok());
    }

    #[test]
    fn a_variable_that_holds_a_password_is_inherited_by_nobody_but_this_program_itself() {
        // Any variable that is set will do.
        let runner = runner().keeping_secret(["CARGO_MANIFEST_DIR".to_owned()]);
        let seen = |cmd: &Cmd| runner.run(cmd).unwrap().text();
        let cmd = Cmd::read("sh").args(["-c", "echo ${CARGO_MANIFEST_DIR-none}"]);
        assert_eq!(seen(&cmd), "none\n");
        assert_ne!(seen(&cmd.clone().inheriting_secrets()), "none\n");
        assert_eq!(seen(&cmd.env("CARGO_MANIFEST_DIR", "given")), "given\n");
        let mut lines = Vec::new();
        let with = runner.with(Term::silent()).to_the_end();
        let cmd = Cmd::read("sh").args(["-c", "echo ${CARGO_MANIFEST_DIR-none}"]);
        with.lines(&cmd, &mut |line| {
            lines.push(line.to_owned());
            true
        })
        .unwrap();
        assert_eq!(lines, ["none"]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = runner().run(&Cmd::read("no-such-program-anywhere")).unwrap_err();
        assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
    }
}
