//! What `cluster show` prints, as a model; and the tables of talosctl in general.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

/// A cluster as talosctl sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// `docker` or `qemu`.
    pub provisioner: String,
    /// Its name.
    pub name: String,
    /// The name of its network; empty when there is none.
    pub network: String,
    /// Its networks, `10.5.0.0/24` first.
    pub cidrs: Vec<String>,
    /// The addresses of this host in them; empty where talosctl knows none, as with docker's networks as a rule.
    pub gateways: Vec<String>,
    /// The largest packet, in bytes; 0 when there is no network.
    pub mtu: u32,
    /// Where Kubernetes answers, from 1.7 on.
    pub endpoint: Option<String>,
    /// Its machines, by name.
    pub nodes: Vec<Node>,
}

/// A machine of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// `controlplane`, `worker`, `init` or, in old releases, `join`.
    pub kind: String,
    /// Its addresses.
    pub addresses: Vec<String>,
}

impl Shown {
    /// Whether there is anything at all. Of a docker cluster that does not exist, talosctl shows empty fields and ends
    /// with 0.
    pub fn exists(&self) -> bool {
        !self.network.is_empty() || !self.nodes.is_empty()
    }

    /// Reads what `cluster show` printed; `command` is for the error.
    ///
    /// # Errors
    /// A field that every release prints is missing.
    pub fn read(command: &str, printed: &str) -> Result<Self> {
        let missing = |what: &str| Error::Answer { command: command.to_owned(), problem: format!("no {what} in it") };
        let (head, nodes) = printed.split_once("NODES:").ok_or_else(|| missing("NODES"))?;
        let field = |label: &str| {
            let rest = |line: &str| {
                let rest = line.strip_prefix(label)?;
                (rest.is_empty() || rest.starts_with("  ")).then(|| rest.trim().to_owned())
            };
            head.lines().find_map(rest)
        };
        let required = |label: &str| field(label).ok_or_else(|| missing(label));
        let nodes = table(nodes).into_iter().map(|mut row| Node {
            name: row.remove("NAME").unwrap_or_default(),
            kind: row.remove("TYPE").unwrap_or_default(),
            addresses: list(row.get("IP").map_or("", String::as_str)),
        });
        Ok(Self {
            provisioner: required("PROVISIONER")?,
            name: required("NAME")?,
            network: required("NETWORK NAME")?,
            cidrs: list(&required("NETWORK CIDR")?),
            gateways: list(&required("NETWORK GATEWAY")?),
            mtu: required("NETWORK MTU")?.parse().map_err(|_| missing("NETWORK MTU that is a number"))?,
            endpoint: field("KUBERNETES ENDPOINT").filter(|endpoint| !endpoint.is_empty()),
            nodes: nodes.collect(),
        })
    }
}

/// The addresses in a cell. Where Go's packages have none they print `invalid IP` or `<nil>`.
pub(crate) fn list(cell: &str) -> Vec<String> {
    let words = cell.split(',').map(str::trim);
    words.filter(|word| !word.is_empty() && !["invalid IP", "<nil>"].contains(word)).map(str::to_owned).collect()
}

/// The rows of a table by heading. Columns begin where their heading does, since a cell may be empty or have spaces.
pub(crate) fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut lines = text.lines().map(|line| line.chars().collect::<Vec<_>>()).skip_while(Vec::is_empty);
    let Some(head) = lines.next() else {
        return Vec::new();
    };
    let begins = |at: &usize| head[*at] != ' ' && (*at == 0 || head[at - 1] == ' ');
    let starts: Vec<usize> = (0..head.len()).filter(begins).collect();
    let cell = |line: &[char], column: usize| {
        let end = starts.get(column + 1).copied().unwrap_or(line.len()).min(line.len());
        let cell: String = line[starts[column].min(end)..end].iter().collect();
        cell.trim().to_owned()
    };
    lines
        .filter(|line| line.iter().any(|c| *c != ' '))
        .map(|line| (0..starts.len()).map(|column| (cell(&head, column), cell(&line, column))).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "\
PROVISIONER           qemu
NAME                  demo
NETWORK NAME          demo
NETWORK CIDR          10.5.0.0/24,fd74:616c:a05::/64
NETWORK GATEWAY       10.5.0.1,fd74:616c:a05::1
NETWORK MTU           1500
KUBERNETES ENDPOINT   https://10.5.0.1:6443

NODES:

NAME                  TYPE           IP                               CPU    RAM      DISK
demo-controlplane-1   controlplane   10.5.0.2,fd74:616c:a05::2        2.00   2.1 GB   6.4 GB
demo-worker-1         worker         10.5.0.3,fd74:616c:a05::3        -      -        -
";
    const UNKNOWN: &str = "PROVISIONER       docker\nNAME              x\nNETWORK NAME      \nNETWORK CIDR      \n\
                           NETWORK GATEWAY   \nNETWORK MTU       0\n\nNODES:\n\nNAME   TYPE   IP   CPU   RAM   DISK\n";

    #[test]
    fn a_cluster_is_read_with_its_machines() {
        let shown = Shown::read("x", QEMU).unwrap();
        assert!(shown.exists());
        assert_eq!((shown.provisioner.as_str(), shown.name.as_str(), shown.mtu), ("qemu", "demo", 1500));
        assert_eq!(shown.cidrs, ["10.5.0.0/24", "fd74:616c:a05::/64"]);
        assert_eq!(shown.gateways[0], "10.5.0.1");
        assert_eq!(shown.endpoint.as_deref(), Some("https://10.5.0.1:6443"));
        assert_eq!(
            (shown.nodes[0].kind.as_str(), shown.nodes[0].addresses[1].as_str()),
            ("controlplane", "fd74:616c:a05::2")
        );
        assert_eq!((shown.nodes.len(), shown.nodes[1].name.as_str()), (2, "demo-worker-1"));
    }

    #[test]
    fn nothing_there_is_told_from_something() {
        let shown = Shown::read("x", UNKNOWN).unwrap();
        assert!(!shown.exists(), "{shown:?}");
        let half = UNKNOWN.replace("GATEWAY   \n", "GATEWAY   invalid IP\n").replace("NAME      \n", "NAME      x\n");
        let shown = Shown::read("x", &half).unwrap();
        assert!(shown.exists() && shown.gateways.is_empty(), "{shown:?}");
    }

    #[test]
    fn another_answer_is_an_error_that_says_what_is_missing() {
        for (printed, part) in [
            ("", "no NODES in it"),
            ("NODES:", "no PROVISIONER in it"),
            (&UNKNOWN.replace("MTU       0", "MTU       many"), "no NETWORK MTU that is a number"),
        ] {
            let error = Shown::read("talosctl cluster show", printed).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("talosctl cluster show"), "{error}");
        }
    }
}
