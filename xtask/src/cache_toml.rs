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
        let field = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
        if let Some((at, quoted)) = field.and_then(|field| self.unquoted_host(field)) {
            let fix = format!("write the host in quotes: {quoted}");
            return self.error(at, "without quotes, the dots of a host divide it into tables", fix);
        }
        let fix = if message == TOO_LARGE {
            "write a smaller number; a port is one from 1 to 65535"
        } else if message.contains("unknown field `password`") {
            "a password has no place in this file: name where it is with `password_env` or `password_file`"
        } else {
            "docs/cache.md lists every key with an example"
        };
        self.error(at, message, fix)
    }

    /// Where a host stands without quotes, so that it was divided at its dots, and that key with the quotes. `field` is
    /// the part of it that the parser took for a key of the mirror.
    fn unquoted_host(&self, field: &str) -> Option<(usize, String)> {
        let (mut at, mut in_mirrors, mut at_top) = (0, false, true);
        self.text.split_inclusive('\n').find_map(|line| {
            let begin = at;
            at += line.len();
            let line = line.trim();
            let header = line.strip_prefix('[').and_then(|rest| rest.split(']').next()).map(str::trim);
            if let Some(name) = header {
                (in_mirrors, at_top) = (name == "mirrors", false);
            }
            let (key, value) = header.map(|name| (name, None)).or_else(|| {
                let (key, value) = line.split_once('=')?;
                Some((key.trim(), Some(value.trim())))
            })?;
            let (table, path) = match key.strip_prefix("mirrors.") {
                Some(path) if header.is_some() || at_top => ("mirrors.", path),
                _ if header.is_none() && in_mirrors => ("", key),
                _ => return None,
            };
            let mut parts: Vec<&str> = path.split('.').map(str::trim).collect();
            // The last part is a key of the mirror, unless a table is what it holds.
            let key = if value.is_some_and(|value| !value.starts_with('{')) { parts.pop() } else { None };
            if parts.get(1) != Some(&field) || parts.iter().any(|part| part.contains(['"', '\''])) {
                return None;
            }
            let host = format!("{table}\"{}\"", parts.join("."));
            let quoted = match (header, key) {
                (Some(_), _) => format!("[{host}]"),
                (None, Some(key)) => format!("{host}.{key}"),
                (None, None) => host,
            };
            Some((begin, quoted))
        })
    }
}

const TOO_LARGE: &str = "the number is too large";

/// A message of the parser without the values that it quotes: one of them may be a password in the wrong place.
fn without_values(message: &str) -> String {
    if message == "integer number overflowed" {
        return TOO_LARGE.to_owned();
    }
    let quoting = ["invalid type: ", "invalid value: ", "unknown variant "];
    let Some((before, quoting, rest)) = quoting
        .into_iter()
        .find_map(|quoting| message.split_once(quoting).map(|(before, rest)| (before, quoting, rest)))
    else {
        return message.to_owned();
    };
    let kind: String = rest.chars().take_while(|c| c.is_ascii_alphabetic()).collect();
    let expected = rest.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
    match (quoting, kind.as_str(), expected) {
        ("unknown variant ", ..) => return format!("unknown variant, expected {expected}"),
        // The parser holds a number that no i64 holds in a larger type.
        (_, "integer", "i64") => return TOO_LARGE.to_owned(),
        _ => {}
    }
    let expected = match expected {
        "i64" => "a number",
        "struct Table" => "a table, such as [mirrors.\"ghcr.io\"],",
        "struct ClusterTable" | "struct BootTable" => "a table",
        other => other,
    };
    let article = if kind.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{before}{article} {kind} stands where {expected} belongs")
}
