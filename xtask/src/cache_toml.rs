//! The shape of `cache.toml`, and errors that name a line of it.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::Deserialize;
use toml::Spanned;

use crate::config::{FILE, Preset};
use crate::error::Error;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) preset: Option<Spanned<Preset>>,
    pub(crate) prefix: Option<Spanned<String>>,
    pub(crate) image: Option<Spanned<String>>,
    pub(crate) bind: Option<Spanned<String>>,
    pub(crate) offline: Option<Spanned<toml::Value>>,
    #[serde(default)]
    pub(crate) mirrors: BTreeMap<Spanned<String>, Table>,
    #[serde(default)]
    pub(crate) cluster: ClusterTable,
    #[serde(default)]
    pub(crate) boot: BootTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClusterTable {
    pub(crate) address: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootTable {
    pub(crate) release: Option<Spanned<String>>,
    pub(crate) factory: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) upstream: Option<Spanned<String>>,
    pub(crate) port: Option<Spanned<i64>>,
    pub(crate) image: Option<Spanned<String>>,
    pub(crate) enabled: Option<bool>,
    pub(crate) username: Option<Spanned<String>>,
    pub(crate) password_env: Option<Spanned<String>>,
    pub(crate) password_file: Option<Spanned<String>>,
}

/// The text of the file, for errors that name a line of it.
pub(crate) struct Source<'a> {
    pub(crate) file: Utf8PathBuf,
    pub(crate) text: &'a str,
}

impl Source<'_> {
    pub(crate) fn error(&self, at: usize, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Config { file: self.file.clone(), line: self.number(at), problem: problem.into(), fix: fix.into() }
    }

    pub(crate) fn number(&self, at: usize) -> Option<usize> {
        self.text.get(..at).map(|before| before.matches('\n').count() + 1)
    }

    /// Where a value comes from, as in `cache.toml:3`.
    pub(crate) fn line(&self, at: usize) -> String {
        let name = self.file.file_name().unwrap_or(FILE);
        self.number(at).map_or_else(|| name.to_owned(), |line| format!("{name}:{line}"))
    }

    pub(crate) fn syntax(&self, error: &toml::de::Error) -> Error {
        let at = error.span().map_or(0, |span| span.start);
        let message = without_values(error.message().trim());
        if let Some(at) = self.unquoted_host().filter(|_| message.starts_with("unknown field")) {
            let fix = "write the host in quotes: [mirrors.\"docker.io\"]";
            return self.error(at, "without quotes, the dots of a host divide it into tables", fix);
        }
        let fix = if message.contains("unknown field `password`") {
            "a password has no place in this file: name where it is with `password_env` or `password_file`"
        } else {
            "docs/cache.md lists every key with an example"
        };
        self.error(at, message, fix)
    }

    /// Where a table `[mirrors.docker.io]` begins, whose host is not in quotes.
    fn unquoted_host(&self) -> Option<usize> {
        let mut at = 0;
        self.text.split_inclusive('\n').find_map(|line| {
            let begin = at;
            at += line.len();
            let host = line.trim_start().strip_prefix("[mirrors.")?;
            (!host.starts_with(['"', '\''])).then_some(begin)
        })
    }
}

/// A message of the parser without the values that it quotes: one of them may be a password in the wrong place.
fn without_values(message: &str) -> String {
    let Some((before, rest)) = message.split_once("invalid type: ") else { return message.to_owned() };
    let kind: String = rest.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    let expected = rest.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
    let expected = match expected {
        "i64" => "a number",
        "struct Table" => "a table, such as [mirrors.\"ghcr.io\"],",
        "struct ClusterTable" | "struct BootTable" => "a table",
        other => other,
    };
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{before}{article} {kind} stands where {expected} belongs")
}
