//! `demo`: the whole of it without a network, in names and ports of its own, gone at the end.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use serde_json::json;

use crate::app::App;
use crate::cli::Up;
use crate::config::{Bind, Mirror};
use crate::docker;
use crate::error::{Error, Result};
use crate::exec::{Cmd, Runner};
use crate::node::Node;
use crate::sample::{Image, Kind};
use crate::traffic::Traffic;
use crate::{cache, image, observe, registry, report, sample, settings, status};

const IMAGE: &str = "registry:2";
const MIB: usize = 1024 * 1024;
/// What is pulled: host, repository and media types; the layers are the same sizes for all.
const IMAGES: [(&str, &str, Kind); 3] = [
    ("docker.io", "library/demo", Kind::Oci),
    ("registry.k8s.io", "demo/controller", Kind::Docker),
    ("ghcr.io", "siderolabs/demo", Kind::Oci),
];
const LAYERS: [usize; 3] = [8 * MIB, 4 * MIB, MIB];

/// One round of pulls.
#[derive(serde::Serialize)]
struct Round {
    name: &'static str,
    seconds: Vec<f64>,
    figures: Traffic,
}

/// Everything that the demonstration made, removed when it is dropped.
struct Stage {
    app: App,
    folder: Utf8PathBuf,
    upstream: String,
}

impl Drop for Stage {
    fn drop(&mut self) {
        let app = App { json: false, ..self.app.clone_quietly() };
        let _ = app.processes.run(&docker::remove(std::slice::from_ref(&self.upstream)));
        let _ = cache::clean(&app, &[], false);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Shows the caches at work: an upstream, the proxies in front of it, a cold and a warm pull by a real containerd, and
/// a pull with the upstream gone.
///
/// # Errors
/// There is no engine, no image or no containerd, or a pull fails.
pub fn demo(app: &App) -> Result<()> {
    if app.dry_run {
        return app.print(
            || {
                "would start a registry, three proxies and a containerd, pull three images, and remove it all\n"
                    .to_owned()
            },
            || json!({ "images": IMAGES.map(|(host, repository, _)| format!("{host}/{repository}:v1")) }),
        );
    }
    crate::tool::Tool::Docker.require()?;
    let absent = image::absent(&app.processes, &[IMAGE].into())?;
    image::provide(&app.processes, app.term, &absent, None)?;
    let stage = stage(app)?;
    let say = |text: &str| app.term.step(text);
    say("an upstream with three images is up; now a proxy for each host");
    let mirrors = stage.app.config.mirrors.clone();
    let up = Up { timeout: 60, offline: false, adopt: false, image_archive: None };
    cache::bring_up(&stage.app, &mirrors, &up)?;
    let node = Node::start(&app.processes, &stage.folder.join("node"))?;
    let hosts = hosts(&stage)?;
    let pull = |name, before: Traffic| -> Result<Round> {
        let seconds = IMAGES.iter().map(|(host, repository, _)| {
            let image = format!("{host}/{repository}:v1");
            let took = node.pull(&hosts, &image)?;
            node.forget(&image)?;
            Ok(took.as_secs_f64())
        });
        let seconds = seconds.collect::<Result<_>>()?;
        Ok(Round { name, seconds, figures: settled(&stage, &mirrors)?.since(before) })
    };
    say("containerd pulls all three for the first time");
    let cold = pull("cold", Traffic::default())?;
    say("it forgets them, and pulls them again");
    let warm = pull("warm", cold.figures)?;
    let stop = docker::stop(std::slice::from_ref(&stage.upstream));
    app.processes.run(&stop)?.checked(&stop, "")?;
    say("the upstream is stopped, and it pulls them once more");
    let gone = pull("without upstream", cold.figures.plus(warm.figures))?;
    drop(node);
    let rounds = [cold, warm, gone];
    app.print(|| table(&rounds), || json!({ "rounds": rounds }))
}

fn stage(app: &App) -> Result<Stage> {
    let prefix = format!("talos-cache-demo-{}-", std::process::id());
    let folder =
        Utf8PathBuf::from_path_buf(std::env::temp_dir()).unwrap_or_default().join(prefix.trim_end_matches('-'));
    std::fs::create_dir_all(&folder).map_err(Error::io(format!("create {folder}")))?;
    let bridge = observe::listen(&app.processes, Bind::Local)?;
    let bridge = bridge.0.last().map(ToString::to_string).unwrap_or_default();
    let ports = free_ports(IMAGES.len() + 1)?;
    let mut text = format!("prefix = \"{prefix}\"\nimage = \"{IMAGE}\"\nbind = \"local\"\n");
    for ((host, ..), port) in IMAGES.iter().zip(&ports) {
        let upstream = format!("http://{bridge}:{}", ports[IMAGES.len()]);
        text += &format!("[mirrors.\"{host}\"]\nport = {port}\nupstream = \"{upstream}\"\n");
    }
    let mut config = settings::parse(None, &text, None)?;
    config.mirrors.retain(|mirror| IMAGES.iter().any(|(host, ..)| *host == mirror.host));
    let upstream = format!("{prefix}upstream");
    let stage = Stage { app: App { config, ..app.clone_quietly() }, folder, upstream };
    stage.upstream(ports[IMAGES.len()])?;
    Ok(stage)
}

impl Stage {
    /// Starts the upstream, and puts the images in it.
    fn upstream(&self, port: u16) -> Result<()> {
        let address = format!("127.0.0.1:{port}");
        let cmd = Cmd::write("docker").args([
            "run",
            "--detach",
            "--name",
            &self.upstream,
            "--publish",
            &format!("{port}:5000"),
            IMAGE,
        ]);
        self.app.processes.run(&cmd)?.checked(&cmd, "see what the engine says of it")?;
        let started = Instant::now();
        while !registry::answers(&address) {
            if let Some(signal) = self.app.processes.interrupted() {
                return Err(Error::Interrupted { signal, left: String::new() });
            }
            if started.elapsed() > Duration::from_secs(30) {
                let problem = format!("the upstream does not answer on port {port}");
                return Err(Error::Tool { problem, fix: format!("read `docker logs {}`", self.upstream) });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for (host, repository, kind) in IMAGES {
            // A node takes its own platform out of the index.
            let images = ["amd64", "arm64"].map(|architecture| Image::new(kind, architecture, host, &LAYERS));
            let images: Vec<Image> = images.into_iter().collect::<Result<_>>()?;
            sample::push_index(&images, kind, &address, repository, "v1")?;
        }
        Ok(())
    }
}

/// A folder of `hosts.toml` files, as a node's containerd is given.
fn hosts(stage: &Stage) -> Result<Utf8PathBuf> {
    let folder = stage.folder.join("hosts");
    for mirror in &stage.app.config.mirrors {
        let of = folder.join(&mirror.host);
        let at = registry::address(mirror, stage.app.config.bind);
        // The mirror alone: a demonstration that could fall back to the real registry would prove nothing.
        let text =
            format!("server = \"http://{at}\"\n[host.\"http://{at}\"]\ncapabilities = [\"pull\", \"resolve\"]\n");
        std::fs::create_dir_all(&of)
            .and_then(|()| std::fs::write(of.join("hosts.toml"), text))
            .map_err(Error::io(format!("write {of}/hosts.toml")))?;
    }
    Ok(folder)
}

/// The figures of all proxies together, once they stand still: registry 2 stores a blob after the client has it.
fn settled(stage: &Stage, mirrors: &[Mirror]) -> Result<Traffic> {
    let look = || -> Result<Traffic> {
        let observed = observe::look(&stage.app.processes, &stage.app.config, mirrors)?;
        let figures = status::figures(&stage.app.processes, mirrors, &observed)?;
        Ok(figures.into_values().filter_map(|figures| figures.traffic).fold(Traffic::default(), Traffic::plus))
    };
    let mut last = look()?;
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(150));
        let now = look()?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Ports of this host that are free now.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let held: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("0.0.0.0:0"))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("find free ports"))?;
    held.iter()
        .map(|held| held.local_addr().map(|at| at.port()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("x"))
}

fn table(rounds: &[Round]) -> String {
    let row = |Round { name, seconds, figures }: &Round| {
        let count = |count: u64| count.to_string();
        let seconds: f64 = seconds.iter().sum();
        [
            (*name).to_owned(),
            format!("{seconds:.2} s"),
            count(figures.requests),
            count(figures.hits),
            count(figures.misses),
            report::bytes(figures.bytes_to_clients),
            report::bytes(figures.bytes_from_upstream),
        ]
    };
    let head = ["PULLS", "TIME", "REQUESTS", "HITS", "MISSES", "TO NODE", "FROM UPSTREAM"];
    report::table(head, rounds.iter().map(row))
}
