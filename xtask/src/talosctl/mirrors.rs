//! Registry mirrors as a patch of the machine configuration, for `--config-patch @FILE`.

use std::fmt::Write;

use crate::error::Finding;
use crate::talosctl::Version;

/// A registry host and the address that serves it.
pub type Mirror = (String, String);

/// The patch that makes nodes use the mirrors, in their order.
///
/// `version` is the older of talosctl and of the Talos that nodes run, since both read it: from 1.12 on a
/// `RegistryMirrorConfig` document a host, before that `machine.registries.mirrors`, which every Talos understands.
/// With `skip_fallback` nodes never ask the registry itself.
///
/// # Errors
/// `skip_fallback` before 1.9, where Talos refuses a configuration that names it.
pub fn patch(version: &Version, mirrors: &[Mirror], skip_fallback: bool) -> Result<String, Finding> {
    if skip_fallback && !version.at_least((1, 9)) {
        return Err(Finding::new(
            "--skip-fallback",
            format!("Talos {version} has no such option; it exists from 1.9 on"),
            "leave it out, or use a newer Talos and talosctl",
        ));
    }
    let hosts = by_host(mirrors);
    Ok(if version.at_least((1, 12)) { documents(&hosts, skip_fallback) } else { v1alpha1(&hosts, skip_fallback) })
}

/// The addresses of each host: a host that comes twice would be a key that comes twice, which YAML does not allow.
fn by_host(mirrors: &[Mirror]) -> Vec<(&str, Vec<&str>)> {
    let mut hosts: Vec<(&str, Vec<&str>)> = Vec::new();
    for (host, url) in mirrors {
        match hosts.iter_mut().find(|(known, _)| known == host) {
            Some((_, urls)) => urls.push(url),
            None => hosts.push((host, vec![url])),
        }
    }
    hosts
}

fn documents(hosts: &[(&str, Vec<&str>)], skip_fallback: bool) -> String {
    let document = |(host, urls): &(&str, Vec<&str>)| {
        let mut text =
            format!("apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: {}\nendpoints:\n", quoted(host));
        for url in urls {
            let _ = writeln!(text, "  - url: {}", quoted(url));
        }
        if skip_fallback {
            text += "skipFallback: true\n";
        }
        text
    };
    hosts.iter().map(document).collect::<Vec<_>>().join("---\n")
}

fn v1alpha1(hosts: &[(&str, Vec<&str>)], skip_fallback: bool) -> String {
    let mut text = "machine:\n  registries:\n    mirrors:\n".to_owned();
    for (host, urls) in hosts {
        let _ = writeln!(text, "      {}:\n        endpoints:", quoted(host));
        for url in urls {
            let _ = writeln!(text, "          - {}", quoted(url));
        }
        if skip_fallback {
            text += "        skipFallback: true\n";
        }
    }
    text
}

/// A YAML scalar that is text whatever it looks like: JSON's strings are YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors() -> Vec<Mirror> {
        [("docker.io", "http://10.5.0.1:5000"), ("*", "http://a:1"), ("docker.io", "http://b:2")]
            .map(|(host, url)| (host.to_owned(), url.to_owned()))
            .to_vec()
    }

    fn version(tag: &str) -> Version {
        Version::parse(tag).unwrap()
    }

    #[test]
    fn before_1_12_it_is_one_merge_of_the_machine_section() {
        for tag in ["v1.2.9", "v1.11.6"] {
            assert_eq!(
                patch(&version(tag), &mirrors(), false).unwrap(),
                "machine:\n  registries:\n    mirrors:\n      \"docker.io\":\n        endpoints:\n          \
                 - \"http://10.5.0.1:5000\"\n          - \"http://b:2\"\n      \"*\":\n        endpoints:\n          \
                 - \"http://a:1\"\n"
            );
        }
    }

    #[test]
    fn from_1_12_on_it_is_a_document_a_host() {
        for tag in ["v1.12.0-alpha.0", "v1.14.0-rc.1"] {
            assert_eq!(
                patch(&version(tag), &mirrors(), true).unwrap(),
                "apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"docker.io\"\nendpoints:\n  \
                 - url: \"http://10.5.0.1:5000\"\n  - url: \"http://b:2\"\nskipFallback: true\n---\n\
                 apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: \"*\"\nendpoints:\n  \
                 - url: \"http://a:1\"\nskipFallback: true\n"
            );
        }
    }

    #[test]
    fn skipping_the_fallback_needs_1_9() {
        assert!(patch(&version("v1.9.6"), &mirrors(), true).unwrap().contains("        skipFallback: true\n"));
        let finding = patch(&version("v1.8.4"), &mirrors(), true).unwrap_err();
        assert!(finding.problem.contains("from 1.9 on"), "{finding}");
    }
}
