//! The command lines for talosctl against a stand-in that knows the flags of all 23 series from 0.7 to 1.14, the
//! stand-in itself, and a real talosctl where one is on `PATH`.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "talosctl/machine.rs"]
mod machine;
#[path = "support/releases.rs"]
mod releases;
#[path = "talosctl/standin.rs"]
mod standin;
mod support;

use std::io::Write;

use Provisioner::{Docker, Qemu};
use camino::Utf8PathBuf;
use machine::{Machine, run};
use releases::releases;
use support::HOSTS;
use xshell::Shell;
use xtask::exec::{Cmd, Output};
use xtask::mirror_format::{self, Endpoint};
use xtask::talosctl::create::{Boot, Create, MirrorsAs};
use xtask::talosctl::show::Shown;
use xtask::talosctl::{Provisioner, Version, as_root, destroy, image, images, network, show, version};

fn mirrors_at(address: &str) -> Vec<Endpoint> {
    HOSTS
        .iter()
        .zip(5000..)
        .map(|(host, port)| Endpoint { host: (*host).to_owned(), url: format!("http://{address}:{port}") })
        .collect()
}

/// Everything that makes sense for a release and a provisioner.
fn wish(release: &Version, provisioner: Provisioner, root: &str) -> Create {
    let net = network::read("10.5.0.0/24").unwrap();
    let classic = !release.at_least((1, 12));
    let mut wish = Create::new(provisioner, "demo", format!("{root}/state/demo"), net);
    wish.workers = Some(2);
    wish.kubernetes_version = Some("1.30.0".to_owned());
    wish.mirrors = mirrors_at(if provisioner == Docker { "172.17.0.1" } else { "10.5.0.1" });
    if provisioner == Docker {
        wish.image = Some(image("talos", release));
        wish.controlplanes = if classic { 3 } else { 1 };
    } else {
        wish.controlplanes = 3;
        let file = |name| format!("{root}/boot/{name}");
        wish.boot = classic.then(|| Boot { vmlinuz: file("vmlinuz-amd64"), initrd: file("initramfs-amd64.xz") });
        wish.install_image = classic.then(|| image("installer", release));
    }
    if release.at_least((0, 9)) && (classic || provisioner == Qemu) {
        wish.talos_version = Some(release.to_string());
    }
    wish
}

#[test]
fn every_release_takes_what_is_asked_of_it() {
    for release in releases() {
        for provisioner in [Docker, Qemu] {
            let machine = Machine::new(&release);
            std::fs::create_dir(machine.path("boot")).unwrap();
            for file in ["vmlinuz-amd64", "initramfs-amd64.xz"] {
                std::fs::write(machine.path("boot").join(file), "").unwrap();
            }
            let wish = wish(&release, provisioner, machine.path("").as_str().trim_end_matches('/'));
            let other = machine.path("state").join("other/other");
            std::fs::create_dir_all(&other).unwrap();

            let create = wish.command(&release).unwrap();
            let output = machine.run(create.clone());
            assert!(output.ok(), "{release}: {}\n{:?}", create.shell(), output.tail(9));
            let call = machine.last_call();
            let argv: Vec<&str> = call["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
            let sent: Vec<&str> = create.argv().skip(1).collect();
            assert_eq!(argv, sent);
            assert_eq!(call["cwd"], machine.path("scratch").as_str());
            let flag = |words: &[&str]| (words[0] == "--registry-mirror").then(|| words[1].to_owned());
            let seen: Vec<String> = argv.windows(2).filter_map(flag).collect();
            let expected: Vec<String> =
                wish.mirrors.iter().map(|Endpoint { host, url }| format!("{host}={url}")).collect();
            assert_eq!(seen, expected, "{release}");

            let cmd = show(provisioner, &wish.name, &wish.state);
            let shown = Shown::read(&cmd.shell(), &machine.run(cmd.clone()).text()).unwrap();
            assert_eq!((shown.provisioner.as_str(), shown.name.as_str()), (provisioner.name(), "demo"));
            assert_eq!((shown.cidrs[0].as_str(), shown.nodes.len()), ("10.5.0.0/24", wish.controlplanes as usize + 2));
            assert_eq!(shown.endpoint.is_some(), release.at_least((1, 7)), "{release}");

            let cmd = destroy(&release, provisioner, &wish.name, &wish.state);
            let output = machine.run(cmd.clone());
            assert!(output.ok(), "{release}: {}\n{:?}", cmd.shell(), output.tail(9));
            assert!(!output.tail(9).iter().any(|line| line.contains("deprecated")), "{release}: {output:?}");
            assert!(!wish.state.join("demo").exists(), "{release}");
            assert!(other.exists(), "{release}: another cluster's state went too");
        }
    }
}

#[test]
fn mirrors_as_a_patch_are_taken_wherever_there_is_such_a_command_line() {
    for release in releases() {
        for provisioner in [Docker, Qemu] {
            let machine = Machine::new(&release);
            let file = machine.path("mirrors.yaml");
            let mut wish =
                Create::new(provisioner, "demo", machine.path("state"), network::read("10.5.0.0/24").unwrap());
            wish.mirrors = mirrors_at("10.5.0.1");
            wish.mirrors_as = MirrorsAs::Patch(file.clone());
            std::fs::write(&file, mirror_format::patch(&release, &wish.mirrors)).unwrap();
            match wish.command(&release) {
                Ok(create) => {
                    assert!(release.at_least((1, 2)));
                    assert!(machine.run(create).ok(), "{release}");
                    assert!(machine.last_call().to_string().contains("@"), "{release}");
                }
                Err(findings) => {
                    assert!(!release.at_least((1, 2)));
                    assert!(findings[0].problem.contains("from 1.2 on"), "{findings:?}");
                    let line = format!("cluster create --provisioner docker --state STATE --config-patch @{file}");
                    let (code, said) = machine.words(&line);
                    assert_eq!(code, 1, "{release}: {said}");
                }
            }
        }
    }
}

#[test]
fn every_release_tells_its_version_and_its_images() {
    for release in releases() {
        let machine = Machine::new(&release);
        assert_eq!(Version::read(&machine.run(version()).text()).unwrap(), release);
        let short = machine.run(version().arg("--short")).text();
        let expected = match release.minor() {
            (0, minor) if minor < 10 => format!("Client:\nClient {release}-0123abcd\n"),
            (0, _) => format!("Client:\nTalos {release}-0123abcd\n"),
            _ => format!("Client:\nTalos {release}\n"),
        };
        assert_eq!(short, expected);
        let listed = machine.run(images(&release));
        // What the two oldest list is not recorded, and the stand-in says so.
        assert_eq!(listed.ok(), release.at_least((0, 9)), "{release}");
        assert_eq!(listed.text().contains("/kube-apiserver:"), release.at_least((0, 9)), "{release}");
    }
}

/// `UPDATE=1 cargo test --test talosctl` writes the file anew.
#[test]
fn the_command_lines_are_those_on_file() {
    let mut text =
        "# What is run for each release of talosctl; tests/talosctl.rs compares, UPDATE=1 writes.\n".to_owned();
    for release in releases() {
        text += &format!("\n## {release}\n");
        for provisioner in [Docker, Qemu] {
            let wish = wish(&release, provisioner, "");
            let root = |cmd: Cmd| if provisioner == Qemu { as_root(cmd, "talosctl", &[]) } else { cmd };
            let create = root(wish.command(&release).unwrap().dir("/scratch/demo"));
            let destroy = root(destroy(&release, provisioner, &wish.name, &wish.state));
            text += &format!("{}\n{}\n", create.shell(), destroy.shell());
        }
    }
    let file = Utf8PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/talosctl-commands.txt");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let on_file = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = |(one, other): &(&str, &str)| one != other;
    if let Some((is, was)) = text.lines().zip(on_file.lines()).find(differs) {
        panic!("{file} says\n  {was}\nand it is\n  {is}\nUPDATE=1 cargo test --test talosctl writes it anew");
    }
    assert_eq!(text.len(), on_file.len(), "UPDATE=1 cargo test --test talosctl writes {file} anew");
}

/// Nothing that needs an image, a network or root: flags before `--help`, which parses them and does nothing.
#[test]
fn a_real_talosctl_takes_the_command_lines_too() {
    // Past the capture of the harness, so that whoever reads the log knows which it was.
    let say = |text: String| writeln!(std::io::stderr(), "contract with a real talosctl: {text}").unwrap();
    let found = which::which("talosctl").ok().map(|_| run(&version().env_remove("STANDIN_TALOSCTL_VERSION")));
    let Some(told) = found.filter(Output::ok) else {
        return say("there is none on PATH, so only the stand-in was asked".to_owned());
    };
    let release = Version::read(&told.text()).unwrap();
    for provisioner in [Docker, Qemu] {
        let wish = wish(&release, provisioner, "/nowhere");
        for cmd in [
            wish.command(&release).unwrap(),
            show(provisioner, &wish.name, &wish.state),
            destroy(&release, provisioner, &wish.name, &wish.state),
        ] {
            let output = run(&cmd.arg("--help"));
            assert!(output.ok(), "{}: {:?}", output.code.unwrap_or(-1), output.tail(9));
        }
    }
    let wrong = run(&Cmd::read("talosctl").args(["cluster", "create", "--no-such-flag"]));
    assert_eq!(wrong.code, Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("unknown flag: --no-such-flag"));
    assert!(run(&images(&release)).text().contains("/kube-apiserver:"));
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let dir = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
    let generate = Cmd::write("talosctl").args(["gen", "config", "demo", "https://10.5.0.2:6443"]).dir(&dir);
    let flags = mirrors_at("10.5.0.1")
        .into_iter()
        .flat_map(|Endpoint { host, url }| ["--registry-mirror".into(), format!("{host}={url}")]);
    assert!(run(&generate.args(flags)).ok());
    let config = std::fs::read_to_string(dir.join("worker.yaml")).unwrap();
    assert!(mirrors_at("10.5.0.1").iter().all(|Endpoint { host, url }| config.contains(host) && config.contains(url)));
    say(format!("{release} took create, show, destroy, images and gen config"));
}
