//! The flags that the user gives behind `--`, read as talosctl reads them.

use camino::Utf8Path;

use crate::command::hidden;
use crate::talosctl::{Dialect, Version};

/// What the value of a flag has to do with paths.
#[derive(Clone, Copy)]
enum Kind {
    /// It is one, or (boot files, from 1.7 on) an address.
    Path,
    /// It is several, with commas between.
    List,
    /// `@FILE`, from 1.12 on the bare path as well, or the patch itself.
    Patch,
    /// Docker's `type=bind,source=PATH,target=PATH`.
    Mount,
}

/// Source: the flags of each release as its own binary lists them, those of `create docker` and `create qemu` from 1.12
/// on; a test holds this against them. `--user-disk` and `--disks` name no path of this machine.
const PATHS: &[(&str, Kind)] = &[
    ("cni-bin-path", Kind::List),
    ("cni-cache-dir", Kind::Path),
    ("cni-conf-dir", Kind::Path),
    ("config-patch", Kind::Patch),
    ("config-patch-control-plane", Kind::Patch),
    ("config-patch-controlplanes", Kind::Patch),
    ("config-patch-join", Kind::Patch),
    ("config-patch-worker", Kind::Patch),
    ("config-patch-workers", Kind::Patch),
    ("disk-image-path", Kind::Path),
    ("extra-uefi-search-paths", Kind::List),
    ("initrd-path", Kind::Path),
    ("input-dir", Kind::Path),
    ("iso-path", Kind::Path),
    ("mount", Kind::Mount),
    ("talosconfig", Kind::Path),
    ("talosconfig-destination", Kind::Path),
    ("uki-path", Kind::Path),
    ("usb-path", Kind::Path),
    ("vmlinuz-path", Kind::Path),
];

/// A word that names a flag.
struct Flag<'a> {
    /// What is in front of the value: `--name=`, `-i`.
    head: &'a str,
    name: &'a str,
    /// The value, where it is in the same word.
    value: Option<&'a str>,
}

impl<'a> Flag<'a> {
    /// `--name`, `--name=value`, and the one short form that holds a path: `-i`, `-iVALUE`, `-i=VALUE`.
    fn read(word: &'a str) -> Option<Self> {
        let split = |value: &'a str| (&word[..word.len() - value.len()], Some(value));
        if let Some(long) = word.strip_prefix("--").filter(|long| !long.is_empty()) {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let (head, value) = value.map_or((word, None), split);
            return Some(Self { head, name, value });
        }
        let value = word.strip_prefix("-i")?;
        let value = value.strip_prefix('=').unwrap_or(value);
        let (head, value) = if word == "-i" { (word, None) } else { split(value) };
        Some(Self { head, name: "input-dir", value })
    }
}

/// Whether the user's flags name this one.
pub fn given(extra: &[String], name: &str) -> bool {
    extra.iter().filter_map(|word| Flag::read(word)).any(|flag| flag.name == name)
}

/// The values that the user's flags give this one, in their order.
pub fn values<'a>(extra: &'a [String], name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
    extra.iter().enumerate().filter_map(move |(at, word)| {
        let flag = Flag::read(word).filter(|flag| flag.name == name)?;
        flag.value.or_else(|| extra.get(at + 1).map(String::as_str))
    })
}

/// The value that the user's flags give this one, the last where there are several.
pub fn value<'a>(extra: &'a [String], name: &'a str) -> Option<&'a str> {
    values(extra, name).next_back()
}

/// What the user's flags turn this one to, which takes a value only behind `=`; the words are those of Go's
/// `strconv.ParseBool`.
pub fn switched(extra: &[String], name: &str) -> Option<bool> {
    let flag = extra.iter().rev().filter_map(|word| Flag::read(word)).find(|flag| flag.name == name)?;
    match flag.value {
        None | Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Some(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Some(false),
        Some(_) => None,
    }
}

/// The same flags with their paths made absolute: talosctl runs in a folder of its own, where relative ones would lead
/// somewhere else, and be removed with it.
pub fn absolute(extra: &[String], version: &Version, folder: &Utf8Path) -> Vec<String> {
    let mut kind = None;
    let mut one = |word: &String| {
        if let Some(kind) = kind.take() {
            return anchored(kind, word, version, folder);
        }
        let Some(flag) = Flag::read(word) else { return word.clone() };
        let found = PATHS.iter().find(|(name, _)| *name == flag.name).map(|(_, kind)| *kind);
        match (found, flag.value) {
            (Some(kind), Some(value)) => format!("{}{}", flag.head, anchored(kind, value, version, folder)),
            (found, _) => {
                kind = found;
                word.clone()
            }
        }
    };
    extra.iter().map(&mut one).collect()
}

/// The same flags for a record, which anybody may read.
pub fn without_secrets(extra: &[String]) -> Vec<String> {
    let secrets = secrets(extra);
    extra.iter().map(|word| hidden(word, &secrets)).collect()
}

/// What the user's flags hold that nobody else is to read: an account of a factory.
pub fn secrets(extra: &[String]) -> Vec<String> {
    let account = |url: &str| {
        let authority = url.split_once("://")?.1.split('/').next()?;
        Some(format!("{}@", authority.rsplit_once('@')?.0))
    };
    let in_address = values(extra, "image-factory-url").filter_map(account);
    values(extra, "image-factory-auth")
        .map(str::to_owned)
        .chain(in_address)
        .filter(|secret| !secret.is_empty())
        .collect()
}

fn anchored(kind: Kind, value: &str, version: &Version, folder: &Utf8Path) -> String {
    match kind {
        Kind::Path => path(value, folder),
        // A quote is for a path with a comma in it, which is read no further here.
        Kind::List if value.contains('"') => value.to_owned(),
        Kind::List => value.split(',').map(|part| path(part, folder)).collect::<Vec<_>>().join(","),
        Kind::Patch => match value.strip_prefix('@') {
            Some(file) => format!("@{}", path(file, folder)),
            None if is_bare_file(value, version) => path(value, folder),
            None => value.to_owned(),
        },
        Kind::Mount => value.split(',').map(|field| source(field, folder)).collect::<Vec<_>>().join(","),
    }
}

/// Whether talosctl takes a patch without `@` for the path of one.
fn is_bare_file(patch: &str, version: &Version) -> bool {
    Dialect::of(version) == Dialect::Split && !patch.starts_with(['[', '{']) && !patch.contains(char::is_whitespace)
}

/// A field of a mount. A name without a dot in front is that of a volume.
fn source(field: &str, folder: &Utf8Path) -> String {
    let Some((key @ ("source" | "src"), value)) = field.split_once('=') else { return field.to_owned() };
    let relative = matches!(value, "." | "..") || value.starts_with("./") || value.starts_with("../");
    if relative { format!("{key}={}", path(value, folder)) } else { field.to_owned() }
}

/// A path seen from a folder; addresses and nothing at all stay what they are.
pub fn path(value: &str, folder: &Utf8Path) -> String {
    if value.is_empty() || value.starts_with("http://") || value.starts_with("https://") || value.starts_with('/') {
        return value.to_owned();
    }
    let value = value.strip_prefix("./").unwrap_or(value);
    if value == "." { folder.to_string() } else { folder.join(value).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn v(tag: &str) -> Version {
        Version::parse(tag).unwrap()
    }

    #[test]
    fn a_value_is_read_in_every_spelling() {
        let extra = words("--image=a --cpus 2.0 --image b --images c -i=d");
        assert_eq!((value(&extra, "image"), value(&extra, "cpus"), value(&extra, "x")), (Some("b"), Some("2.0"), None));
        assert_eq!(values(&extra, "image").collect::<Vec<_>>(), ["a", "b"]);
        for spelt in ["-i d", "-id", "-i=d", "--input-dir d", "--input-dir=d"] {
            assert_eq!(value(&words(spelt), "input-dir"), Some("d"), "{spelt}");
        }
        assert!(given(&extra, "cpus") && !given(&extra, "cpu") && !given(&words("-p x"), "input-dir"));
    }

    #[test]
    fn a_switch_takes_its_value_behind_an_equals_sign_alone() {
        for (line, expected) in [
            ("--with-uefi false", Some(true)),
            ("--with-uefi=false", Some(false)),
            ("--with-uefi=0 --with-uefi", Some(true)),
            ("--with-uefi=perhaps", None),
            ("--with-tpm2", None),
        ] {
            assert_eq!(switched(&words(line), "with-uefi"), expected, "{line}");
        }
    }

    #[test]
    fn relative_paths_are_those_of_the_users_folder() {
        for (given, expected) in [
            ("--config-patch @p.yaml", "--config-patch @/w/p.yaml"),
            ("--config-patch=@./p.yaml --wait", "--config-patch=@/w/p.yaml --wait"),
            ("--config-patch-worker @../p.yaml", "--config-patch-worker @/w/../p.yaml"),
            ("--config-patch @/p.yaml", "--config-patch @/p.yaml"),
            ("--config-patch {\"a\":1} --cpus p.yaml", "--config-patch {\"a\":1} --cpus p.yaml"),
            ("--config-patch p.yaml", "--config-patch p.yaml"),
            ("-i in --input-dir=in -i=in -iin", "-i /w/in --input-dir=/w/in -i=/w/in -i/w/in"),
            ("--vmlinuz-path k --initrd-path=i", "--vmlinuz-path /w/k --initrd-path=/w/i"),
            ("--iso-path https://x/y.iso", "--iso-path https://x/y.iso"),
            ("--talosconfig ./t", "--talosconfig /w/t"),
            ("--cni-bin-path=a,/b --extra-uefi-search-paths .", "--cni-bin-path=/w/a,/b --extra-uefi-search-paths /w"),
            ("--user-disk /var/x:100MB", "--user-disk /var/x:100MB"),
            ("--mount type=bind,source=./d,target=/d", "--mount type=bind,source=/w/d,target=/d"),
            ("--mount type=volume,source=d,target=/d", "--mount type=volume,source=d,target=/d"),
            ("-p @file --iso-path", "-p @file --iso-path"),
        ] {
            assert_eq!(absolute(&words(given), &v("v1.11.6"), "/w".into()).join(" "), expected);
        }
    }

    #[test]
    fn a_record_has_no_secret_in_it() {
        let extra = words("--image-factory-auth a:b --image-factory-auth=c:d --cpus 2");
        assert_eq!(without_secrets(&extra).join(" "), "--image-factory-auth *** --image-factory-auth=*** --cpus 2");
        let extra = words("--image-factory-url https://a:b@f.example --cpus 2");
        assert_eq!(without_secrets(&extra).join(" "), "--image-factory-url https://***@f.example --cpus 2");
    }

    #[test]
    fn from_1_12_on_a_patch_may_be_a_bare_path() {
        let patches = ["p.yaml", "machine: {}", "{}", "[{}]", "a:\n  b", "@p"].map(str::to_owned);
        let extra: Vec<String> = patches.iter().flat_map(|patch| ["--config-patch".into(), patch.clone()]).collect();
        let found = absolute(&extra, &v("v1.12.0"), "/w".into());
        let found: Vec<&str> = values(&found, "config-patch").collect();
        assert_eq!(found, ["/w/p.yaml", "machine: {}", "{}", "[{}]", "a:\n  b", "@/w/p"]);
    }

    /// Whatever looks like a path in the flags of any release is known, and what is known is in one of them.
    #[test]
    fn the_table_agrees_with_the_flags_of_every_release() {
        let all: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/data/talosctl-flags.json")).unwrap();
        let mut found = std::collections::BTreeSet::new();
        for release in all.as_object().unwrap().values() {
            let split = release["commands"].get("cluster create docker").is_some();
            let commands: &[&str] =
                if split { &["cluster create docker", "cluster create qemu"] } else { &["cluster create"] };
            let flags = commands.iter().flat_map(|name| release["commands"][name]["flags"].as_object().unwrap().keys());
            let ends = ["-path", "-paths", "-dir", "-destination"];
            let is = |flag: &&String| {
                ends.iter().any(|end| flag.ends_with(end))
                    || flag.starts_with("config-patch")
                    || ["talosconfig", "mount"].contains(&flag.as_str())
            };
            found.extend(flags.filter(is).map(String::as_str));
        }
        assert_eq!(found.into_iter().collect::<Vec<_>>(), PATHS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
