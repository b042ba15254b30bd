//! An error for a program that reads `--json`: one object on one line of stdout, of the same shape whatever failed.

use serde_json::{Value, json};

use super::{Error, Finding, USAGE};
use crate::command::without_userinfo;

/// What an error in the words of the command line is about.
const COMMAND_LINE: &str = "command line";

impl Error {
    /// The object, or nothing where the task has printed its own answer, or ended as it was meant to.
    pub fn json(&self) -> Option<Value> {
        match self {
            Self::Negative(_) | Self::Ended { .. } => None,
            _ => Some(object(self.code(), &self.findings())),
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let fix = self.fix().unwrap_or_default();
        let one = |subject: &str, problem: String| vec![Finding::new(subject, problem, fix)];
        match self {
            Self::Blocked(findings) => findings.clone(),
            Self::Usage { problem, .. } => one(COMMAND_LINE, problem.clone()),
            Self::Config { file, line, problem, .. } => {
                let line = line.map(|line| format!(":{line}")).unwrap_or_default();
                one(&format!("{file}{line}"), problem.clone())
            }
            Self::Tool { problem, .. } => one("tool", problem.clone()),
            Self::Command { command, status, seen, .. } => {
                vec![Finding::new(command, format!("ended with {status}"), fix).seen(seen.iter().cloned())]
            }
            Self::Answer { command, problem } => one(command, format!("cannot read what it printed: {problem}")),
            Self::Interrupted { signal, .. } => one(&format!("signal {signal}"), self.to_string()),
            Self::Negative(problem) => one("answer", problem.clone()),
            Self::Ended { .. } => Vec::new(),
            Self::Io { .. } => one("operating system", self.to_string()),
        }
    }
}

fn object(code: u8, findings: &[Finding]) -> Value {
    let one = |finding: &Finding| {
        json!({
            "subject": without_userinfo(&finding.subject),
            "problem": without_userinfo(&finding.problem),
            "seen": finding.seen.iter().map(|line| without_userinfo(line)).collect::<Vec<_>>(),
            "fix": finding.fix,
        })
    };
    json!({ "code": code, "errors": findings.iter().map(one).collect::<Vec<_>>() })
}

/// Whether words that could not be parsed ask for JSON. What is behind `--` is for another program.
pub fn is_asked_for(mut words: impl Iterator<Item = std::ffi::OsString>) -> bool {
    words.by_ref().take_while(|word| word != "--").any(|word| word == "--json")
}

/// The object for a command line that cannot be parsed; nothing for `--help` and `--version`, which are no errors.
pub fn of_command_line(error: &clap::Error) -> Option<Value> {
    use clap::error::ErrorKind;
    let help = "run `cargo xtask --help`";
    let finding = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Finding::new(COMMAND_LINE, "no task is named", help),
        _ => {
            let text = error.render().to_string();
            let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let first = lines.next().unwrap_or_default();
            let problem = first.strip_prefix("error: ").unwrap_or(first);
            let more = lines.filter(|line| !line.starts_with("For more information"));
            Finding::new(COMMAND_LINE, problem, help).seen(more.map(str::to_owned))
        }
    };
    Some(object(USAGE, &[finding]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn every_kind_of_error_has_the_same_shape() {
        let io = || std::io::Error::from_raw_os_error(13);
        let text = |text: &str| text.to_owned();
        let finding = |host: &str| Finding::new(host, "port 5000 is held", "stop it").seen(["by nginx".to_owned()]);
        let cases = [
            (Error::Usage { problem: text("p"), fix: text("f") }, 2, vec!["command line", "p", "", "f"]),
            (
                Error::Config { file: "cache.toml".into(), line: Some(3), problem: text("p"), fix: text("f") },
                2,
                vec!["cache.toml:3", "p", "", "f"],
            ),
            (
                Error::Config { file: "cache.toml".into(), line: None, problem: text("p"), fix: text("f") },
                2,
                vec!["cache.toml", "p", "", "f"],
            ),
            (Error::Tool { problem: text("p"), fix: text("f") }, 1, vec!["tool", "p", "", "f"]),
            (
                Error::Command { command: text("docker"), status: text("4"), seen: vec![text("s")], fix: text("f") },
                1,
                vec!["docker", "ended with 4", "s", "f"],
            ),
            (
                Error::Answer { command: text("docker"), problem: text("p") },
                1,
                vec![
                    "docker",
                    "cannot read what it printed: p",
                    "",
                    "run the command by hand; if its output is as it should be, report it",
                ],
            ),
            (
                Error::Blocked(vec![finding("docker.io"), finding("quay.io")]),
                1,
                vec![
                    "docker.io",
                    "port 5000 is held",
                    "by nginx",
                    "stop it",
                    "quay.io",
                    "port 5000 is held",
                    "by nginx",
                    "stop it",
                ],
            ),
            (
                Error::Interrupted { signal: 2, left: text("all stays") },
                130,
                vec!["signal 2", "interrupted: all stays", "", ""],
            ),
            (
                Error::Io { what: text("read x"), source: io() },
                1,
                vec!["operating system", "cannot read x: Permission denied (os error 13)", "", ""],
            ),
        ];
        for (error, code, words) in cases {
            let value = error.json().unwrap();
            assert_eq!(value["code"], code, "{value}");
            let errors = value["errors"].as_array().unwrap();
            let told = errors.iter().flat_map(|one| {
                assert_eq!(one.as_object().unwrap().len(), 4, "{value}");
                let seen = one["seen"].as_array().unwrap().iter().map(|line| line.as_str().unwrap());
                let seen = seen.collect::<Vec<_>>().join("\n");
                let word = |key: &str| one[key].as_str().unwrap().to_owned();
                [word("subject"), word("problem"), seen, word("fix")]
            });
            assert_eq!(told.collect::<Vec<_>>(), words, "{value}");
        }
    }

    #[test]
    fn an_answer_that_was_given_is_not_followed_by_an_error() {
        assert_eq!(Error::Negative("not healthy".to_owned()).json(), None);
        assert_eq!(Error::Ended { code: 130 }.json(), None);
    }

    #[test]
    fn a_command_line_is_an_error_unless_it_asks_for_help() {
        let of = |words: &[&str]| {
            let words = [&["cargo xtask"], words].concat();
            of_command_line(&crate::cli::Cli::try_parse_from(words).unwrap_err())
        };
        let wrong = of(&["cache-up", "--jsn"]).unwrap();
        assert_eq!(wrong["code"], 2);
        assert_eq!(wrong["errors"][0]["problem"], "unexpected argument '--jsn' found");
        assert!(wrong["errors"][0]["seen"][0].as_str().unwrap().starts_with("tip: "), "{wrong}");
        assert_eq!(of(&[]).unwrap()["errors"][0]["problem"], "no task is named");
        assert_eq!((of(&["--help"]), of(&["cache-up", "--version"])), (None, None));
        let asked = |words: &[&str]| is_asked_for(words.iter().map(|&word| word.into()));
        assert!(asked(&["cache-up", "--json"]) && !asked(&["cluster", "--", "--json"]) && !asked(&["--jsonx"]));
    }
}
