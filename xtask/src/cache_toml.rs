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
    pub(crate) offline: Option<Spanned<Switch>>,
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

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Switch {
    Flag(bool),
    Word(String),
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
        self.error(at, error.message().trim(), "docs/cache.md lists every key with an example")
    }
}
