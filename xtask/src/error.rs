//! What can go wrong, as a person should read it: what it was about, what was seen, and one thing to do.

pub mod json;

use std::fmt;

use camino::Utf8PathBuf;

use crate::command::without_userinfo;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit code of a task that could not do what was asked.
pub const FAILED: u8 = 1;
/// Exit code of a command line or a configuration that makes no sense.
pub const USAGE: u8 = 2;
/// Exit code of a negative answer: status degraded, verification incomplete.
pub const NEGATIVE: u8 = 3;

/// One thing that stands in the way, with what was seen of it and the one thing to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: a mirror's host, a file, a tool.
    pub subject: String,
    /// What is wrong, in one sentence without a full stop.
    pub problem: String,
    /// What was seen: last log lines, for instance. May be empty.
    pub seen: Vec<String>,
    /// What to do, as an imperative. May be empty where there is nothing sensible to say.
    pub fix: String,
}

impl Finding {
    /// A finding without anything quoted.
    pub fn new(subject: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { subject: subject.into(), problem: problem.into(), seen: Vec::new(), fix: fix.into() }
    }

    /// The same finding with lines quoted below it.
    pub fn seen(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.seen.extend(lines);
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, without_userinfo(&self.problem))?;
        for line in &self.seen {
            write!(f, "\n  | {}", without_userinfo(line))?;
        }
        if !self.fix.is_empty() {
            write!(f, "\n  fix: {}", self.fix)?;
        }
        Ok(())
    }
}

/// Why a task ended without doing what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Arguments that parse and still make no sense.
    #[error("{problem}")]
    Usage {
        /// What is wrong with them.
        problem: String,
        /// What to write instead.
        fix: String,
    },
    /// A mistake in `cache.toml` or in a file that it names.
    #[error("{}{}: {problem}", file, line.map(|l| format!(":{l}")).unwrap_or_default())]
    Config {
        /// The file as the user named it.
        file: Utf8PathBuf,
        /// The line of the mistake, counted from 1, where one is to blame.
        line: Option<usize>,
        /// What is wrong there.
        problem: String,
        /// What to write instead.
        fix: String,
    },
    /// A program that is needed and is not on `PATH`, or is too old.
    #[error("{problem}")]
    Tool {
        /// Which program, and what is wrong with it.
        problem: String,
        /// How to get one that does.
        fix: String,
    },
    /// A command that ended with something other than success.
    #[error("`{command}` ended with {status}{}", quoted(seen))]
    Command {
        /// The command as it can be pasted into a shell.
        command: String,
        /// `exit code 1`, `signal 9`, `a time-out after 60 s`.
        status: String,
        /// The last lines it wrote.
        seen: Vec<String>,
        /// What to do.
        fix: String,
    },
    /// The engine gave an answer that cannot be read.
    #[error("cannot read what `{command}` printed: {problem}")]
    Answer {
        /// The command as it can be pasted into a shell.
        command: String,
        /// What is wrong with its output.
        problem: String,
    },
    /// What stands in the way, all of it together; nothing was touched unless a finding says so.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nerror: "))]
    Blocked(Vec<Finding>),
    /// The answer is no, and has been given on stdout: nothing is to be added there.
    #[error("{0}")]
    Negative(String),
    /// Ended by a signal.
    #[error("interrupted{}", if .left.is_empty() { String::new() } else { format!(": {}", .left) })]
    Interrupted {
        /// The signal's number.
        signal: usize,
        /// What state things are in now.
        left: String,
    },
    /// The end with this code, of which nothing more is to be said: a signal was the way to end, or the program that went
    /// on instead of this one has said it.
    #[error("")]
    Ended {
        /// The exit code.
        code: u8,
    },
    /// The operating system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried, as in "cannot ...".
        what: String,
        /// The system's word.
        source: std::io::Error,
    },
}

impl Error {
    /// An [`Error::Io`] that says what was tried.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { what: what.into(), source }
    }

    /// The process's exit code: 1 could not, 2 usage, 3 a negative answer, 128+n a signal.
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Config { .. } => USAGE,
            Self::Negative(_) => NEGATIVE,
            Self::Interrupted { signal, .. } => of_signal(*signal),
            Self::Ended { code } => *code,
            _ => FAILED,
        }
    }

    /// The one thing to do about it, where there is one that is not part of the message already.
    pub fn fix(&self) -> Option<&str> {
        match self {
            Self::Usage { fix, .. } | Self::Config { fix, .. } | Self::Tool { fix, .. } | Self::Command { fix, .. } => {
                Some(fix).filter(|fix| !fix.is_empty()).map(String::as_str)
            }
            Self::Answer { .. } => Some("run the command by hand; if its output is as it should be, report it"),
            _ => None,
        }
    }
}

/// The exit code of a process that a signal has ended, as shells have it.
pub fn of_signal(signal: usize) -> u8 {
    128u8.saturating_add(u8::try_from(signal).unwrap_or(0))
}

fn quoted(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  | {}", without_userinfo(line))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_follow_the_table() {
        assert_eq!(Error::Usage { problem: String::new(), fix: String::new() }.code(), 2);
        assert_eq!(Error::Negative(String::new()).code(), 3);
        assert_eq!(Error::Interrupted { signal: 2, left: String::new() }.code(), 130);
        assert_eq!(Error::Interrupted { signal: 15, left: String::new() }.code(), 143);
        assert_eq!(Error::Blocked(Vec::new()).code(), 1);
    }

    #[test]
    fn all_blockers_are_shown_together() {
        let text = Error::Blocked(vec![
            Finding::new("docker.io", "port 5000 is held", "stop it").seen(["http://me:pw@x".into()]),
            Finding::new("quay.io", "foreign", "rename it"),
        ])
        .to_string();
        assert_eq!(
            text,
            "docker.io: port 5000 is held\n  | http://***@x\n  fix: stop it\nerror: quay.io: foreign\n  fix: rename it"
        );
    }

    #[test]
    fn a_configuration_error_names_its_line() {
        let error = Error::Config { file: "cache.toml".into(), line: Some(3), problem: "p".into(), fix: "f".into() };
        assert_eq!(error.to_string(), "cache.toml:3: p");
    }
}
