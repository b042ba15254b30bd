//! What `cluster` says before it touches anything.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;
#[path = "support/user.rs"]
mod user;

use support::write_program;
use user::User;

#[test]
fn everything_that_stands_in_the_way_is_said_together_and_nothing_is_touched() {
    let user = User::without_caches("checks", "v1.12.4");
    let run = user.make("--docker", &["--controlplanes", "3", "--talos-version", "1.12", "--", "--name", "x"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    for part in [
        "error: -- --name: ",
        "--controlplanes: talosctl v1.12.4 has no such option for docker clusters; it exists up to 1.11",
        "\"1.12\" is no version",
    ] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    assert_eq!(user.world.left(), Vec::<String>::new());
    assert!(user.calls(&["cluster"]).is_empty() && !user.state().exists());
}

#[test]
fn a_talosctl_that_is_missing_fails_or_cannot_be_read_says_so() {
    let mut user = User::without_caches("tool", "v1.12.4");
    let bin = user.home.join("bin");
    std::fs::remove_file(bin.join("talosctl")).unwrap();
    let other = format!("{bin}:/usr/bin:/bin:/usr/sbin:/sbin");
    user.set("PATH", &other);
    let sh = user.shell();
    if xshell::cmd!(sh, "which talosctl").quiet().ignore_stdout().run().is_err() {
        let run = user.make("--docker", &[]);
        assert!(run.code == Some(1) && run.stderr.contains("talosctl is not on PATH\n  fix: install it"), "{run:?}");
    }
    for (script, part) in [
        ("#!/bin/sh\necho broken >&2\nexit 7\n", "ended with exit code 7"),
        ("#!/bin/sh\nprintf 'Client:\\n\\tTag:         latest\\n'\n", "the tag \"latest\" is no version"),
        ("#!/bin/sh\nprintf 'Client:\\n\\tTag:         v0.6.0\\n'\n", "v0.6.0 is too old"),
    ] {
        write_program(bin.as_std_path(), "talosctl", script);
        let run = user.make("--docker", &[]);
        assert!(run.code == Some(1) && run.stderr.contains(part) && run.stderr.contains("fix: "), "{run:?}");
    }
    assert_eq!(user.world.left(), Vec::<String>::new());
}

#[test]
fn a_network_that_is_taken_and_flags_that_say_nothing_are_found_first() {
    let user = User::without_caches("taken", "v1.9.6");
    let bridge = user.world.gateway.rsplit_once('.').unwrap().0.to_owned() + ".0/24";
    let run = user.xtask(&["cluster", "--docker", "--no-cache", "--name", "c", "--cidr", &bridge, "--", "--help"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    for part in ["the network bridge of the engine", "-- --help: talosctl would print its help"] {
        assert!(run.stderr.contains(part), "{part}: {run:?}");
    }
    assert!(user.calls(&["cluster"]).is_empty());
}

#[test]
fn an_engine_is_not_needed_for_virtual_machines_without_its_caches() {
    let mut user = User::without_caches("noengine", "v1.12.4");
    user.set("DOCKER_HOST", "unix:///nonexistent.sock");
    let dry = user.make("--qemu", &["--no-cache", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains("talosctl cluster create qemu"), "{dry:?}");
    let docker = user.make("--docker", &["--no-cache"]);
    assert!(docker.code == Some(1) && docker.stderr.contains("fix: start the engine"), "{docker:?}");
}

#[test]
fn the_gateway_follows_the_network() {
    let user = User::without_caches("cidr", "v1.9.6");
    let dry =
        |cidr: &str| user.xtask(&["cluster", "--qemu", "--dry-run", "--name", "c", "--workers", "0", "--cidr", cidr]);
    for (cidr, network, gateway) in [
        ("10.5.0.0/24", "10.5.0.0/24", "10.5.0.1"),
        ("10.6.0.0/16", "10.6.0.0/16", "10.6.0.1"),
        ("10.7.1.77/24", "10.7.1.0/24", "10.7.1.1"),
        ("192.168.3.8/30", "192.168.3.8/30", "192.168.3.9"),
    ] {
        let run = dry(cidr);
        let wanted = format!("--cidr {network} ");
        assert!(run.code == Some(0) && run.stdout.contains(&wanted), "{run:?}");
        assert!(run.stdout.contains(&format!("docker.io=http://{gateway}:")), "{run:?}");
    }
    for cidr in ["fd00::/64", "10.5.0.0", "garbage", "10.5.0.0/31"] {
        let run = dry(cidr);
        assert!(run.code == Some(2) && run.stderr.contains("fix: write an IPv4 network"), "{run:?}");
    }
    assert_eq!(user.world.left(), Vec::<String>::new());
}

#[test]
fn nodes_find_the_mirrors_where_the_settings_say() {
    let user = User::without_caches("where", "v1.9.6");
    let gateway = user.world.gateway.clone();
    for (settings, provisioner, address) in [
        ("bind = \"local\"", "--qemu", gateway.as_str()),
        ("bind = \"local\"", "--docker", &gateway),
        (&format!("bind = \"{gateway}\""), "--docker", &gateway),
        ("[cluster]\naddress = \"cache.example\"", "--qemu", "cache.example"),
    ] {
        user.world.settings(settings);
        let run = user.make(provisioner, &["--dry-run"]);
        let first = format!("--registry-mirror docker.io=http://{address}:{}", user.world.ports[0]);
        assert!(run.code == Some(0) && run.stdout.contains(&first), "{run:?}");
    }
    user.world.settings("bind = \"127.0.0.1\"");
    let loopback = user.make("--docker", &["--dry-run"]);
    assert!(loopback.code == Some(1) && loopback.stderr.contains("which no node reaches"), "{loopback:?}");
    // A cache for a team that is not there is found out before talosctl is started.
    user.world.settings("[cluster]\naddress = \"127.0.0.9\"");
    let silent = user.make("--docker", &[]);
    assert!(silent.code == Some(1) && silent.stderr.contains("no registry answers on http://127.0.0.9:"), "{silent:?}");
    assert_eq!(user.world.left(), Vec::<String>::new());
}

#[test]
fn a_cache_on_an_ipv6_address_is_asked_there() {
    use std::io::{Read, Write};
    let user = User::without_caches("six", "v1.9.6");
    let listener = std::net::TcpListener::bind(("::1", user.world.ports[0])).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    user.world.settings("[cluster]\naddress = \"::1\"");
    let dry = user.make("--qemu", &["--dry-run"]);
    let first = format!("--registry-mirror 'docker.io=http://[::1]:{}'", user.world.ports[0]);
    assert!(dry.code == Some(0) && dry.stdout.contains(&first), "{dry:?}");
    // The one that answers is not called silent; the next one is.
    let silent = user.make("--docker", &[]);
    let next = format!("k8s.gcr.io: no registry answers on http://[::1]:{}\n", user.world.ports[1]);
    assert!(silent.code == Some(1) && silent.stderr.contains(&next), "{silent:?}");
    assert!(!silent.stderr.contains("docker.io: no registry answers"), "{silent:?}");
}

#[test]
fn talosctl_is_told_of_the_engine_that_a_docker_context_names() {
    let mut user = User::without_caches("context", "v1.9.6");
    let folder = user.home.join("docker");
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let host = if host.is_empty() { "unix:///var/run/docker.sock".to_owned() } else { host };
    let sh = user.shell();
    let create = |name: &str, host: &str| {
        let at = format!("host={host}");
        let create = xshell::cmd!(sh, "docker --config {folder} context create {name} --docker {at}");
        create.quiet().ignore_stdout().ignore_stderr().run().unwrap();
    };
    create("here", &host);
    user.set("DOCKER_CONFIG", folder.as_str());
    user.set("DOCKER_HOST", "");
    user.set("DOCKER_CONTEXT", "here");
    let dry = user.make("--docker", &["--no-cache", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.stdout.contains(&format!(" DOCKER_HOST={host} ")), "{dry:?}");
}

#[test]
fn talos_home_is_read_from_1_12_on_as_talosctl_does() {
    let mut user = User::without_caches("home", "v1.11.6");
    user.set("TALOS_HOME", user.home.join("other").as_str());
    for (tag, fetches) in [("v1.11.6", false), ("v1.12.4", true)] {
        user.set("STANDIN_TALOSCTL_VERSION", tag);
        let dry = user.make("--qemu", &["--no-cache", "--dry-run"]);
        // The plugins are there in ~/.talos.
        assert!(dry.code == Some(0) && dry.stdout.contains("talosctl-cni-bundle") == fetches, "{tag}: {dry:?}");
    }
}

/// What a dry run of virtual machines would fetch, and its command line.
fn dry(user: &User, flags: &[&str]) -> (Vec<String>, String) {
    let run = user.make("--qemu", &[&["--no-cache", "--dry-run"], flags].concat());
    assert_eq!(run.code, Some(0), "{run:?}");
    let fetched = run.stdout.lines().filter_map(|line| line.strip_prefix("would fetch ")).map(str::to_owned).collect();
    (fetched, run.stdout.lines().find(|line| line.starts_with("would run ")).unwrap().to_owned())
}

#[test]
fn the_talos_behind_the_dashes_is_the_one_that_boots() {
    let mut user = User::without_caches("behind", "v1.11.6");
    let (fetched, command) = dry(&user, &["--talos-version", "v1.10.9", "--", "--talos-version=v1.9.6"]);
    assert!(fetched.len() == 2 && fetched[0].contains("/v1.9.6/vmlinuz-amd64 to "), "{fetched:?}");
    assert!(command.contains("/v1.9.6/vmlinuz-amd64 ") && command.contains("/installer:v1.9.6 "), "{command}");
    assert!(command.ends_with("--talos-version=v1.9.6)") && !command.contains("v1.10.9"), "{command}");
    let refused = user.make("--qemu", &["--no-cache", "--dry-run", "--", "--talos-version", "v1.9"]);
    assert!(refused.stderr.contains("-- --talos-version: \"v1.9\" names no release"), "{refused:?}");
    // Nothing of that version is fetched where the user has what boots.
    let (fetched, command) = dry(&user, &["--", "--talos-version", "v1.9", "--iso-path", "/dev/null"]);
    assert!(fetched.is_empty() && !command.contains("--install-image"), "{fetched:?} {command}");
    user.set("STANDIN_TALOSCTL_VERSION", "v1.12.4");
    let (fetched, _) = dry(&user, &["--talos-version", "v1.12.1", "--", "--talos-version", "v1.12.2"]);
    assert!(fetched[0].contains("/v1.12.2/metal-amd64.iso to "), "{fetched:?}");
}

#[test]
fn a_development_build_fetches_what_the_release_before_it_published() {
    let mut user = User::without_caches("build", "v1.11.0-alpha.1-12-gabcdef0-dirty");
    std::fs::remove_dir_all(user.home.join(".talos/cni")).unwrap();
    let (fetched, _) = dry(&user, &[]);
    for name in ["vmlinuz-amd64", "initramfs-amd64.xz", "talosctl-cni-bundle-amd64.tar.gz"] {
        assert!(fetched.iter().any(|item| item.contains(&format!("/v1.11.0-alpha.1/{name} to "))), "{fetched:?}");
    }
    user.set("STANDIN_TALOSCTL_VERSION", "v1.13.0-12-gabc");
    assert!(dry(&user, &[]).0.iter().all(|item| item.contains("/v1.13.0/")));
}

#[test]
fn the_architecture_behind_the_dashes_has_its_own_files_and_the_plugins_are_the_hosts() {
    let user = User::without_caches("arch", "v1.11.6");
    std::fs::remove_dir_all(user.home.join(".talos/cni")).unwrap();
    write_program(user.home.join("bin").as_std_path(), "qemu-system-aarch64", "#!/bin/sh\n");
    let firmware = user.home.join("firmware");
    std::fs::create_dir_all(&firmware).unwrap();
    std::fs::write(firmware.join("QEMU_EFI.fd"), "").unwrap();
    let search = format!("--extra-uefi-search-paths={firmware}");
    let (fetched, command) = dry(&user, &["--", "--arch", "arm64", &search]);
    for name in ["vmlinuz-arm64", "initramfs-arm64.xz", "talosctl-cni-bundle-amd64.tar.gz"] {
        assert!(fetched.iter().any(|item| item.contains(&format!("/{name} to "))), "{fetched:?}");
    }
    assert!(command.contains("/vmlinuz-arm64 --initrd-path "), "{command}");
    let other = user.make("--qemu", &["--no-cache", "--dry-run", "--", "--arch=riscv64"]);
    assert!(other.code == Some(1) && other.stderr.contains("fix: use amd64 or arm64"), "{other:?}");
}

#[test]
fn a_factory_behind_the_dashes_is_where_the_iso_comes_from_unless_it_wants_an_account() {
    let user = User::without_caches("factory", "v1.13.9");
    user.world.settings("[boot]\nfactory = \"http://127.0.0.1:1\"\n");
    let told = "https://factory.example";
    let (fetched, _) = dry(&user, &["--", "--image-factory-url", told]);
    assert!(fetched.len() == 1 && fetched[0].starts_with("https://factory.example/image/3765"), "{fetched:?}");
    for flags in
        [["--image-factory-auth=a:secret", "--cpus-workers=2"], ["--image-factory-url", "https://a:secret@f.example"]]
    {
        let run = user.make("--qemu", &[&["--no-cache", "--dry-run", "--"], &flags[..]].concat());
        assert!(run.code == Some(0) && !run.stdout.contains("would fetch"), "{run:?}");
        assert!(run.stderr.contains("the ISO is left to talosctl, since the factory wants an account"), "{run:?}");
        assert!(!format!("{run:?}").contains("secret"), "{run:?}");
    }
    let none = user.make("--qemu", &["--no-cache", "--dry-run", "--", "--image-factory-url", "factory.example"]);
    assert!(none.code == Some(1) && none.stderr.contains("is no address of a factory"), "{none:?}");
    let account = user.make("--qemu", &["--no-cache", "--dry-run", "--", "--image-factory-url", "a:secret@f.example"]);
    assert!(account.code == Some(1) && !format!("{account:?}").contains("secret"), "{account:?}");
}
