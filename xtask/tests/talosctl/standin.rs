//! The stand-in itself: that it refuses, keeps and leaves what the real one does.

use xshell::{Shell, cmd};
use xtask::talosctl::Provisioner::Docker;
use xtask::talosctl::create::Create;
use xtask::talosctl::show::Shown;
use xtask::talosctl::{Version, context, destroy, network, show};

use crate::machine::{Machine, standin};
use crate::support::World;

#[test]
fn the_stand_in_refuses_what_the_real_one_refuses() {
    let mirror = "--registry-mirror docker.io=http://10.5.0.1:5000";
    for (tag, line, part) in [
        ("v1.9.6", "cluster create docker", "unknown command \"docker\" for \"talosctl cluster create\""),
        ("v1.11.6", "cluster create docker", "unknown command \"docker\" for \"talosctl cluster create\""),
        ("v1.11.6", "cluster create --subnet 10.5.0.0/24", "unknown flag: --subnet"),
        ("v1.11.6", "cluster create --masters 1", "unknown flag: --masters"),
        ("v1.11.6", "cluster create --nodes 10.5.0.2", "unknown flag: --nodes"),
        (
            "v1.11.6",
            "cluster create --vmlinuz-path /x",
            "vmlinuz-path flag has been set but has no effect with the docker provisioner\ninvalid flags found",
        ),
        (
            "v1.11.6",
            "cluster create --provisioner qemu --image x",
            "image flag has been set but has no effect with the qemu provisioner",
        ),
        ("v1.11.6", "cluster create --provisioner podman", "unsupported provisioner \"podman\""),
        ("v1.12.0", "cluster create docker --cidr 10.5.0.0/24", "unknown flag: --cidr"),
        ("v1.12.0", "cluster create docker --controlplanes 1", "unknown flag: --controlplanes"),
        ("v1.12.0", "cluster create docker --wait", "unknown flag: --wait"),
        ("v1.12.0", "cluster create docker --talos-version v1.9.6", "unknown flag: --talos-version"),
        ("v1.12.0", "cluster create qemu --subnet 10.5.0.0/24", "unknown flag: --subnet"),
        ("v1.12.0", "cluster create qemu --talos-version 1.9.6", "must start with a 'v'"),
        ("v1.12.0", "cluster create podman", "unknown command \"podman\" for \"talosctl cluster create\""),
        ("v0.8.5", "cluster create --config-patch []", "unknown flag: --config-patch"),
        ("v0.14.3", "cluster create --config-patch @/x", "error parsing config patch"),
        ("v1.1.2", "cluster create --config-patch {}", "error parsing config patch"),
        (
            "v1.9.6",
            "cluster create --workers many",
            "invalid argument \"many\" for \"--workers\" flag: strconv.ParseInt",
        ),
        ("v1.9.6", "cluster create --wait-timeout 5", "time: invalid duration \"5\""),
        ("v1.9.6", "cluster create --wait=perhaps", "strconv.ParseBool"),
        ("v1.9.6", "cluster create --name", "flag needs an argument: --name"),
        ("v1.9.6", "cluster create -x", "unknown shorthand flag: 'x' in -x"),
        ("v1.9.6", "cluster create --cidr nonsense", "error validating cidr block"),
        ("v1.9.6", "cluster create --cidr fd00::/64", "--cidr is expected to be IPV4 CIDR"),
        ("v1.12.0", "cluster create qemu --cidr fd00::/64", "IPV4 CIDR expected, got IPV6 CIDR"),
        ("v1.9.6", "cluster create --cidr 10.5.0.0/30 --workers 2", "network does not contain enough IPs"),
        ("v1.9.6", "cluster create --registry-mirror docker.io", "invalid registry mirror spec: \"docker.io\""),
        ("v1.9.6", &format!("cluster create --input-dir x {mirror}"), "none of the others can be"),
        ("v1.9.6", "cluster create --provisioner qemu --vmlinuz-path /nowhere", "/nowhere: no such file or directory"),
        ("v1.9.6", "cluster show --provisioner qemu --state STATE", "cluster \"talos-default\" not found"),
        ("v1.12.0", "cluster destroy --state STATE --name x", "cluster \"x\" not found"),
        ("v1.4.8", "image default", "unknown command \"image\" for \"talosctl\""),
    ] {
        let (code, said) = Machine::new(tag).words(line);
        assert!(code == 1 && said.contains(part), "{tag} {line}: {code} {said}");
    }
}

#[test]
fn the_stand_in_takes_what_the_real_one_takes() {
    for (tag, line) in [
        ("v1.9.6", "cluster create docker --help"),
        ("v1.9.6", "cluster create --state STATE --vmlinuz-path /x"),
        ("v1.9.6", "cluster create --state STATE --wait-timeout 1h30m5.5s --wait=false -p 80:80/tcp"),
        ("v1.10.9", "cluster create --state STATE --masters 3 --nodes 10.5.0.2"),
        ("v1.12.0", "cluster create docker --state=STATE --mtu 1400"),
        ("v1.9.6", "cluster destroy --state STATE --name unknown"),
        ("v1.9.6", "cluster show --state STATE --name unknown"),
        // A group prints its help for a word that it does not know.
        ("v1.3.7", "config remove x"),
        ("v1.6.8", "images"),
        ("v1.5.6", "images"),
    ] {
        let (code, said) = Machine::new(tag).words(line);
        assert_eq!(code, 0, "{tag} {line}: {said}");
    }
}

#[test]
fn the_bare_create_makes_virtual_machines_from_1_12_on_whatever_it_is_told() {
    let machine = Machine::new("v1.12.0");
    let (code, said) = machine.words("cluster create --provisioner docker --state STATE");
    assert!(code == 0 && said.contains("has been moved to 'cluster create dev'"), "{said}");
    let state = std::fs::read_to_string(machine.path("state/talos-default/state.yaml")).unwrap();
    assert!(state.contains("\nprovisionername: qemu\nbridgename: talos"), "{state}");
    let refused = Machine::new("v1.12.0").with("STANDIN_ROOT", "0").words("cluster create --provisioner docker");
    assert!(refused.0 == 1 && refused.1.contains("please run as root user"), "{refused:?}");
}

#[test]
fn an_engine_too_old_for_1_12_needs_the_variable_and_spoils_the_state_without() {
    let line = "cluster create docker --state STATE --name x";
    let machine = Machine::new("v1.12.4").with("STANDIN_ENGINE_API", "1.41");
    let (code, said) = machine.words(line);
    let words = "client version 1.52 is too new. Maximum supported API version is 1.41";
    assert!(code == 1 && said.contains(words), "{said}");
    assert!(machine.words(line).1.contains("already exists, is the cluster \"x\" already running?"));
    for force in ["", " --force"] {
        let (code, said) = machine.words(&format!("cluster destroy --state STATE --name x{force}"));
        assert!(code == 1 && said.contains("failed to read cluster state: open "), "{said}");
    }
    assert!(machine.words("cluster show --state STATE --name x").1.contains(words));

    let machine = Machine::new("v1.12.4").with("STANDIN_ENGINE_API", "1.41").with("DOCKER_API_VERSION", "1.41");
    assert_eq!(machine.words(line).0, 0);
    assert_eq!(machine.last_call()["env"]["DOCKER_API_VERSION"], "1.41");
    assert_eq!(machine.words("cluster destroy --state STATE --name x").0, 0);
    for (tag, line) in [("v1.11.6", "cluster create --state STATE"), ("v1.14.0-rc.1", line)] {
        assert_eq!(Machine::new(tag).with("STANDIN_ENGINE_API", "1.41").words(line).0, 0, "{tag}");
    }
}

#[test]
fn state_is_kept_and_removed_as_each_release_does() {
    for (tag, create, directory, file, others) in [
        ("v1.8.4", "cluster create", false, false, true),
        ("v1.9.6", "cluster create", true, false, false),
        ("v1.11.6", "cluster create", true, false, false),
        ("v1.12.0", "cluster create docker", true, true, false),
        ("v1.8.4", "cluster create --provisioner qemu", true, true, true),
        ("v1.12.0", "cluster create qemu", true, true, true),
    ] {
        let machine = Machine::new(tag);
        let other = machine.path("state/other");
        std::fs::create_dir_all(&other).unwrap();
        let create = format!("{create} --state STATE --name x");
        assert_eq!(machine.words(&create).0, 0, "{tag}");
        assert_eq!(machine.path("state/x").exists(), directory, "{tag}");
        assert_eq!(machine.path("state/x/state.yaml").exists(), file, "{tag}");
        assert_eq!(machine.path("scratch/worker.yaml").exists(), create.contains("create qemu"), "{tag}");
        let (code, said) = machine.words(&create);
        let words =
            if file { "is the cluster \"x\" already running?" } else { "Conflict. The container name \"/x-control" };
        assert!(code == 1 && said.contains(words), "{tag}: {said}");
        let provisioner = if create.contains("--provisioner qemu") { "--provisioner qemu" } else { "" };
        assert_eq!(machine.words(&format!("cluster destroy {provisioner} --state STATE --name x")).0, 0, "{tag}");
        assert!(!machine.path("state/x").exists(), "{tag}");
        assert_eq!(other.exists(), others, "{tag}");
    }
}

#[test]
fn a_create_that_stops_half_way_leaves_what_the_real_one_leaves() {
    for (fail, file, nodes) in [("half", false, 1), ("late", true, 2)] {
        let machine = Machine::new("v1.12.0").with("STANDIN_FAIL", fail);
        assert_eq!(machine.words("cluster create docker --state STATE --name x").0, 1);
        assert_eq!(machine.path("state/x/state.yaml").exists(), file, "{fail}");
        let cmd = show(Docker, "x", &machine.path("state"));
        let shown = Shown::read("show", &machine.run(cmd).text()).unwrap();
        assert_eq!((shown.exists(), shown.nodes.len()), (true, nodes), "{fail}");
    }
}

#[test]
#[allow(clippy::disallowed_methods)]
fn an_interrupt_leaves_a_cluster_that_was_never_bootstrapped() {
    let machine = Machine::new("v1.12.0");
    let state = machine.path("state");
    let child = std::process::Command::new(standin())
        .args(["cluster", "create", "docker", "--state", state.as_str(), "--name", "x"])
        .envs([("STANDIN_TALOSCTL_VERSION", "v1.12.0"), ("STANDIN_SLEEP", "60")])
        .env("HOME", machine.path("home"))
        .env_remove("TALOSCONFIG")
        .env_remove("DOCKER_API_VERSION")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !machine.path("home/.talos/config").exists() {
        assert!(std::time::Instant::now() < until, "it never got that far");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = child.id().to_string();
    let sh = Shell::new().unwrap();
    cmd!(sh, "kill -INT {pid}").quiet().run().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("Signal received, aborting, press Ctrl+C once again to abort immediately..."), "{said}");
    assert!(!said.contains("bootstrapping") && state.join("x/state.yaml").exists(), "{said}");
}

#[test]
fn contexts_pile_up_and_the_current_one_goes_only_when_it_is_not_current_any_more() {
    let machine = Machine::new("v1.11.6");
    let release = Version::parse("v1.11.6").unwrap();
    for _ in 0..2 {
        assert_eq!(machine.words("cluster create --state STATE --name x").0, 0);
        assert_eq!(machine.words("cluster destroy --state STATE --name x").0, 0);
    }
    let contexts = || context::read_list(&machine.run(context::list()).text());
    let names = |contexts: &[context::Context]| contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&contexts()), ["x", "x-1"]);
    assert!(contexts()[1].current && contexts()[0].endpoints == ["10.5.0.2"]);
    let remove = |name: &str| assert!(machine.run(context::remove(&release, name).unwrap()).ok());
    remove("x");
    remove("x-1");
    assert_eq!(names(&contexts()), ["x-1"], "the current one is passed over");
    let file = machine.path("none.yaml");
    std::fs::write(&file, context::NONE_CURRENT).unwrap();
    assert!(machine.run(context::merge(&file)).ok());
    remove("x-1");
    assert!(contexts().is_empty());
    assert_eq!(machine.run(context::switch("x")).code, Some(1));
}

#[test]
fn on_the_engine_the_stand_in_makes_what_the_provisioner_makes() {
    let world = World::new("standin");
    let name = format!("{}cluster", world.prefix);
    let filters = ["--filter", "label=talos.owned=true", "--filter", &format!("label=talos.cluster.name={name}")]
        .map(str::to_owned);
    let left = || {
        let containers = cmd!(world.sh, "docker ps --all --quiet").args(&filters).quiet().read().unwrap();
        let networks = cmd!(world.sh, "docker network ls --quiet").args(&filters).quiet().read().unwrap();
        (containers.lines().count(), networks.lines().count())
    };
    for tag in ["v1.1.2", "v1.12.0"] {
        let release = Version::parse(tag).unwrap();
        let machine = Machine::new(tag).with("STANDIN_DOCKER", 1).with("STANDIN_IMAGE", "registry:2");
        let net = network::read(if tag == "v1.1.2" { "10.213.71.0/24" } else { "10.213.72.0/24" }).unwrap();
        let wish = Create::new(Docker, &name, machine.path("state"), net);
        let output = machine.run(wish.command(&release).unwrap());
        assert!(output.ok(), "{:?}", output.tail(5));
        assert_eq!(left(), (2, 1));
        let again = machine.run(wish.command(&release).unwrap());
        let words = if tag == "v1.1.2" { "is already in use by container" } else { "already running?" };
        assert!(!again.ok() && again.tail(1)[0].contains(words), "{:?}", again.tail(2));
        let shown = Shown::read("show", &machine.run(show(Docker, &name, &wish.state)).text()).unwrap();
        let first = if tag == "v1.1.2" { format!("{name}-master-1") } else { format!("{name}-controlplane-1") };
        assert_eq!((shown.nodes[0].name.as_str(), shown.cidrs[0].as_str()), (first.as_str(), net.to_string().as_str()));
        assert_eq!(shown.nodes[0].addresses[0], net.hosts().nth(1).unwrap().to_string());
        let output = machine.run(destroy(&release, Docker, &name, &wish.state));
        assert!(output.ok(), "{:?}", output.tail(5));
        assert_eq!(left(), (0, 0));
    }
}
