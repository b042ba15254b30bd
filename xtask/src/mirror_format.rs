//! The mirrors as the configuration of a container runtime: a text a file, pure.

use clap::ValueEnum;

use crate::config::Mirror;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::talosctl::Version;

/// Whose configuration to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Talos 1.12 and later: RegistryMirrorConfig documents
    #[default]
    Talos,
    /// Talos up to 1.11: a patch of machine.registries.mirrors, which later ones still take
    #[value(name = "talos-v1alpha1")]
    TalosV1alpha1,
    /// containerd 1.5 and later: a hosts.toml for each host
    Containerd,
    /// Docker: a part of daemon.json, for docker.io alone
    Docker,
    /// k3s: registries.yaml
    K3s,
    /// CRI-O and podman: registries.conf
    CriO,
}

impl Format {
    /// Whether it can say that a registry itself is never asked.
    fn skips_fallback(self) -> bool {
        self != Self::Docker
    }

    /// Where its files belong, as an imperative.
    pub fn place(self) -> &'static str {
        match self {
            Self::Talos | Self::TalosV1alpha1 => {
                "give it to `talosctl gen config --config-patch @FILE`, \
                 or to `talosctl patch machineconfig --patch @FILE` for nodes that run"
            }
            Self::Containerd => {
                "put certs.d into /etc/containerd, and set the CRI registry's \
                 `config_path = \"/etc/containerd/certs.d\"` in config.toml"
            }
            Self::Docker => "merge it into /etc/docker/daemon.json, and reload dockerd",
            Self::K3s => "copy it to /etc/rancher/k3s/registries.yaml on every node, and restart k3s",
            Self::CriO => "copy it into /etc/containers/registries.conf.d, and restart CRI-O",
        }
    }
}

/// A mirror as a machine elsewhere reaches it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The registry host that images name, with its port where they name one: `docker.io`, `registry.example:8443`.
    pub host: String,
    /// The mirror's address with its scheme and without a path: `http://10.5.0.1:5000`.
    pub url: String,
}

/// A file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Document {
    /// Its path, relative to the folder that it is written to.
    pub path: String,
    /// The whole of it, with a newline at the end.
    pub text: String,
}

/// A configuration, and what it cannot say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// At least one; several for containerd alone.
    pub documents: Vec<Document>,
    /// What the reader has to know or do besides, a sentence each without a full stop.
    pub notes: Vec<String>,
}

/// Renders the mirrors, in their order. With `skip_fallback` a registry itself is never asked, as in an air-gapped site.
///
/// # Errors
/// There is no mirror, or the format cannot say what is asked of it.
pub fn render(format: Format, mirrors: &[Endpoint], skip_fallback: bool) -> Result<Rendered> {
    if mirrors.is_empty() {
        return Err(Error::Usage {
            problem: "no mirror is configured".to_owned(),
            fix: format!("enable one in {}", crate::config::FILE),
        });
    }
    if skip_fallback && !format.skips_fallback() {
        return Err(no_skip_fallback());
    }
    let one = |path: &str, text: String| vec![Document { path: path.to_owned(), text }];
    let mut notes = Vec::new();
    let brackets = mirrors.iter().any(|mirror| mirror.url.contains('['));
    if brackets && matches!(format, Format::Containerd | Format::K3s) {
        notes.push(CONTAINERD_IPV6.to_owned());
    }
    let documents = match format {
        Format::Talos => one("registry-mirrors.yaml", talos(mirrors, skip_fallback)),
        Format::TalosV1alpha1 => one("registry-mirrors-v1alpha1.yaml", talos_v1alpha1(mirrors, skip_fallback)),
        Format::Containerd => mirrors.iter().map(|mirror| containerd(mirror, skip_fallback)).collect(),
        Format::Docker => {
            notes.extend(past_docker(mirrors));
            one("daemon.json", docker(mirrors)?)
        }
        Format::K3s => {
            notes.extend(skip_fallback.then(|| K3S_SKIP_FALLBACK.to_owned()));
            one("registries.yaml", k3s(mirrors))
        }
        Format::CriO if brackets => return Err(cri_o_ipv6()),
        Format::CriO => one("registries.conf", cri_o(mirrors, skip_fallback)),
    };
    Ok(Rendered { documents, notes })
}

/// The mirrors at an address that is written as URLs have it.
pub fn endpoints(mirrors: &[Mirror], address: &Host) -> Vec<Endpoint> {
    let endpoint = |mirror: &Mirror| Endpoint {
        host: mirror.host.clone(),
        url: format!("http://{}", address.with_port(mirror.port)),
    };
    mirrors.iter().map(endpoint).collect()
}

/// The patch of the machine configuration that makes nodes use the mirrors, for a strategic merge (talosctl 1.2 on).
///
/// `version` is the older of talosctl and of the Talos that nodes run, since both read it: from 1.12 on a document a
/// host, before that the field that every Talos understands.
pub fn patch(version: &Version, mirrors: &[Endpoint]) -> String {
    if version.at_least((1, 12)) { talos(mirrors, false) } else { talos_v1alpha1(mirrors, false) }
}

fn no_skip_fallback() -> Error {
    let able = Format::value_variants().iter().filter(|format| format.skips_fallback());
    let names: Vec<String> =
        able.filter_map(ValueEnum::to_possible_value).map(|value| value.get_name().to_owned()).collect();
    Error::Usage {
        problem: "Docker asks docker.io itself whenever its mirror fails, and nothing turns that off".to_owned(),
        fix: format!("leave out --skip-fallback, or write for one that has it: {}", names.join(", ")),
    }
}

/// The documents of Talos 1.12 and later; earlier ones reject the kind.
fn talos(mirrors: &[Endpoint], skip_fallback: bool) -> String {
    let skip = if skip_fallback { "skipFallback: true\n" } else { "" };
    let document = |Endpoint { host, url }: &Endpoint| {
        let name = yaml(host);
        format!("apiVersion: v1alpha1\nkind: RegistryMirrorConfig\nname: {name}\nendpoints:\n  - url: {url}\n{skip}")
    };
    mirrors.iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// The field that every Talos reads, deprecated from 1.12 on; `skipFallback` is there from 1.9 on.
fn talos_v1alpha1(mirrors: &[Endpoint], skip_fallback: bool) -> String {
    let (comment, skip) = match skip_fallback {
        true => ("# skipFallback needs Talos 1.9 or later.\n", "        skipFallback: true\n"),
        false => ("", ""),
    };
    let mirror = |Endpoint { host, url }: &Endpoint| {
        format!("      {}:\n        endpoints:\n          - {url}\n{skip}", yaml(host))
    };
    format!("{comment}machine:\n  registries:\n    mirrors:\n{}", mirrors.iter().map(mirror).collect::<String>())
}

/// The `hosts.toml` of one host (containerd's docs/hosts.md). Its `server` is what is asked after the mirrors, and is the
/// registry itself where it is left out; so the way to skip that is to name the mirror there too.
fn containerd(mirror: &Endpoint, skip_fallback: bool) -> Document {
    let Endpoint { host, url } = mirror;
    let server = match host.as_str() {
        _ if skip_fallback => url.clone(),
        "docker.io" => "https://registry-1.docker.io".to_owned(),
        _ => format!("https://{host}"),
    };
    // containerd looks for `HOST_PORT_` before `HOST:PORT`, and some file systems have no colon in a name.
    let folder = host.rsplit_once(':').map_or_else(|| host.clone(), |(name, port)| format!("{name}_{port}_"));
    Document {
        path: format!("certs.d/{folder}/hosts.toml"),
        text: format!("server = {server:?}\n\n[host.{url:?}]\ncapabilities = [\"pull\", \"resolve\"]\n"),
    }
}

/// containerd issue 10055 and k3s issue 9897; 1.6 logs `failed to decode hosts.toml` and goes on without the mirrors.
const CONTAINERD_IPV6: &str = "containerd before 2.0 cannot read an IPv6 address here and passes the mirrors over: \
    name this host by a host name where it may be one of those";

/// Docker asks a mirror with the scheme of its address, so one without TLS needs no `insecure-registries` (20.10.24).
fn docker(mirrors: &[Endpoint]) -> Result<String> {
    let Some(hub) = mirrors.iter().find(|mirror| mirror.host == "docker.io") else {
        return Err(Error::Usage {
            problem: "Docker takes a mirror for docker.io alone, and none is configured for it".to_owned(),
            fix: format!("enable the mirror of docker.io in {}", crate::config::FILE),
        });
    };
    Ok(format!("{:#}\n", serde_json::json!({ "registry-mirrors": [hub.url] })))
}

/// What Docker pulls past the mirrors, since its `registry-mirrors` are asked for docker.io alone.
fn past_docker(mirrors: &[Endpoint]) -> Option<String> {
    let others: Vec<&str> = mirrors.iter().map(|m| m.host.as_str()).filter(|host| *host != "docker.io").collect();
    let list = others.join(", ");
    (!others.is_empty())
        .then(|| format!("Docker takes a mirror for docker.io alone: what it pulls from {list} goes past the caches"))
}

/// The option's name and first versions are from k3s's "Private Registry Configuration".
const K3S_SKIP_FALLBACK: &str = "registries.yaml cannot skip the fallback: start every server and agent with \
    --disable-default-registry-endpoint (k3s v1.26.13, v1.27.10, v1.28.6, v1.29.1 and later)";

fn k3s(mirrors: &[Endpoint]) -> String {
    let mirror = |Endpoint { host, url }: &Endpoint| format!("  {}:\n    endpoint:\n      - {url}\n", yaml(host));
    format!("mirrors:\n{}", mirrors.iter().map(mirror).collect::<String>())
}

/// A `location` is the beginning of an image reference, which has no brackets (containers/image issue 1004): with them
/// every pull of that host fails.
fn cri_o_ipv6() -> Error {
    Error::Usage {
        problem: "CRI-O cannot use a mirror at an IPv6 address".to_owned(),
        fix: "name this host by a host name: --address HOST".to_owned(),
    }
}

/// Version 2 of containers-registries.conf(5). `blocked` forbids the registry's own address; its mirrors, which are
/// asked first, have other ones.
fn cri_o(mirrors: &[Endpoint], skip_fallback: bool) -> String {
    let blocked = if skip_fallback { "blocked = true\n" } else { "" };
    let registry = |Endpoint { host, url }: &Endpoint| {
        let location = url.split_once("://").map_or(url.as_str(), |(_, location)| location);
        let insecure = if url.starts_with("http://") { "insecure = true\n" } else { "" };
        format!(
            "[[registry]]\nprefix = {host:?}\nlocation = {host:?}\n{blocked}\n\
             [[registry.mirror]]\nlocation = {location:?}\n{insecure}"
        )
    };
    mirrors.iter().map(registry).collect::<Vec<_>>().join("\n")
}

/// A host as a YAML key or value: bare where nothing in it could be read as a number, a word of YAML or a colon.
fn yaml(host: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let bare = host.starts_with(|c: char| c.is_ascii_lowercase()) && host.contains('.') && host.chars().all(plain);
    if bare { host.to_owned() } else { format!("{host:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> [Endpoint; 2] {
        [("docker.io", 5000), ("registry.example:8443", 5007)]
            .map(|(host, port)| Endpoint { host: host.to_owned(), url: format!("http://10.5.0.1:{port}") })
    }

    /// What is rendered without and with the fallback.
    fn both(format: Format) -> [Rendered; 2] {
        [false, true].map(|skip| render(format, &two(), skip).unwrap())
    }

    /// The path and text of the only document, without notes.
    fn only(rendered: &Rendered) -> (&str, &str) {
        assert_eq!((rendered.documents.len(), rendered.notes.as_slice()), (1, &[][..]));
        (&rendered.documents[0].path, &rendered.documents[0].text)
    }

    fn refusal(format: Format, mirrors: &[Endpoint], skip_fallback: bool) -> String {
        let error = render(format, mirrors, skip_fallback).unwrap_err();
        assert_eq!(error.code(), 2);
        format!("{error}; {}", error.fix().unwrap())
    }

    #[test]
    fn talos_gets_a_document_a_mirror() {
        let [plain, skip] = both(Format::Talos);
        let text = "apiVersion: v1alpha1
kind: RegistryMirrorConfig
name: docker.io
endpoints:
  - url: http://10.5.0.1:5000
---
apiVersion: v1alpha1
kind: RegistryMirrorConfig
name: \"registry.example:8443\"
endpoints:
  - url: http://10.5.0.1:5007
";
        assert_eq!(only(&plain), ("registry-mirrors.yaml", text));
        let text = text.replace("5000\n", "5000\nskipFallback: true\n").replace("5007\n", "5007\nskipFallback: true\n");
        assert_eq!(only(&skip), ("registry-mirrors.yaml", text.as_str()));
    }

    #[test]
    fn an_older_talos_gets_a_patch() {
        let [plain, skip] = both(Format::TalosV1alpha1);
        let text = "machine:
  registries:
    mirrors:
      docker.io:
        endpoints:
          - http://10.5.0.1:5000
      \"registry.example:8443\":
        endpoints:
          - http://10.5.0.1:5007
";
        assert_eq!(only(&plain), ("registry-mirrors-v1alpha1.yaml", text));
        let text = "# skipFallback needs Talos 1.9 or later.
machine:
  registries:
    mirrors:
      docker.io:
        endpoints:
          - http://10.5.0.1:5000
        skipFallback: true
      \"registry.example:8443\":
        endpoints:
          - http://10.5.0.1:5007
        skipFallback: true
";
        assert_eq!(only(&skip), ("registry-mirrors-v1alpha1.yaml", text));
    }

    #[test]
    fn containerd_gets_a_file_a_host() {
        let paths = ["certs.d/docker.io/hosts.toml", "certs.d/registry.example_8443_/hosts.toml"];
        let texts = |hub: &str, other: &str| {
            [(hub, "http://10.5.0.1:5000"), (other, "http://10.5.0.1:5007")].map(|(server, url)| {
                format!("server = \"{server}\"\n\n[host.\"{url}\"]\ncapabilities = [\"pull\", \"resolve\"]\n")
            })
        };
        let [plain, skip] = both(Format::Containerd);
        for (rendered, texts) in [
            (&plain, texts("https://registry-1.docker.io", "https://registry.example:8443")),
            (&skip, texts("http://10.5.0.1:5000", "http://10.5.0.1:5007")),
        ] {
            assert!(rendered.notes.is_empty());
            let found: Vec<(&str, &str)> = rendered.documents.iter().map(|d| (&*d.path, &*d.text)).collect();
            assert_eq!(found, [(paths[0], texts[0].as_str()), (paths[1], texts[1].as_str())]);
        }
        let table: toml::Table = plain.documents[0].text.parse().unwrap();
        let capabilities = table["host"]["http://10.5.0.1:5000"]["capabilities"].as_array().unwrap();
        assert_eq!(capabilities.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>(), ["pull", "resolve"]);
    }

    #[test]
    fn docker_gets_docker_io_and_is_told_what_is_missing() {
        let rendered = render(Format::Docker, &two(), false).unwrap();
        let text = "{\n  \"registry-mirrors\": [\n    \"http://10.5.0.1:5000\"\n  ]\n}\n";
        assert_eq!(rendered.documents, [Document { path: "daemon.json".into(), text: text.into() }]);
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(value, serde_json::json!({ "registry-mirrors": ["http://10.5.0.1:5000"] }));
        assert_eq!(rendered.notes.len(), 1);
        assert!(rendered.notes[0].contains("what it pulls from registry.example:8443 goes past"), "{rendered:?}");
        assert!(render(Format::Docker, &two()[..1], false).unwrap().notes.is_empty());
    }

    #[test]
    fn docker_refuses_what_it_cannot_say() {
        let skip = refusal(Format::Docker, &two(), true);
        assert!(skip.ends_with(": talos, talos-v1alpha1, containerd, k3s, cri-o"), "{skip}");
        assert!(refusal(Format::Docker, &two()[1..], false).contains("none is configured"));
    }

    #[test]
    fn k3s_gets_one_file_and_the_option_to_start_with() {
        let [plain, skip] = both(Format::K3s);
        let text = "mirrors:
  docker.io:
    endpoint:
      - http://10.5.0.1:5000
  \"registry.example:8443\":
    endpoint:
      - http://10.5.0.1:5007
";
        assert_eq!(only(&plain), ("registries.yaml", text));
        assert_eq!(skip.documents, plain.documents);
        assert!(skip.notes.len() == 1 && skip.notes[0].contains(" --disable-default-registry-endpoint "), "{skip:?}");
    }

    #[test]
    fn cri_o_gets_a_registry_a_host() {
        let [plain, skip] = both(Format::CriO);
        let text = "[[registry]]
prefix = \"docker.io\"
location = \"docker.io\"

[[registry.mirror]]
location = \"10.5.0.1:5000\"
insecure = true

[[registry]]
prefix = \"registry.example:8443\"
location = \"registry.example:8443\"

[[registry.mirror]]
location = \"10.5.0.1:5007\"
insecure = true
";
        assert_eq!(only(&plain), ("registries.conf", text));
        let text = text.replace("docker.io\"\n\n", "docker.io\"\nblocked = true\n\n");
        let text = text.replace("8443\"\n\n", "8443\"\nblocked = true\n\n");
        assert_eq!(only(&skip), ("registries.conf", text.as_str()));
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["registry"][1]["blocked"].as_bool(), Some(true));
        assert_eq!(table["registry"][1]["mirror"][0]["location"].as_str(), Some("10.5.0.1:5007"));
    }

    #[test]
    fn a_mirror_with_tls_is_not_called_insecure() {
        let mirror = Endpoint { host: "quay.io".into(), url: "https://cache.example:443".into() };
        let rendered = render(Format::CriO, &[mirror], false).unwrap();
        assert!(only(&rendered).1.ends_with("location = \"cache.example:443\"\n"), "{rendered:?}");
    }

    #[test]
    fn an_ipv6_address_is_refused_or_warned_of_where_it_cannot_be_read() {
        let mirrors = [Endpoint { host: "docker.io".into(), url: "http://[fd00::1]:5000".into() }];
        assert!(refusal(Format::CriO, &mirrors, false).contains("IPv6"));
        for (format, notes) in [(Format::Containerd, 1), (Format::K3s, 1), (Format::Talos, 0), (Format::Docker, 0)] {
            assert_eq!(render(format, &mirrors, false).unwrap().notes.len(), notes, "{format:?}");
        }
    }

    #[test]
    fn no_mirrors_are_an_error_in_every_format() {
        for format in Format::value_variants() {
            assert!(refusal(*format, &[], false).starts_with("no mirror is configured; "));
        }
    }

    #[test]
    fn what_yaml_could_misread_is_quoted() {
        for host in ["docker.io", "registry.k8s.io", "my-registry.example"] {
            assert_eq!(yaml(host), host);
        }
        for host in ["a.example:5000", "null", "yes", "1.5", "0x1.example", "10.5.0.1"] {
            assert_eq!(yaml(host), format!("\"{host}\""));
        }
    }
}
