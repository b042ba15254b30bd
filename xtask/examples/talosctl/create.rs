//! `cluster create`, from the checks of its flags to the contexts that it leaves.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::engine::Engine;
use crate::flags::Release;
use crate::pflag::Parsed;
use crate::standin::{Fail, StandIn};
use crate::state::{Cluster, Node, os_error, reserve, subject};
use crate::{cluster, context};

/// Makes a cluster, or says why not.
pub fn create(standin: &StandIn, release: &Release, path: &str, parsed: &Parsed) -> Outcome {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&interrupted))
        .map_err(|error| format!("stand-in: {error}"))?;
    let kind = kind(standin, release, path, parsed)?;
    check_images(standin, path, parsed)?;
    let (name, state) = subject(parsed)?;
    eprintln!("validating CIDR and reserving IPs");
    let cluster = plan(standin, &kind, &name, parsed)?;
    if kind == "qemu" {
        if !standin.root {
            return Err("please run as root user (CNI requirement), we recommend running with `sudo -E`".to_owned());
        }
        boot_files(parsed)?;
        if path == "cluster create qemu" {
            for file in ["controlplane.yaml", "worker.yaml"] {
                std::fs::write(file, "version: v1alpha1\n").map_err(os_error("open", Path::new(file)))?;
            }
        }
    }
    let wait = || pause(standin.sleep, &interrupted);
    let docker = kind == "docker";
    prepare(standin, docker, &name, &state)?;
    let image = parsed.get("image").unwrap_or("ghcr.io/siderolabs/talos");
    if docker {
        standin.engine_answers()?;
        eprintln!("creating network {name}");
        if standin.fail == Some(Fail::Half) {
            let first = Cluster { nodes: cluster.nodes[..1].to_vec(), ..cluster };
            Engine::new(standin)?.make(&first, image, 1)?;
            wait()?;
            return Err("context deadline exceeded".to_owned());
        }
        eprintln!("creating controlplane nodes\ncreating worker nodes");
        Engine::new(standin)?.make(&cluster, image, 0)?;
    } else if standin.fail == Some(Fail::Half) {
        wait()?;
        return Err("context deadline exceeded".to_owned());
    }
    if !docker || standin.version.at_least((1, 12)) {
        cluster.save(&state)?;
    }
    context::add(&context::destination(standin, parsed)?, &cluster)?;
    eprintln!("waiting for API");
    wait()?;
    if standin.fail == Some(Fail::Late) {
        return Err("bootstrap error: context deadline exceeded".to_owned());
    }
    eprintln!("bootstrapping cluster");
    cluster::print(standin, &name, Some(&cluster));
    Ok(())
}

/// What is made, by the form of the command and not by what one would think: bare `cluster create` makes virtual
/// machines from 1.12 on, whatever its `--provisioner` says.
fn kind(standin: &StandIn, release: &Release, path: &str, parsed: &Parsed) -> Result<String, String> {
    if standin.version.at_least((1, 12)) {
        if path == "cluster create" {
            eprintln!(
                "WARNING: the developer oriented 'cluster create' command has been moved to 'cluster create dev'"
            );
        }
        return Ok(if path == "cluster create docker" { "docker" } else { "qemu" }.to_owned());
    }
    let kind = parsed.get("provisioner").unwrap_or("docker");
    let command = release.flags(path);
    let useless = match kind {
        "docker" => &command.qemu_only,
        "qemu" => &command.docker_only,
        _ => return Err(format!("unsupported provisioner \"{kind}\"")),
    };
    let useless = parsed.names().filter(|name| useless.iter().any(|useless| useless == name));
    let lines: String = useless
        .map(|name| format!("{name} flag has been set but has no effect with the {kind} provisioner\n"))
        .collect();
    if lines.is_empty() { Ok(kind.to_owned()) } else { Err(format!("{lines}invalid flags found")) }
}

/// Everything that decides which images nodes pull, and from where.
fn check_images(standin: &StandIn, path: &str, parsed: &Parsed) -> Outcome {
    let mirrors = parsed.all("registry-mirror");
    for mirror in &mirrors {
        let Some((_, url)) = mirror.split_once('=') else {
            return Err(format!("invalid registry mirror spec: \"{mirror}\""));
        };
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!("registry mirror endpoint {url:?} has an unsupported scheme"));
        }
    }
    if !mirrors.is_empty() && parsed.get("input-dir").is_some() && standin.version.at_least((1, 1)) {
        let both = "[input-dir registry-mirror]";
        return Err(format!("if any flags in the group {both} are set none of the others can be; {both} were all set"));
    }
    let version = parsed.get("talos-version");
    if version.is_some_and(|version| !version.starts_with('v')) {
        return Err(match path {
            "cluster create qemu" => "failed to parse talos version: version string must start with a 'v'".to_owned(),
            _ => format!("error parsing Talos version {version:?}"),
        });
    }
    parsed.all("config-patch").into_iter().try_for_each(|patch| check_patch(standin, patch))
}

/// Patches: from a file since 1.0, by strategic merge since 1.2, and of `RegistryMirrorConfig` since 1.12.
fn check_patch(standin: &StandIn, patch: &str) -> Outcome {
    let wrong = |why: &str| Err(format!("error parsing config patch: {why}"));
    let text = match patch.strip_prefix('@') {
        Some(_) if !standin.version.at_least((1, 0)) => {
            return wrong("invalid character '@' looking for beginning of value");
        }
        Some(file) => std::fs::read_to_string(file).map_err(os_error("open", Path::new(file)))?,
        None => patch.to_owned(),
    };
    let list = text.trim_start().starts_with(['[', '-']) && !text.trim_start().starts_with("---");
    if !list && !standin.version.at_least((1, 2)) {
        return wrong("cannot unmarshal object into Go value of type jsonpatch.Patch");
    }
    if text.contains("kind: RegistryMirrorConfig") && !standin.version.at_least((1, 12)) {
        return wrong("\"RegistryMirrorConfig\" \"v1alpha1\": not registered");
    }
    Ok(())
}

/// The network and the machines that the flags ask for.
fn plan(standin: &StandIn, kind: &str, name: &str, parsed: &Parsed) -> Result<Cluster, String> {
    let text = parsed.get("cidr").or(parsed.get("subnet")).unwrap_or("10.5.0.0/24");
    let network: ipnet::IpNet = text.parse().map_err(|_| format!("error validating cidr block: {text:?}"))?;
    let ipnet::IpNet::V4(network) = network else {
        return Err(match standin.version.at_least((1, 12)) {
            true => "IPV4 CIDR expected, got IPV6 CIDR",
            false => "--cidr is expected to be IPV4 CIDR",
        }
        .to_owned());
    };
    // Go's netip keeps the bits behind the prefix, and newer releases count from there.
    let start = if standin.version.at_least((1, 9)) { network.addr() } else { network.network() };
    let nth = |offset: u32| {
        let address = u32::from(start).checked_add(offset).map(Ipv4Addr::from);
        let inside = address.filter(|address| network.contains(address));
        inside.map(|address| address.to_string()).ok_or("network does not contain enough IPs")
    };
    let old = parsed.number("masters", 1);
    let controlplanes = parsed.number("controlplanes", old);
    if controlplanes < 1 {
        return Err("number of controlplanes can't be less than 1".to_owned());
    }
    let (first, worker) = match standin.version.minor() {
        minor if minor <= (1, 1) => ("master", if minor < (0, 12) { "join" } else { "worker" }),
        _ => ("controlplane", "worker"),
    };
    let machines = (1..=controlplanes).map(|number| (format!("{name}-{first}-{number}"), "controlplane"));
    let workers = (1..=parsed.number("workers", 1)).map(|number| (format!("{name}-worker-{number}"), worker));
    let nodes = machines
        .chain(workers)
        .zip(2..)
        .map(|((name, kind), offset)| Ok(Node { name, kind: kind.to_owned(), address: nth(offset)? }));
    Ok(Cluster {
        name: name.to_owned(),
        provisioner: kind.to_owned(),
        cidr: text.to_owned(),
        gateway: nth(1)?,
        nodes: nodes.collect::<Result<_, String>>()?,
    })
}

/// The files that were named have to be there; the default ones are not looked at.
fn boot_files(parsed: &Parsed) -> Outcome {
    let named =
        ["vmlinuz-path", "initrd-path", "iso-path", "disk-image-path"].into_iter().filter_map(|name| parsed.get(name));
    for file in named.filter(|file| !file.starts_with("http")).map(Path::new) {
        std::fs::metadata(file).map_err(os_error("stat", file))?;
    }
    Ok(())
}

/// The state directory: always for QEMU; for docker none up to 1.8, then one that may exist, and from 1.12 on as QEMU.
fn prepare(standin: &StandIn, docker: bool, name: &str, state: &Path) -> Outcome {
    let socket = state.join(name).join(format!("{name}-controlplane-1.monitor"));
    if !docker && socket.as_os_str().len() > 107 {
        // QEMU's word; the real one starts it in the background, and waits for the machine until its time is out.
        return Err(format!("UNIX socket path '{}' is too long", socket.display()));
    }
    match (docker, standin.version.minor()) {
        (true, minor) if minor < (1, 9) => Ok(()),
        (true, minor) if minor < (1, 12) => {
            let directory = state.join(name);
            std::fs::create_dir_all(&directory).map_err(os_error("mkdir", &directory))
        }
        _ => reserve(state, name),
    }
}

fn pause(length: Duration, interrupted: &AtomicBool) -> Outcome {
    let until = Instant::now() + length;
    while Instant::now() < until {
        if interrupted.load(Ordering::Relaxed) {
            return Err("Signal received, aborting, press Ctrl+C once again to abort immediately...".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
