//! What every task is given, and the one way to write to stdout.

use std::io::Write;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::exec::Processes;
use crate::term::Term;

/// What every task is given.
pub struct App {
    /// Starts commands.
    pub processes: Processes,
    /// Where progress is said.
    pub term: Term,
    /// The settings in force.
    pub config: Config,
    /// Whether to change nothing.
    pub dry_run: bool,
    /// Whether stdout is for a program.
    pub json: bool,
}

impl App {
    /// The same for work of its own, of which nothing is said but warnings and errors.
    pub fn clone_quietly(&self) -> Self {
        let term = self.term.quietly();
        Self { processes: self.processes.with(term), term, config: self.config.clone(), ..*self }
    }

    /// Prints the answer, as text or as JSON.
    ///
    /// # Errors
    /// Stdout cannot be written to.
    pub fn print(&self, text: impl FnOnce() -> String, json: impl FnOnce() -> serde_json::Value) -> Result<()> {
        write(&if self.json { format!("{:#}\n", json()) } else { text() })
    }
}

/// Writes to stdout. A reader that has gone (`| head`) has had enough, which is no error.
///
/// # Errors
/// Stdout cannot be written to.
pub fn write(text: &str) -> Result<()> {
    offer(text).map(|_| ())
}

/// The same for more to come; whether anybody still reads it.
///
/// # Errors
/// Stdout cannot be written to.
pub fn offer(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io("write to stdout")(error)),
    }
}
