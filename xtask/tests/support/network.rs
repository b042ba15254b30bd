//! The networks that the two provisioners put a cluster's nodes on, and what a node reads there.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use crate::support::{HOSTS, Image, World, digest};
use xshell::{Cmd, Shell, cmd};

/// The one program that every node has: linked statically, it runs in any container, and with no system around it.
pub const BUSYBOX: &str = "/bin/busybox";
pub const REPOSITORY: &str = "library/one";

/// Fails, with all that is missing, where a program is; each goes with the package that has it.
pub fn require(packages: &[(&str, &str)]) {
    let missing: Vec<_> = packages.iter().filter(|(program, _)| which::which(program).is_err()).collect();
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let names: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    assert!(
        missing.is_empty(),
        "not on PATH: {}; run cargo xtask ci, or apt-get install --no-install-recommends {}",
        programs.join(", "),
        names.join(" ")
    );
    let sh = Shell::new().unwrap();
    let linked = cmd!(sh, "ldd {BUSYBOX}").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    assert!(!linked, "{BUSYBOX} needs libraries that a node does not have: apt-get install busybox-static");
}

/// Fails for anyone but root.
pub fn require_root() {
    let sh = Shell::new().unwrap();
    let user = cmd!(sh, "id -u").quiet().read().unwrap();
    assert_eq!(user, "0", "this test makes a bridge: run it as root");
}

/// What a node does: through each proxy on this address it reads a manifest by tag and a blob by digest, takes the
/// digest of what came, and says `HOST PORT ok` or `HOST PORT failed`. `timeout` stands in for `wget -T`, which crashes
/// in Debian 12's busybox-static.
pub fn script(world: &World, image: &Image, address: &str) -> String {
    let proxies: Vec<String> = HOSTS.iter().zip(&world.ports).map(|(host, port)| format!("{host}={port}")).collect();
    let proxies = proxies.join(" ");
    let [(manifest_path, accept, manifest), (blob_path, _, blob)] = image.manifest_and_blob();
    let (manifest, blob) = (digest(manifest), digest(blob));
    format!(
        r#"
get() {{
    echo "sha256:$(busybox timeout 10 busybox wget -q --header "Accept: $accept" -O - "$1" | busybox sha256sum)"
}}
accept={accept}
for proxy in {proxies}; do
    base=http://{address}:${{proxy#*=}}/v2/{REPOSITORY}
    word=failed
    if [ "$(get $base/{manifest_path})" = "{manifest}  -" ] && [ "$(get $base/{blob_path})" = "{blob}  -" ]; then
        word=ok
    fi
    echo "${{proxy%=*}} ${{proxy#*=}} $word"
done
"#
    )
}

/// The script came to the same end for every proxy; where it did not, all that the node wrote is shown.
pub fn check(world: &World, said: &str, word: &str) {
    let wanted: Vec<String> =
        HOSTS.iter().zip(&world.ports).map(|(host, port)| format!("{host} {port} {word}")).collect();
    let answer = |line: &&str| line.ends_with(" ok") || line.ends_with(" failed");
    let answers: Vec<&str> = said.lines().map(str::trim).filter(answer).collect();
    assert_eq!(answers, wanted, "the node wrote:\n{said}");
}

/// All that a command writes, and how it ended where that is not well.
pub fn said(command: Cmd) -> String {
    let output = command.quiet().ignore_status().output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if output.status.success() { text } else { format!("{text}\n({})", output.status) }
}

/// Runs a command; its own words where it fails.
fn done(command: Cmd) -> Result<(), String> {
    let shown = command.to_string();
    let output = command.quiet().ignore_status().output().unwrap();
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
}

fn ip(sh: &Shell, line: &str) -> Result<(), String> {
    done(cmd!(sh, "ip").args(line.split_whitespace()))
}

/// A bridge with the first address of its network, as the QEMU provisioner makes one; gone when it is dropped.
pub struct Bridge {
    sh: Shell,
    number: u32,
}

impl Bridge {
    /// Takes the first free one of 10.77.N.0/24, beginning where the process id says. N is part of the bridge's name,
    /// and a name is there once: two tests never share a network, whatever processes they are in.
    pub fn new() -> Self {
        let sh = Shell::new().unwrap();
        let addresses = cmd!(sh, "ip -4 -oneline address show").quiet().read().unwrap();
        for number in (0..254).map(|step| (std::process::id() + step) % 254) {
            if addresses.contains(&format!(" 10.77.{number}.")) {
                continue;
            }
            let name = format!("e2e-br-{number}");
            match ip(&sh, &format!("link add {name} type bridge")) {
                Ok(()) => return Self { sh, number }.up(),
                Err(said) => assert!(ip(&sh, &format!("link show {name}")).is_ok(), "{said}"),
            }
        }
        panic!("none of 10.77.N.0/24 is free: remove what is left with `ip link delete e2e-br-N`");
    }

    fn up(self) -> Self {
        let (bridge, gateway) = (self.name("br"), self.gateway());
        ip(&self.sh, &format!("address add {gateway}/24 dev {bridge}")).unwrap();
        ip(&self.sh, &format!("link set {bridge} up")).unwrap();
        self
    }

    /// The name of a part of it, well below the 15 characters that an interface may have.
    fn name(&self, part: &str) -> String {
        format!("e2e-{part}-{}", self.number)
    }

    /// The address of this host that the nodes are told.
    pub fn gateway(&self) -> String {
        format!("10.77.{}.1", self.number)
    }

    /// The address of the first node.
    pub fn node(&self) -> String {
        format!("10.77.{}.2", self.number)
    }

    /// A node that is a network namespace: the address, the gateway as its default route, nothing else.
    pub fn namespace(&self) -> Namespace<'_> {
        let (name, bridge, veth) = (self.name("ns"), self.name("br"), self.name("veth"));
        ip(&self.sh, &format!("netns add {name}")).unwrap();
        let namespace = Namespace { bridge: self, name };
        let name = &namespace.name;
        ip(&self.sh, &format!("link add {veth} type veth peer name eth0 netns {name}")).unwrap();
        ip(&self.sh, &format!("link set {veth} master {bridge} up")).unwrap();
        let (node, gateway) = (self.node(), self.gateway());
        for line in
            [format!("address add {node}/24 dev eth0"), "link set eth0 up".to_owned(), "link set lo up".to_owned()]
        {
            ip(&self.sh, &format!("-netns {name} {line}")).unwrap();
        }
        ip(&self.sh, &format!("-netns {name} route add default via {gateway}")).unwrap();
        namespace
    }

    /// The interface of a virtual machine.
    pub fn tap(&self) -> Tap<'_> {
        let (bridge, name) = (self.name("br"), self.name("tap"));
        ip(&self.sh, &format!("tuntap add dev {name} mode tap")).unwrap();
        let tap = Tap { bridge: self, name };
        ip(&self.sh, &format!("link set {} master {bridge} up", tap.name)).unwrap();
        tap
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&self.sh, &format!("link delete {}", self.name("br")));
    }
}

/// A node's namespace; its interface goes with it.
pub struct Namespace<'a> {
    bridge: &'a Bridge,
    name: String,
}

impl Namespace<'_> {
    /// Where `nsenter --net` finds it. Unlike `ip netns exec` that leaves /sys alone, which an engine needs.
    pub fn path(&self) -> String {
        format!("/run/netns/{}", self.name)
    }

    pub fn run(&self, script: &str) -> String {
        let (sh, name) = (&self.bridge.sh, &self.name);
        said(cmd!(sh, "ip netns exec {name} {BUSYBOX} sh -c {script}"))
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let _ = ip(&self.bridge.sh, &format!("netns delete {}", self.name));
        // A namespace dies later than its name; the bridge's number is free only when both ends of the pair are gone.
        let _ = ip(&self.bridge.sh, &format!("link delete {}", self.bridge.name("veth")));
    }
}

/// A virtual machine's interface on the bridge.
pub struct Tap<'a> {
    pub bridge: &'a Bridge,
    pub name: String,
}

impl Drop for Tap<'_> {
    fn drop(&mut self) {
        let _ = ip(&self.bridge.sh, &format!("link delete {}", self.name));
    }
}

/// A docker network with a cluster's labels, as talosctl's docker provisioner makes it; gone when it is dropped.
pub struct Network {
    sh: Shell,
    cluster: String,
}

impl Network {
    /// Takes the first free one of 10.78.N.0/24; the engine lets no two networks overlap.
    pub fn new(cluster: &str) -> Self {
        let sh = Shell::new().unwrap();
        let label = format!("talos.cluster.name={cluster}");
        let mut refused = String::new();
        for number in (0..254).map(|step| (std::process::id() + step) % 254) {
            let subnet = format!("10.78.{number}.0/24");
            let made = cmd!(sh, "docker network create --driver bridge --subnet {subnet}")
                .args(["--label", "talos.owned=true", "--label", &label])
                .args(["--opt", "com.docker.network.driver.mtu=1500", cluster]);
            match done(made) {
                Ok(()) => return Self { sh, cluster: cluster.to_owned() },
                Err(said) => refused = said,
            }
        }
        panic!("{refused}");
    }

    /// Runs a script in a container with the name and the labels of the cluster's first node.
    pub fn run(&self, script: &str) -> String {
        let (sh, cluster, node) = (&self.sh, &self.cluster, self.node());
        let label = format!("talos.cluster.name={cluster}");
        let program = format!("{BUSYBOX}:{BUSYBOX}:ro");
        said(
            cmd!(sh, "docker run --rm --name {node} --network {cluster} --label talos.owned=true --label {label}")
                .args(["--volume", &program, "--entrypoint", BUSYBOX, "registry:2", "sh", "-c", script]),
        )
    }

    fn node(&self) -> String {
        format!("{}-controlplane-1", self.cluster)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let (sh, cluster, node) = (&self.sh, &self.cluster, self.node());
        let _ = done(cmd!(sh, "docker rm --force --volumes {node}"));
        let _ = done(cmd!(sh, "docker network rm {cluster}"));
    }
}
