//! What `docker run` and `docker container create` are asked for, read from their arguments.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// A published port.
#[derive(Clone, Debug)]
pub struct Publish {
    /// As it was written; empty where it was not.
    pub ip: String,
    /// 0 for any.
    pub host: u16,
    pub inside: u16,
}

impl Publish {
    fn read(text: &str) -> Self {
        let parts: Vec<&str> = text.rsplitn(3, ':').collect();
        let (ip, host) = (parts.get(2).copied().unwrap_or_default(), parts[1]);
        let host = if host.is_empty() { 0 } else { host.parse().unwrap() };
        Self { ip: ip.trim_matches(['[', ']']).to_owned(), host, inside: parts[0].parse().unwrap() }
    }

    pub fn address(&self) -> IpAddr {
        if self.ip.is_empty() { IpAddr::from([0, 0, 0, 0]) } else { self.ip.parse().unwrap() }
    }
}

/// A mount of a volume, which is made with a label where it is absent.
#[derive(Clone, Debug)]
pub struct Mount {
    pub volume: String,
    pub at: String,
    pub label: Option<(String, String)>,
}

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    pub name: String,
    pub restart: String,
    pub publish: Vec<Publish>,
    pub mounts: Vec<Mount>,
    pub volumes_from: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub env: Vec<String>,
    pub entrypoint: Option<String>,
    pub never_pull: bool,
    pub image: String,
    pub args: Vec<String>,
}

impl Ask {
    /// Reads the words behind the verb. One that is not known here is the test's failure.
    pub fn read(words: &[&str]) -> Self {
        let mut ask = Self { restart: "no".to_owned(), ..Self::default() };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                ask.image = word.to_owned();
                ask.args = words.map(str::to_owned).collect();
                return ask;
            }
            if !matches!(word, "--detach" | "--rm") {
                ask.flag(word, words.next().unwrap());
            }
        }
        panic!("a container without an image")
    }

    fn flag(&mut self, flag: &str, value: &str) {
        let pair = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap();
        match flag {
            "--name" => value.clone_into(&mut self.name),
            "--restart" => value.clone_into(&mut self.restart),
            "--publish" => self.publish.push(Publish::read(value)),
            "--mount" => self.mounts.push(mount(value)),
            "--label" => self.labels.extend([pair(value)]),
            "--env" => self.env.push(value.to_owned()),
            "--entrypoint" => self.entrypoint = Some(value.to_owned()),
            "--volumes-from" => self.volumes_from = Some(value.trim_end_matches(":ro").to_owned()),
            "--pull" if value == "never" => self.never_pull = true,
            "--log-driver" if value == "json-file" => {}
            "--log-opt" if value.starts_with("max-") => {}
            _ => panic!("the fake engine does not know {flag} {value}"),
        }
    }
}

fn mount(text: &str) -> Mount {
    let fields: BTreeMap<&str, &str> = text.split(',').filter_map(|field| field.split_once('=')).collect();
    assert_eq!(fields["type"], "volume", "{text}");
    let label = text.split_once(",volume-label=").and_then(|(_, label)| label.split_once('='));
    Mount {
        volume: fields["src"].to_owned(),
        at: fields["dst"].to_owned(),
        label: label.map(|(name, value)| (name.to_owned(), value.to_owned())),
    }
}
