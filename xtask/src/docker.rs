//! The engine's client: a wish becomes arguments, and its short answers become values; pure.

use std::time::Duration;

use crate::config::Mirror;
use crate::credentials;
use crate::error::{Error, Result};
use crate::exec::Cmd;
use crate::listen::Listen;
use crate::registry;

/// The label that says a container or a volume is ours; its value is the prefix of the names.
pub const LABEL_PREFIX: &str = "talos-cache.prefix";
/// The label that holds the host of a mirror.
pub const LABEL_HOST: &str = "talos-cache.host";
/// The label that holds which run created a container, so that a run can take back what it made.
pub const LABEL_RUN: &str = "talos-cache.run";
/// The label that holds how its image came to this engine.
pub const LABEL_IMAGE: &str = "talos-cache.image";

/// The label that holds how it serves: `proxy` or `offline`.
pub const LABEL_MODE: &str = "talos-cache.mode";

/// The label of one that serves offline since its upstream cannot be used, although it was reached: why that was.
pub const LABEL_UNUSABLE: &str = "talos-cache.upstream-unusable";

/// Where a registry keeps its store, in every image.
pub const STORE: &str = "/var/lib/registry";
const STATE: &str = "scheduler-state.json";
/// The variable that makes a registry a proxy.
pub const REMOTE: &str = "REGISTRY_PROXY_REMOTEURL";
/// The registry's own port, inside of the container.
pub const PORT: &str = "5000/tcp";
/// The port of its counters, which has a profiler too.
pub const DEBUG_PORT: &str = "5001/tcp";

/// Settings that make any registry from 2.5 to 3.x a safe cache, whatever its image defaults are.
///
/// Nothing expires and nothing is deleted (registry 3 deletes after seven days, and then serves blobs of no bytes:
/// distribution#2367), the descriptor cache cannot go stale, and no trace exporter fills the log.
const SAFE: [&str; 5] = [
    "REGISTRY_LOG_LEVEL=info",
    "REGISTRY_PROXY_TTL=0",
    "REGISTRY_STORAGE_DELETE_ENABLED=false",
    "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR=",
    "OTEL_TRACES_EXPORTER=none",
];
const COUNTERS: &str = "REGISTRY_HTTP_DEBUG_ADDR=:5001";

/// The variables that make a mirror's registry safe, and its counters ask-able where they are true.
pub fn safe(mirror: &Mirror) -> impl Iterator<Item = &'static str> {
    SAFE.into_iter().chain(Some(COUNTERS).filter(|_| counts(&mirror.image)))
}

/// Whether the counters of an image are worth a published port: those of registry 2 are wrong
/// (distribution/registry/proxy/proxyblobstore.go never counts a miss), and a port costs time at start and at removal.
pub fn counts(image: &str) -> bool {
    !is_registry_2(image)
}

/// Whether an image is a registry 2, by its tag. What carries no tag is the newest release.
pub fn is_registry_2(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or(image);
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map_or("latest", |(_, tag)| tag);
    tag.strip_prefix('2').is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
}

fn docker(cmd: Cmd, args: &[&str]) -> Cmd {
    cmd.args(args.iter().copied())
}

/// A command that changes containers or volumes. An engine does that in seconds; one that has locked itself up (20.10
/// can, when containers end while others are created) never does.
fn change(args: &[&str]) -> Cmd {
    docker(Cmd::write("docker").within(Duration::from_secs(300)), args)
}

/// All containers, a line each; its success is what tells an engine that is down from one that has none.
pub fn list() -> Cmd {
    let format = format!("{{{{.Names}}}}\t{{{{.Label \"{LABEL_PREFIX}\"}}}}\t{{{{.Ports}}}}");
    docker(Cmd::read("docker"), &["container", "ls", "--all", "--format", &format])
}

/// A line of [`list`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The container's name.
    pub name: String,
    /// The value of our label; empty where it carries none.
    pub prefix: String,
    /// The ports of this host that are published for it.
    pub ports: Vec<u16>,
}

/// Reads what [`list`] printed.
///
/// # Errors
/// It is not what an engine's client prints.
pub fn listed(text: &str) -> Result<Vec<Listed>> {
    let rows = rows(&list(), text)?.into_iter();
    Ok(rows.map(|[name, prefix, ports]| Listed { name, prefix, ports: host_ports(&ports) }).collect())
}

/// The rows of a table that a command printed with tabs between its columns.
///
/// # Errors
/// A line has another number of columns, or none in front: an answer that cannot be read does not say that nothing is
/// there.
pub fn rows<const N: usize>(cmd: &Cmd, text: &str) -> Result<Vec<[String; N]>> {
    let row = |line: &str| {
        let parts: Vec<String> = line.split('\t').map(str::to_owned).collect();
        <[String; N]>::try_from(parts).ok().filter(|row| row.first().is_some_and(|first| !first.is_empty()))
    };
    let unreadable = |line: &str| Error::Answer {
        command: cmd.shell(),
        problem: format!("{:?} is not a line of {N} columns", line.chars().take(80).collect::<String>()),
    };
    text.lines().map(|line| row(line).ok_or_else(|| unreadable(line))).collect()
}

/// One inspect of all the names; it ends with 1 when one is absent, and still prints the others.
pub fn inspect(names: &[String]) -> Cmd {
    docker(Cmd::read("docker"), &["container", "inspect"]).args(names)
}

/// The engine's API version and release, separated by a blank.
pub fn version() -> Cmd {
    docker(Cmd::read("docker"), &["version", "--format", "{{.Server.APIVersion}} {{.Server.Version}}"])
}

/// All volumes, or those that carry our label for a prefix, a line each.
pub fn list_volumes(prefix: Option<&str>) -> Cmd {
    let format = format!("{{{{.Name}}}}\t{{{{.Label \"{LABEL_PREFIX}\"}}}}\t{{{{.Mountpoint}}}}");
    let cmd = docker(Cmd::read("docker"), &["volume", "ls", "--format", &format]);
    match prefix {
        Some(prefix) => cmd.arg("--filter").arg(format!("label={LABEL_PREFIX}={prefix}")),
        None => cmd,
    }
}

/// Prints the sizes of all files below each folder together, a line each; 0 for a folder that is not there. In words of
/// every busybox from 1.24 (Alpine 3.4) on. Where a program is missing, it says nothing rather than too little.
const BYTES: &str = "for p in find xargs stat awk; do command -v $p >/dev/null || exit 1; done
for folder; do [ -e \"$folder\" ] || { echo 0; continue; }
find \"$folder\" -type f -print0 | xargs -0 -r stat -c %s | awk '{n += $1} END {printf \"%.0f\\n\", n}'; done";

/// The bytes of all files in a folder of a running container.
pub fn bytes_inside(name: &str, folder: &str) -> Cmd {
    docker(Cmd::read("docker").patient(), &["exec", name, "sh", "-c", BYTES, "sh", folder])
}

/// The bytes of all files on each volume, by a container that is gone afterwards.
pub fn bytes_on_volumes(volumes: &[String], image: &str) -> Cmd {
    on_volumes(volumes, image, "sh", &["-c", BYTES, "sh"], &[])
}

/// The sizes of blobs or manifests in a running registry's store, as `SIZE PATH`; it fails where one is missing, and
/// still prints the others.
pub fn blob_sizes(name: &str, paths: &[String]) -> Cmd {
    docker(Cmd::read("docker").unhurried(), &["exec", name, "stat", "-c", "%s %n"]).args(paths)
}

/// The room that is left where a folder of a running container is.
pub fn room_inside(name: &str, folder: &str) -> Cmd {
    docker(Cmd::read("docker").unhurried(), &["exec", name, "df", "-P", "-k", folder])
}

/// The lines of a registry's configuration that say where its store is. The rest may hold a password.
pub fn configured_roots(name: &str, file: &str) -> Cmd {
    docker(Cmd::read("docker"), &["exec", name, "sed", "-n", "/rootdirectory:/p", file])
}

/// The files that hold anything, each below the number of its volume in the list (`/0/...`), by a container that is gone
/// afterwards.
pub fn files(volumes: &[String], image: &str) -> Cmd {
    on_volumes(volumes, image, "find", &[], &["-type", "f", "-size", "+0c"])
}

fn on_volumes(volumes: &[String], image: &str, program: &str, before: &[&str], after: &[&str]) -> Cmd {
    let mounts = volumes.iter().enumerate().map(|(n, name)| format!("type=volume,src={name},dst=/{n},readonly"));
    docker(Cmd::write("docker"), &["run", "--rm", "--entrypoint", program])
        .args(mounts.flat_map(|mount| ["--mount".to_owned(), mount]))
        .args([&[image], before].concat())
        .args((0..volumes.len()).map(|n| format!("/{n}")))
        .args(after.iter().copied())
}

/// The last lines a container wrote.
pub fn logs(name: &str, lines: usize) -> Cmd {
    docker(Cmd::read("docker"), &["logs", "--tail"]).arg(lines.to_string()).arg(name)
}

/// All that a container wrote since a time, as the engine prints times.
pub fn logs_since(name: &str, since: &str) -> Cmd {
    docker(Cmd::read("docker").patient(), &["logs", "--since", since, name])
}

/// A container's lines as they come.
pub fn follow(name: &str, lines: &str, follow: bool) -> Cmd {
    // Whoever reads it sets the pace.
    let cmd = docker(Cmd::read("docker").patient(), &["logs", "--tail", lines]);
    let cmd = if follow { cmd.arg("--follow") } else { cmd };
    cmd.arg(name)
}

/// Starts containers that exist.
pub fn start(name: &str) -> Cmd {
    change(&["container", "start", name])
}

/// Lets a paused container go on.
pub fn unpause(name: &str) -> Cmd {
    change(&["container", "unpause", name])
}

/// Moves a registry's record of expiry dates aside, in its store, by a container of the same image.
///
/// The record has no use here, since nothing expires, and a damaged one makes every registry panic when it starts.
pub fn move_state_aside(mirror: &Mirror) -> Cmd {
    // A run that was cut short, or another one, may have moved it already.
    let script = format!("cd {STORE} && if [ -e {STATE} ]; then mv {STATE} {STATE}.damaged-$(date +%s); fi");
    docker(Cmd::write("docker"), &["run", "--rm", "--volumes-from", &mirror.name, "--entrypoint", "sh", &mirror.image])
        .args(["-c", &script])
}

/// Starts a container again, whatever it is doing.
pub fn restart(name: &str) -> Cmd {
    change(&["container", "restart", "-t", "0", name])
}

/// Stops containers and keeps them.
pub fn stop(names: &[String]) -> Cmd {
    change(&["container", "stop", "-t", "5"]).args(names)
}

/// Removes containers with their anonymous volumes; named volumes stay.
pub fn remove(names: &[String]) -> Cmd {
    change(&["container", "rm", "--force", "--volumes"]).args(names)
}

/// Removes containers that share the volumes of others, which stay: an anonymous one would go with the last container.
pub fn remove_copiers(names: &[String]) -> Cmd {
    change(&["container", "rm", "--force"]).args(names)
}

/// The names of the containers that use a volume, a line each.
pub fn users(volume: &str) -> Cmd {
    let filter = format!("volume={volume}");
    docker(Cmd::read("docker"), &["container", "ls", "--all", "--filter", &filter, "--format", "{{.Names}}"])
}

/// Removes volumes.
pub fn remove_volumes(names: &[String]) -> Cmd {
    change(&["volume", "rm"]).args(names)
}

/// How a registry serves its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// As a pull-through cache of its upstream.
    Proxy,
    /// As a plain read-only registry: what is cached, without asking anyone.
    Offline,
}

impl Mode {
    /// The word for it, as the label has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::Offline => "offline",
        }
    }
}

/// Starts the registry a second time inside of a running container, as a proxy on a port that nobody asks.
///
/// It is the very check that a proxy makes of its upstream when it starts, from the same network and with the same
/// trust: it listens when the upstream answered, and panics when it did not. It ends by itself after five seconds; until
/// then another may run, so each takes a port that is free.
pub fn probe_upstream(mirror: &Mirror) -> Cmd {
    let serve = "for c in /etc/distribution/config.yml /etc/docker/registry/config.yml; do \
                 [ ! -f $c ] || exec timeout $t 5 registry serve $c; done";
    docker(Cmd::read("docker").unhurried(), &["exec", "--env", &format!("{REMOTE}={}", mirror.upstream)])
        .args(["--env", "REGISTRY_HTTP_ADDR=127.0.0.1:0", "--env", "REGISTRY_HTTP_DEBUG_ADDR=127.0.0.1:0"])
        .args(["--env", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/tmp/upstream-probe", &mirror.name])
        .args(["sh", "-c", &format!("{TIMEOUT}{serve}")])
}

/// Sets `t` to what `timeout` wants in front of a number: busybox before 1.30, which registry 2.5 has, wants `-t`, and
/// the newer ones refuse it.
const TIMEOUT: &str = "t=; timeout -t 1 true 2>/dev/null && t=-t; ";

/// Asks a mirror's upstream from inside of its running container; busybox shows the answer's status on stderr.
pub fn ask_upstream(mirror: &Mirror) -> Cmd {
    wget_inside(&mirror.name, "exec timeout $t 5 wget -S -q -O /dev/null \"$1\"", &mirror.upstream)
}

/// Asks a registry for `/v2/` in its own container.
pub fn ask_inside(name: &str) -> Cmd {
    wget_inside(name, "exec timeout $t 3 wget -q -O /dev/null \"$1\"", "http://127.0.0.1:5000")
}

/// Asks a registry in its own container for a blob that does not exist, under a name that its log will show.
pub fn ask_inside_for_no_blob(name: &str, repository: &str, user_agent: &str) -> Cmd {
    let script = format!("exec timeout $t 5 wget -q -U {user_agent} -O /dev/null \"$1\"");
    asked_inside(name, &script, &format!("http://127.0.0.1:5000{}", registry::no_blob(repository)))
}

fn wget_inside(name: &str, script: &str, address: &str) -> Cmd {
    asked_inside(name, script, &format!("{address}/v2/"))
}

fn asked_inside(name: &str, script: &str, address: &str) -> Cmd {
    docker(Cmd::read("docker").unhurried(), &["exec", name, "sh", "-c", &format!("{TIMEOUT}{script}"), "sh"])
        .arg(address)
}

/// Whether a line of [`probe_upstream`] says that the upstream answered.
pub fn upstream_answered(line: &str) -> bool {
    line.contains("msg=\"listening on ")
}

/// A container to be made.
pub struct Wish<'a> {
    /// The mirror that it is for.
    pub mirror: &'a Mirror,
    /// How it is to serve.
    pub mode: Mode,
    /// The prefix in its labels.
    pub prefix: &'a str,
    /// Where it is published.
    pub listen: &'a Listen,
    /// Which run makes it.
    pub run: &'a str,
    /// How its image came to this engine, where that is known.
    pub origin: Option<&'a str>,
    /// Why its upstream cannot be used, where it was reached and cannot.
    pub unusable: Option<&'a str>,
}

impl Wish<'_> {
    /// Whether an account goes into it, which has to happen before it is started.
    pub fn with_credentials(&self) -> bool {
        self.mode == Mode::Proxy && self.mirror.credentials.is_some()
    }

    /// Creates and starts it: the guide's command, with a named volume, a bound on its log and safe settings.
    pub fn run(&self) -> Cmd {
        self.command(&["run", "--detach"])
    }

    /// Creates it, to be started later.
    pub fn create(&self) -> Cmd {
        self.command(&["container", "create"])
    }

    fn command(&self, verb: &[&str]) -> Cmd {
        let (mirror, prefix, mode) = (self.mirror, self.prefix, self.mode);
        let mount = format!("type=volume,src={},dst={STORE},volume-label={LABEL_PREFIX}={prefix}", mirror.name);
        let counters = counts(&mirror.image).then(|| "127.0.0.1::5001".to_owned());
        let labels =
            [(LABEL_PREFIX, prefix), (LABEL_HOST, &mirror.host), (LABEL_RUN, self.run), (LABEL_MODE, mode.word())];
        // Where it is not known, the label that an assembled image carries itself shows through.
        let labels = labels.into_iter().chain(self.origin.map(|origin| (LABEL_IMAGE, origin)));
        let unusable = self.unusable.filter(|_| mode == Mode::Offline);
        let labels = labels.chain(unusable.map(|reason| (LABEL_UNUSABLE, reason)));
        let each = |flag: &'static str, value: String| [flag.to_owned(), value];
        change(verb)
            .args(["--restart", "always", "--name", &mirror.name])
            // The counters are for this host alone: the same port has a profiler.
            .args(self.listen.publish(mirror.port).into_iter().chain(counters).flat_map(|port| each("--publish", port)))
            .args(["--mount", &mount])
            .args(labels.flat_map(|(name, value)| each("--label", format!("{name}={value}"))))
            .args(["--log-driver", "json-file", "--log-opt", "max-size=16m", "--log-opt", "max-file=4"])
            .args(environment(mirror, mode).into_iter().flat_map(|variable| each("--env", variable)))
            .arg(&mirror.image)
            .args(self.with_credentials().then_some(credentials::PATH))
    }
}

/// Puts a tar stream, which it reads on its standard input, into a container.
pub fn put(name: &str, archive: Vec<u8>) -> Cmd {
    docker(Cmd::write("docker"), &["cp", "-", &format!("{name}:{}", credentials::FOLDER)]).stdin(archive)
}

/// What of its images a registry has cached: its links to manifests and layers, as a tar stream.
pub fn get_links(name: &str) -> Cmd {
    docker(Cmd::read("docker").patient(), &["cp", &format!("{name}:{STORE}/docker/registry/v2/repositories"), "-"])
}

/// Gives the file with an account back, as a tar stream.
pub fn get_credentials(name: &str) -> Cmd {
    docker(Cmd::read("docker"), &["cp", &format!("{name}:{}", credentials::PATH), "-"])
}

/// The paths that a container has added, changed or deleted in its own layer, volumes left out.
pub fn diff(name: &str) -> Cmd {
    docker(Cmd::read("docker").patient(), &["container", "diff", name])
}

/// Where a registry keeps its store in its container's own layer, if it does, from what [`diff`] printed: every driver
/// of every version has `docker/registry` below its root.
///
/// # Errors
/// A line is no change of a file: it has to be `A`, `C` or `D` and an absolute path.
pub fn stores_in_its_layer(cmd: &Cmd, changes: &str) -> Result<Option<String>> {
    let path = |line: &str| {
        let (kind, path) = line.split_once(' ')?;
        (matches!(kind, "A" | "C" | "D") && path.starts_with('/')).then(|| path.to_owned())
    };
    let unreadable =
        |line: &str| Error::Answer { command: cmd.shell(), problem: format!("{line:?} is no change of a file") };
    let paths = changes.lines().map(|line| path(line).ok_or_else(|| unreadable(line))).collect::<Result<Vec<_>>>()?;
    Ok(paths.iter().find_map(|path| path.strip_suffix("/docker/registry").map(str::to_owned)))
}

/// The name of the container that copies a store.
pub fn copier(mirror: &Mirror) -> String {
    format!("{}{COPIER}", mirror.name)
}

/// Whether a name is that of a container that copies a store.
pub fn is_copier(name: &str) -> bool {
    name.ends_with(COPIER)
}

const COPIER: &str = "-adopting";

/// The folder of a volume that an unfinished copy is in: no registry reads it.
const UNFINISHED: &str = ".adopting";

/// Copies what a container has cached to the volume of its mirror, by a container of the mirror's image that stays: while
/// there is one, the copy may be unfinished. It ends well only when every file is there in its full size.
///
/// A registry serves whatever blob it finds, so a copy grows in a folder that none reads, and every file of it moves to
/// its place at the end, blobs before the links that name them. A move is atomic, as both are on one volume.
/// The container is named by its identity: under its name may be another one by now.
pub fn copy_store(mirror: &Mirror, container: &str, prefix: &str, run: &str) -> Cmd {
    let mount = format!("type=volume,src={},dst=/adopted,volume-label={LABEL_PREFIX}={prefix}", mirror.name);
    let from = format!("{container}:ro");
    let script = format!(
        "set -e; [ \"$(stat -c %d:%i {STORE})\" != \"$(stat -c %d:%i /adopted)\" ] || {{ echo 'it is on the volume already' >&2; exit 1; }}
new=/adopted/{UNFINISHED}; rm -rf $new; mkdir $new; cp -a {STORE}/. $new/
sizes() {{ cd \"$1\"; find . -type f -print0 | xargs -0 -r stat -c '%s %n' | sort; }}
sizes {STORE} >/tmp/from; sizes $new >/tmp/to
cmp -s /tmp/from /tmp/to || {{ echo 'not every file was copied' >&2; exit 1; }}; sync; cd $new
if [ ! -e /adopted/docker ] && [ -e docker ]; then mv docker /adopted/docker; fi
for part in docker/registry/v2/blobs .; do
  [ ! -e $part ] || find $part -type f | while read -r file; do
    [ -d \"/adopted/${{file%/*}}\" ] || mkdir -p \"/adopted/${{file%/*}}\"
    mv -f \"$file\" \"/adopted/$file\"; done
done
cd /; [ -z \"$(find $new -type f)\" ] || {{ echo 'not every file was moved' >&2; exit 1; }}; rm -rf $new"
    );
    docker(Cmd::write("docker"), &["run", "--name", &copier(mirror)])
        .args(["--label", &format!("{LABEL_PREFIX}={prefix}"), "--label", &format!("{LABEL_RUN}={run}")])
        .args(["--volumes-from", &from, "--mount", &mount, "--entrypoint", "sh", &mirror.image, "-c", &script])
}

/// Removes what an unfinished copy left on a mirror's volume.
pub fn discard_copy(mirror: &Mirror, prefix: &str) -> Cmd {
    let mount = format!("type=volume,src={},dst=/adopted,volume-label={LABEL_PREFIX}={prefix}", mirror.name);
    docker(Cmd::write("docker"), &["run", "--rm", "--mount", &mount, "--entrypoint", "rm", &mirror.image])
        .args(["-rf", &format!("/adopted/{UNFINISHED}")])
}

/// Waits until a container has ended.
pub fn wait(name: &str) -> Cmd {
    docker(Cmd::read("docker").patient(), &["container", "wait", name])
}

/// Ends containers at once, and keeps them.
pub fn kill(name: &str) -> Cmd {
    change(&["container", "kill", name])
}

/// What a mirror's registry is told by its environment.
pub fn environment(mirror: &Mirror, mode: Mode) -> Vec<String> {
    // A read-only registry is told so by this one form: the other spellings make every version panic.
    let mode = match mode {
        Mode::Proxy => format!("{REMOTE}={}", mirror.upstream),
        Mode::Offline => "REGISTRY_STORAGE_MAINTENANCE_READONLY={\"enabled\":true}".to_owned(),
    };
    std::iter::once(mode).chain(safe(mirror).map(str::to_owned)).collect()
}

/// The host ports in a line of `docker container ls`, as in `0.0.0.0:5000->5000/tcp, :::5000->5000/tcp`.
pub fn host_ports(ports: &str) -> Vec<u16> {
    let published = ports.split(", ").filter_map(|one| one.split_once("->"));
    let mut all: Vec<u16> = published.filter_map(|(host, _)| host.rsplit(':').next()?.parse().ok()).collect();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credentials, Password};

    fn wish<'a>(mirror: &'a Mirror, mode: Mode, listen: &'a Listen) -> Wish<'a> {
        Wish { mirror, mode, prefix: "registry-", listen, run: "r1", origin: Some("pulled"), unusable: None }
    }

    #[test]
    fn the_command_is_the_guides_with_a_named_volume() {
        let shell = wish(&Mirror::docker_io(), Mode::Proxy, &Listen::default()).run().shell();
        for part in [
            "docker run --detach --restart always --name registry-docker.io --publish 5000:5000 ",
            "src=registry-docker.io,dst=/var/lib/registry",
            "--env REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io ",
        ] {
            assert!(shell.contains(part), "{part} in {shell}");
        }
        assert!(shell.ends_with(" registry:2"), "{shell}");
    }

    #[test]
    fn the_counters_are_published_on_loopback_where_they_are_true() {
        let three = Mirror { image: "registry:3".into(), ..Mirror::docker_io() };
        let shell = wish(&three, Mode::Proxy, &Listen::default()).run().shell();
        assert!(shell.contains("--publish 127.0.0.1::5001 ") && shell.contains(COUNTERS), "{shell}");
        assert!(!wish(&Mirror::docker_io(), Mode::Proxy, &Listen::default()).run().shell().contains("5001"));
        for (image, two) in [
            ("registry:2.8.3", true),
            ("registry:2.5", true),
            ("localhost:5000/registry:2-alpine", true),
            ("registry:2@sha256:0123", true),
            ("registry:20", false),
            ("localhost:2000/registry", false),
            ("registry:latest", false),
        ] {
            assert_eq!(is_registry_2(image), two, "{image}");
        }
    }

    #[test]
    fn an_account_is_a_path_in_the_command_and_no_more() {
        let credentials = Some(Credentials { username: "someone".into(), password: Password::Env("TOKEN".into()) });
        let mirror = Mirror { credentials, ..Mirror::docker_io() };
        let listen = Listen(vec!["127.0.0.1".parse().unwrap(), "172.17.0.1".parse().unwrap()]);
        let shell = wish(&mirror, Mode::Proxy, &listen).create().shell();
        assert!(
            shell.starts_with("docker container create ") && shell.ends_with(" registry:2 /etc/talos-cache/config.yml")
        );
        assert!(shell.contains("--publish 127.0.0.1:5000:5000 --publish 172.17.0.1:5000:5000 "), "{shell}");
        assert!(!shell.contains("TOKEN") && !shell.contains("someone"), "{shell}");
        assert!(wish(&mirror, Mode::Offline, &listen).run().shell().ends_with(" registry:2"));
    }

    #[test]
    fn a_store_in_the_containers_own_layer_is_seen() {
        let changes = "C /tmp\nA /data\nA /data/docker\nA /data/docker/registry\nA /data/docker/registry/v2\n";
        let of = |changes: &str| stores_in_its_layer(&diff("x"), changes);
        assert_eq!(of(changes).unwrap().as_deref(), Some("/data"));
        assert_eq!(of("C /etc\nA /etc/docker/registry.d\nC /root\n").unwrap(), None);
        assert!(of("the answer is 42\n").is_err());
    }

    #[test]
    fn a_timeout_is_set_in_the_words_of_an_old_and_of_a_new_busybox() {
        let folder = std::env::temp_dir().join(format!("timeout-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let program = |name: &str, script: &str| {
            let sh = Cmd::read("sh").args(["-c", "printf '#!/bin/sh\n%s\n' \"$2\" >\"$1\"; chmod +x \"$1\"", "sh"]);
            let path = folder.join(name).to_string_lossy().into_owned();
            assert!(run(&sh.args([&path, script])).ok());
        };
        program("wget", "echo \"asked $*\"");
        for timeout in [
            "[ $1 = -t ] || { echo \"can't execute '$1'\" >&2; exit 127; }; shift 2; exec \"$@\"",
            "[ $1 != -t ] || { echo \"invalid option -- 't'\" >&2; exit 1; }; shift; exec \"$@\"",
        ] {
            program("timeout", timeout);
            let asked = ask_inside("x");
            let inside = Cmd::read("env").arg(format!("PATH={}:/usr/bin:/bin", folder.display()));
            let output = run(&inside.args(asked.argv().skip(3)));
            assert_eq!(output.text(), "asked -q -O /dev/null http://127.0.0.1:5000/v2/\n", "{output:?}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    fn run(cmd: &Cmd) -> crate::exec::Output {
        let term = crate::term::Term::silent();
        crate::exec::Runner::run(&crate::exec::Processes::new(crate::exec::Interrupt::default(), term), cmd).unwrap()
    }

    #[test]
    fn no_flag_is_used_that_the_oldest_client_does_not_know() {
        // `docker run --pull` came with 20.10, `docker pull --quiet` with 19.03 (docker/cli release notes).
        for cmd in [bytes_on_volumes(&["v".to_owned()], "registry:2"), files(&["v".to_owned()], "registry:2")] {
            assert!(!cmd.shell().contains("--pull"), "{}", cmd.shell());
        }
    }

    #[test]
    fn a_log_is_read_at_the_pace_of_its_reader() {
        assert_eq!((follow("x", "100000", false).limit(), follow("x", "20", true).limit()), (None, None));
    }

    #[test]
    fn a_listing_is_read() {
        let text = "registry-docker.io\tregistry-\t0.0.0.0:5000->5000/tcp\nweb\t\t\n";
        let [ours, web] = &listed(text).unwrap()[..] else { panic!("two lines") };
        assert_eq!((ours.prefix.as_str(), &ours.ports[..]), ("registry-", &[5000][..]));
        assert_eq!((web.name.as_str(), web.prefix.as_str()), ("web", ""));
    }

    #[test]
    fn ports_of_a_listing_are_read() {
        assert_eq!(host_ports("0.0.0.0:5000->5000/tcp, :::5000->5000/tcp"), [5000]);
        assert_eq!(host_ports("5000/tcp"), Vec::<u16>::new());
    }
}
