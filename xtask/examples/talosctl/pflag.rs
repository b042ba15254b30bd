//! Flags as Go's pflag reads them: types, one-letter forms, values behind `=` or in the next word.

use crate::flags::{Command, Release};

/// A command line that its command takes.
#[derive(Debug)]
pub struct Parsed {
    /// The flags in their order, each with its value.
    flags: Vec<(String, String)>,
    /// What is no flag.
    pub words: Vec<String>,
}

impl Parsed {
    /// The value of a flag that may be given once; the last one counts.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    /// The values of a flag that may be given again; `strings` holds several behind one, with commas between.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.flags.iter().filter(|(flag, _)| flag == name).map(|(_, value)| value.as_str());
        if name.starts_with("config-patch") {
            values.collect()
        } else {
            values.flat_map(|value| value.split(',')).collect()
        }
    }

    /// Whether a flag without a value was given.
    pub fn bool(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value == "true")
    }

    /// The value of a number, and what it is without the flag.
    pub fn number(&self, name: &str, default: i64) -> i64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    /// The names of the flags that were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(|(name, _)| name.as_str())
    }
}

/// Reads the words behind a command. Like the real one it stops at the first mistake.
pub fn parse(release: &Release, path: &str, words: &[String]) -> Result<Parsed, String> {
    let mut parsed = Parsed { flags: Vec::new(), words: Vec::new() };
    if !release.has(path) {
        parsed.words = words.to_vec();
        return Ok(parsed);
    }
    let command = release.flags(path);
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        if word == "--" {
            parsed.words.extend(rest.cloned());
            break;
        }
        let Some((name, inline)) = named(command, word)? else {
            parsed.words.push(word.clone());
            continue;
        };
        let kind = kind(command, &name).ok_or_else(|| format!("unknown flag: --{name}"))?;
        let value = match inline {
            Some(value) => value,
            None if kind == "bool" => "true".to_owned(),
            None => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
        };
        let fits = check(kind, &value);
        fits.map_err(|why| format!("invalid argument \"{value}\" for \"--{name}\" flag: {why}"))?;
        if command.deprecated.contains(&name) {
            eprintln!("Flag --{name} has been deprecated, and is not needed any more");
        }
        parsed.flags.push((name, value));
    }
    Ok(parsed)
}

/// The flag that a word names, and the value in it; `None` where it names none.
fn named(command: &Command, word: &str) -> Result<Option<(String, Option<String>)>, String> {
    if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
        return Ok(Some((name.to_owned(), value)));
    }
    let Some(letter) = word.strip_prefix('-').and_then(|short| short.chars().next()) else {
        return Ok(None);
    };
    let of_letter = command.shorthand.iter().find(|(_, short)| short.starts_with(letter)).map(|(name, _)| name.clone());
    let name = match of_letter {
        Some(name) => name,
        None if letter == 'h' => "help".to_owned(),
        None => return Err(format!("unknown shorthand flag: '{letter}' in {word}")),
    };
    let value = word[1 + letter.len_utf8()..].trim_start_matches('=');
    Ok(Some((name, Some(value).filter(|value| !value.is_empty()).map(str::to_owned))))
}

fn kind<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    let help = (name == "help").then_some("bool");
    command.flags.get(name).map(String::as_str).or(help)
}

/// Whether a value is of the flag's type.
fn check(kind: &str, value: &str) -> Result<(), String> {
    let syntax = |function: &str| format!("strconv.{function}: parsing \"{value}\": invalid syntax");
    let fits = |fits: bool, why: String| if fits { Ok(()) } else { Err(why) };
    match kind {
        "bool" => fits(["true", "false", "1", "0", "t", "f"].contains(&value), syntax("ParseBool")),
        "int" => fits(value.parse::<i64>().is_ok(), syntax("ParseInt")),
        "uint" => fits(value.parse::<u64>().is_ok(), syntax("ParseUint")),
        "uint16" => fits(value.parse::<u16>().is_ok(), syntax("ParseUint")),
        "float" => fits(value.parse::<f64>().is_ok(), syntax("ParseFloat")),
        "duration" => fits(is_duration(value), format!("time: invalid duration \"{value}\"")),
        "semver" => {
            fits(semver::Version::parse(value.trim_start_matches('v')).is_ok(), "not a semantic version".into())
        }
        _ => Ok(()),
    }
}

/// Go's durations: numbers with units, `1h30m`.
fn is_duration(value: &str) -> bool {
    let mut rest = value.trim_start_matches(['-', '+']);
    if rest == "0" {
        return true;
    }
    let mut parts = 0;
    while !rest.is_empty() {
        let unit = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let number = &rest[..rest.len() - unit.len()];
        let known = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().rev().find(|known| unit.starts_with(**known));
        match known {
            Some(known) if number.parse::<f64>().is_ok() => {
                // `m` is the beginning of `ms`.
                let length = if unit.starts_with("ms") { 2 } else { known.len() };
                rest = &unit[length..];
                parts += 1;
            }
            _ => return false,
        }
    }
    parts > 0
}
