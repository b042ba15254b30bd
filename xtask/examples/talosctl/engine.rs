//! The network and the containers of docker clusters: real ones where `STANDIN_DOCKER` says so, otherwise a file each.

use std::path::PathBuf;

use xshell::{Shell, cmd};

use crate::standin::StandIn;
use crate::state::{Cluster, Node, os_error};

/// The engine, or what stands for it.
pub struct Engine<'a> {
    standin: &'a StandIn,
    sh: Shell,
}

impl<'a> Engine<'a> {
    /// Nothing is asked of the engine yet.
    pub fn new(standin: &'a StandIn) -> Result<Self, String> {
        Ok(Self { standin, sh: Shell::new().map_err(|error| format!("stand-in: {error}"))? })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.standin.store.join(format!("{name}.json"))
    }

    /// The cluster as the engine has it.
    pub fn find(&self, name: &str) -> Result<Option<Cluster>, String> {
        if self.standin.docker {
            return self.find_labelled(name);
        }
        let file = self.file(name);
        if !file.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&file).map_err(os_error("open", &file))?;
        serde_json::from_str(&text).map(Some).map_err(|error| format!("stand-in: {}: {error}", file.display()))
    }

    /// Makes the network and the machines; of the last `created` ones only the container, which is never started.
    pub fn make(&self, cluster: &Cluster, image: &str, created: usize) -> Result<(), String> {
        if self.standin.docker {
            return self.make_labelled(cluster, self.standin.image.as_deref().unwrap_or(image), created);
        }
        if let Some(there) = self.find(&cluster.name)? {
            let taken = there.nodes.first().map_or("", |node| node.name.as_str());
            return Err(format!(
                "Error response from daemon: Conflict. The container name \"/{taken}\" is already in use by container \
                 \"0123abcd\". You have to remove (or rename) that container to be able to reuse that name."
            ));
        }
        let file = self.file(&cluster.name);
        std::fs::create_dir_all(&self.standin.store).map_err(os_error("mkdir", &self.standin.store))?;
        let text = serde_json::to_string(cluster).map_err(|error| format!("stand-in: {error}"))?;
        std::fs::write(&file, text).map_err(os_error("open", &file))
    }

    /// Removes the machines with their volumes, and the network.
    pub fn remove(&self, cluster: &Cluster) -> Result<(), String> {
        for node in &cluster.nodes {
            eprintln!("destroying node {}", node.name);
            if self.standin.docker {
                let name = &node.name;
                self.run(cmd!(self.sh, "docker rm --force --volumes {name}"))?;
            }
        }
        eprintln!("destroying network {}", cluster.name);
        if self.standin.docker {
            if cluster.cidr.is_empty() {
                return Ok(());
            }
            let name = &cluster.name;
            return self.run(cmd!(self.sh, "docker network rm {name}")).map(drop);
        }
        let file = self.file(&cluster.name);
        std::fs::remove_file(&file).map_err(os_error("remove", &file))
    }

    fn run(&self, cmd: xshell::Cmd<'_>) -> Result<String, String> {
        let output = cmd.quiet().ignore_status().output().map_err(|error| format!("stand-in: {error}"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    fn make_labelled(&self, cluster: &Cluster, image: &str, created: usize) -> Result<(), String> {
        let (name, cidr, sh) = (&cluster.name, &cluster.cidr, &self.sh);
        let label = format!("talos.cluster.name={name}");
        match self.find_labelled(name)?.map(|there| there.cidr).filter(|there| !there.is_empty()) {
            Some(there) if there == *cidr => {}
            Some(_) => return Err("existing network has differing cidr".to_owned()),
            None => {
                let mtu = "com.docker.network.driver.mtu=1500";
                let labels = ["--label", "talos.owned=true", "--label", &label];
                self.run(cmd!(sh, "docker network create --subnet {cidr} --opt {mtu} {labels...} {name}"))?;
            }
        }
        for (index, Node { name: node, kind, address }) in cluster.nodes.iter().enumerate() {
            let kind = format!("talos.type={kind}");
            let labels = ["--label", "talos.owned=true", "--label", &label, "--label", &kind];
            let rest = ["--volume", "/var", "--entrypoint", "sleep", image, "2147483647"];
            self.run(cmd!(
                sh,
                "docker create --name {node} --hostname {node} --network {name} --ip {address} {labels...} {rest...}"
            ))?;
            if index + created < cluster.nodes.len() {
                self.run(cmd!(sh, "docker start {node}"))?;
            }
        }
        Ok(())
    }

    fn find_labelled(&self, name: &str) -> Result<Option<Cluster>, String> {
        let filters = [
            "--filter".to_owned(),
            "label=talos.owned=true".into(),
            "--filter".into(),
            format!("label=talos.cluster.name={name}"),
        ];
        let format = "{{.Names}}";
        let names = self.run(cmd!(self.sh, "docker ps --all --format {format}").args(&filters))?;
        let format = "{{.Name}}";
        let networks = self.run(cmd!(self.sh, "docker network ls --format {format}").args(&filters))?;
        if names.is_empty() && networks.is_empty() {
            return Ok(None);
        }
        let mut cluster = Cluster {
            name: name.to_owned(),
            provisioner: "docker".to_owned(),
            cidr: String::new(),
            gateway: String::new(),
            nodes: Vec::new(),
        };
        if networks.lines().any(|network| network == name) {
            let format = "{{range .IPAM.Config}}{{.Subnet}}{{end}}";
            cluster.cidr = self.run(cmd!(self.sh, "docker network inspect --format {format} {name}"))?;
        }
        for node in names.lines() {
            let format = "{{index .Config.Labels \"talos.type\"}} {{range .NetworkSettings.Networks}}{{with .IPAMConfig}}{{.IPv4Address}}{{end}}{{end}}";
            let words = self.run(cmd!(self.sh, "docker container inspect --format {format} {node}"))?;
            let (kind, address) = words.split_once(' ').unwrap_or((&words, ""));
            cluster.nodes.push(Node { name: node.to_owned(), kind: kind.to_owned(), address: address.to_owned() });
        }
        Ok(Some(cluster))
    }
}
