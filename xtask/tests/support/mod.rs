//! What the end-to-end tests share: an upstream of their own, images of their own, names and ports of their own.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use xshell::{Shell, cmd};
use xtask::exec::{Interrupt, Processes};
use xtask::image;
use xtask::sample::{self, Image as Sample, Kind};
use xtask::term::Term;

pub use xtask::sample::digest;

pub const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
/// The hosts of the default set, in its order.
pub const HOSTS: [&str; 7] =
    ["docker.io", "k8s.gcr.io", "quay.io", "gcr.io", "ghcr.io", "registry.k8s.io", "factory.talos.dev"];

/// The outcome of one run of the built program.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// One test's own world: removed when it is dropped, whatever became of the test.
pub struct World {
    pub sh: Shell,
    pub prefix: String,
    pub ports: Vec<u16>,
    pub upstream_port: u16,
    pub folder: PathBuf,
    /// The address of this host that containers reach.
    pub gateway: String,
}

impl World {
    /// Starts an upstream with one image in it, and writes a `cache.toml` whose seven mirrors all lead to it.
    pub fn new(name: &str) -> Self {
        let sh = Shell::new().unwrap();
        assert!(
            cmd!(sh, "docker version").quiet().ignore_stdout().run().is_ok(),
            "the end-to-end tests need an engine that answers: cargo xtask ci provides one"
        );
        let prefix = format!("e2e-{name}-{}-", std::process::id());
        let folder = std::env::temp_dir().join(&prefix);
        std::fs::create_dir_all(&folder).unwrap();
        let mut ports = free_ports(HOSTS.len() + 1);
        let upstream_port = ports.pop().unwrap();
        let mut world = Self { sh, prefix, ports, upstream_port, folder, gateway: "127.0.0.1".to_owned() };
        Self::provide_image();
        let upstream = format!("{}upstream", world.prefix);
        let publish = format!("{upstream_port}:5000");
        cmd!(world.sh, "docker run --detach --name {upstream} --publish {publish} registry:2").quiet().read().unwrap();
        wait_for(upstream_port);
        // Asked of a container: the network itself does not know its gateway before the engine's second start.
        let format = "{{.NetworkSettings.Networks.bridge.Gateway}}";
        world.gateway = cmd!(world.sh, "docker inspect --format {format} {upstream}").quiet().read().unwrap();
        world.settings("");
        world
    }

    /// The registry image comes as it would come to a user: pulled, or assembled where there is no network. Once for all
    /// the tests of a process, which begin together.
    fn provide_image() {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (processes, term) = (Processes::new(Interrupt::default(), Term::silent()), Term::silent());
        let absent = image::absent(&processes, &["registry:2"].into()).unwrap();
        image::provide(&processes, term, &absent, None).unwrap();
    }

    /// Writes the settings; `more` goes in front of the tables.
    pub fn settings(&self, more: &str) {
        let upstream = self.upstream_url();
        let mut text = format!("prefix = \"{}\"\n{more}\n", self.prefix);
        for (host, port) in HOSTS.iter().zip(&self.ports) {
            text += &format!("[mirrors.\"{host}\"]\nport = {port}\nupstream = \"{upstream}\"\n");
        }
        std::fs::write(self.config(), text).unwrap();
    }

    pub fn upstream_url(&self) -> String {
        format!("http://{}:{}", self.gateway, self.upstream_port)
    }

    pub fn config(&self) -> PathBuf {
        self.folder.join("cache.toml")
    }

    pub fn xtask(&self, args: &[&str]) -> Run {
        xtask(&self.sh, &[&["--config", self.config().to_str().unwrap()], args].concat())
    }

    pub fn name(&self, host: &str) -> String {
        format!("{}{host}", self.prefix)
    }

    /// When each proxy was created and last started: unchanged means untouched.
    pub fn ages(&self) -> String {
        let names = HOSTS.map(|host| self.name(host));
        let format = "{{.Id}} {{.Created}} {{.State.StartedAt}}";
        cmd!(self.sh, "docker container inspect --format {format} {names...}").quiet().read().unwrap()
    }

    /// The same of one proxy.
    pub fn age(&self, host: &str) -> String {
        let (name, format) = (self.name(host), "{{.Id}} {{.State.StartedAt}}");
        cmd!(self.sh, "docker container inspect --format {format} {name}").quiet().read().unwrap()
    }

    pub fn upstream(&self, verb: &str) {
        let upstream = format!("{}upstream", self.prefix);
        cmd!(self.sh, "docker {verb} {upstream}").quiet().ignore_stdout().run().unwrap();
        if verb == "start" {
            wait_for(self.upstream_port);
        }
    }

    /// All containers and volumes whose name begins with the prefix, the upstream left out.
    pub fn left(&self) -> Vec<String> {
        let format = "{{.Names}}";
        let containers = cmd!(self.sh, "docker container ls --all --format {format}").quiet().read().unwrap();
        let volumes = cmd!(self.sh, "docker volume ls --quiet").quiet().read().unwrap();
        let mine = |name: &&str| name.starts_with(&self.prefix) && !name.ends_with("-upstream");
        containers.lines().chain(volumes.lines()).filter(mine).map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.xtask(&["-q", "cache-clean", "--all"]);
        let upstream = format!("{}upstream", self.prefix);
        let _ = cmd!(self.sh, "docker rm --force --volumes {upstream}").quiet().ignore_stdout().ignore_stderr().run();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Waits until a proxy of registry 2 has stored all that it fetched, which it does after the client has it.
pub fn settled(world: &World, host: &str) {
    let name = world.name(host);
    let fills = || {
        let log = cmd!(world.sh, "docker logs {name}").quiet().ignore_stdout().read_stderr().unwrap();
        let uploads = cmd!(world.sh, "docker exec {name} find /var/lib/registry -path */_uploads/* -name data").quiet();
        (log.matches("Adding new scheduler entry").count(), uploads.read().unwrap())
    };
    let mut last = fills();
    loop {
        std::thread::sleep(std::time::Duration::from_millis(300));
        let now = fills();
        if now == last && now.1.is_empty() {
            return;
        }
        last = now;
    }
}

/// Waits until a proxy's container is in a state.
pub fn until(world: &World, host: &str, wanted: &str) {
    let (name, format) = (world.name(host), "{{.State.Status}}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while cmd!(world.sh, "docker inspect --format {format} {name}").quiet().read().unwrap() != wanted {
        assert!(std::time::Instant::now() < until, "{name} is never {wanted}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// Starts the program, and sends it a signal once the container is there; its exit code, or `None` where a signal ended it.
pub fn signalled(world: &World, args: &[&str], signal: &str, container: &str) -> (Option<i32>, String) {
    let config = world.config();
    let args = [&["--config", config.to_str().unwrap()], args].concat();
    signalled_when(&world.sh, &args, signal, || world.left().iter().any(|name| name == container))
}

/// The same once something is so.
#[allow(clippy::disallowed_methods)]
pub fn signalled_when(sh: &Shell, args: &[&str], signal: &str, so: impl Fn() -> bool) -> (Option<i32>, String) {
    let child = std::process::Command::new(XTASK)
        .args(args)
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !so() {
        assert!(std::time::Instant::now() < until, "{args:?} never comes so far");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    cmd!(sh, "kill -{signal} {pid}").quiet().run().unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

pub fn xtask(sh: &Shell, args: &[&str]) -> Run {
    let output = cmd!(sh, "{XTASK} {args...}").quiet().ignore_status().output().unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Ports that are free now, all different since all are held until the last is found.
pub fn free_ports(count: usize) -> Vec<u16> {
    let held: Vec<_> = (0..count).map(|_| std::net::TcpListener::bind("0.0.0.0:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

pub fn wait_for(port: u16) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !xtask::registry::answers(&format!("127.0.0.1:{port}")) {
        assert!(std::time::Instant::now() < until, "no registry answers on port {port}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// An image that a test made: what was pushed is what must come back.
pub struct Image {
    repository: String,
    /// What a pull asks for, in its order: path, media type, bytes, and whether the cache has it by then.
    parts: Vec<Part>,
}

struct Part {
    path: String,
    accept: &'static str,
    bytes: Vec<u8>,
    known: bool,
}

impl Image {
    /// Pushes an OCI index of two platforms with two layers each as `REPOSITORY:v1`, and an image of docker's media
    /// types as `REPOSITORY:docker`.
    pub fn push(port: u16, repository: &str) -> Self {
        let address = format!("127.0.0.1:{port}");
        let seed = |kind: &str| format!("{repository}-{kind}");
        let make =
            |kind, architecture, name: &str| Sample::new(kind, architecture, &seed(name), &[200_000, 30_000]).unwrap();
        let platforms = ["amd64", "arm64"].map(|architecture| make(Kind::Oci, architecture, "oci"));
        let index = sample::push_index(&platforms, Kind::Oci, &address, repository, "v1").unwrap();
        let docker = make(Kind::Docker, "amd64", "docker");
        docker.push(&address, repository, "docker").unwrap();
        let mut image = Self { repository: repository.to_owned(), parts: Vec::new() };
        image.manifest("v1", Kind::Oci.index(), &index);
        image.part(
            format!("manifests/{}", digest(&platforms[0].manifest)),
            Kind::Oci.manifest(),
            &platforms[0].manifest,
        );
        image.blobs(&platforms[0]);
        image.manifest("docker", Kind::Docker.manifest(), &docker.manifest);
        image.blobs(&docker);
        image
    }

    /// A manifest that is asked for by its tag, and then by its digest.
    fn manifest(&mut self, tag: &str, accept: &'static str, bytes: &[u8]) {
        self.part(format!("manifests/{tag}"), accept, bytes);
        self.part(format!("manifests/{}", digest(bytes)), accept, bytes);
    }

    fn blobs(&mut self, image: &Sample) {
        for blob in &image.blobs {
            self.part(format!("blobs/{}", digest(blob)), "*/*", blob);
        }
    }

    fn part(&mut self, path: String, accept: &'static str, bytes: &[u8]) {
        let known = self.parts.iter().any(|part| part.bytes == bytes);
        self.parts.push(Part { path, accept, bytes: bytes.to_vec(), known });
    }

    /// Pulls it by tag, by digest, and all its blobs, and compares every byte.
    pub fn pull(&self, port: u16) -> Result<(), String> {
        self.pull_from(&format!("127.0.0.1:{port}"))
    }

    /// The same from another address of a proxy.
    pub fn pull_from(&self, address: &str) -> Result<(), String> {
        self.parts.iter().try_for_each(|part| {
            let url = format!("http://{address}/v2/{}/{}", self.repository, part.path);
            let response =
                ureq::get(&url).header("Accept", part.accept).call().map_err(|error| format!("{url}: {error}"))?;
            let mut body = Vec::new();
            response.into_body().into_reader().read_to_end(&mut body).map_err(|error| format!("{url}: {error}"))?;
            if body == part.bytes { Ok(()) } else { Err(format!("{url}: {} bytes that differ", body.len())) }
        })
    }

    /// What status must say after a number of pulls: requests, hits, misses, bytes to clients and from upstream. A blob
    /// that is missing is fetched so many times.
    pub fn figures(&self, pulls: u64, fetches: u64) -> [u64; 5] {
        let parts = self.parts.len() as u64;
        let missing: Vec<&Part> = self.parts.iter().filter(|part| !part.known).collect();
        let size = |part: &Part| part.bytes.len() as u64;
        let once = |part: &&Part| size(part) * if part.path.starts_with("blobs/") { fetches } else { 1 };
        let misses = missing.len() as u64;
        let bytes: u64 = self.parts.iter().map(size).sum();
        [pulls * parts, pulls * parts - misses, misses, pulls * bytes, missing.iter().map(once).sum()]
    }

    /// The path, media type and bytes of a manifest, by tag, and of a blob of it, for nodes that read by other means.
    pub fn manifest_and_blob(&self) -> [(&str, &'static str, &[u8]); 2] {
        let last = |wanted: &dyn Fn(&&Part) -> bool| {
            let part = self.parts.iter().rev().find(wanted).unwrap();
            (part.path.as_str(), part.accept, &part.bytes[..])
        };
        [last(&|part| part.path == "manifests/docker"), last(&|part| part.path.starts_with("blobs/"))]
    }
}

pub fn write_program(folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
