//! What is said while something happens, all of it on stderr: progress, echoed commands, warnings, colour.

use std::io::{IsTerminal, Write};

use crate::spinner::{Screen, Waiting};

/// When to use colour, as asked for on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How much to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Quiet,
    Normal,
    Verbose,
}

/// The user's terminal, as far as progress goes.
#[derive(Clone, Copy, Debug)]
pub struct Term {
    level: Level,
    color: bool,
    /// Where a spinner may be shown; nothing where stderr is no terminal.
    screen: Option<&'static Screen>,
}

impl Term {
    /// The terminal that stderr is, with the wishes of the command line.
    pub fn new(quiet: bool, verbose: bool, color: Color) -> Self {
        let live = std::io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        // Such a terminal cannot go back to the start of a line.
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => live && !no_color,
        };
        let level = match (quiet, verbose) {
            (true, _) => Level::Quiet,
            (_, true) => Level::Verbose,
            _ => Level::Normal,
        };
        // One for the process, which every copy of this refers to: a line that is printed has to know of a spinner.
        let screen = if live && !dumb { Some(&*Box::leak(Box::new(Screen::stderr()))) } else { None };
        Self { level, color, screen }
    }

    /// Says nothing at all; for tests.
    pub fn silent() -> Self {
        Self { level: Level::Quiet, color: false, screen: None }
    }

    /// The same terminal, on which nothing is said but warnings and errors; with `-v` as much as before.
    pub fn quietly(self) -> Self {
        Self { level: if self.level == Level::Verbose { Level::Verbose } else { Level::Quiet }, ..self }
    }

    fn say(self, least: Level, style: &str, label: &str, text: &str) {
        if self.level < least {
            return;
        }
        let label = self.paint(style, label);
        match self.screen {
            Some(screen) => screen.line(&format!("{label}{text}")),
            // Nobody is left to read it when stderr is gone; the work goes on.
            None => drop(writeln!(std::io::stderr().lock(), "{label}{text}")),
        }
    }

    /// A text in a style (an SGR parameter), or as it is where colour is off.
    pub fn paint(self, style: &str, text: &str) -> String {
        if self.color && !text.is_empty() { format!("\u{1b}[{style}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// One thing that was done or is being done.
    pub fn step(self, text: &str) {
        self.say(Level::Normal, "32", "", text);
    }

    /// A question, which has to be seen however quiet it is to be.
    pub fn ask(self, text: &str) {
        self.say(Level::Quiet, "32", "", text);
    }

    /// Something to know although nothing failed.
    pub fn warn(self, text: &str) {
        self.say(Level::Quiet, "33", "warning: ", text);
    }

    /// The last word of a run that failed.
    pub fn error(self, text: &str, fix: Option<&str>) {
        self.say(Level::Quiet, "31", "error: ", text);
        if let Some(fix) = fix {
            self.say(Level::Quiet, "36", "fix: ", fix);
        }
    }

    /// A command that a user should see, as it can be pasted.
    pub fn command(self, shell: &str) {
        self.say(Level::Normal, "2", "$ ", shell);
    }

    /// A command that only `-v` shows.
    pub fn command_verbose(self, shell: &str) {
        self.say(Level::Verbose, "2", "$ ", shell);
    }

    /// A line that moves while something is awaited; it is gone when dropped. Hidden where stderr is no terminal.
    pub fn waiting(self, text: impl Into<String>) -> Waiting {
        match self.screen.filter(|_| self.level != Level::Quiet) {
            Some(screen) => screen.wait(text.into()),
            None => Waiting::hidden(),
        }
    }
}
