//! What becomes of a cluster: made twice, half-made, interrupted, another one, and what the caches did for it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;
#[path = "support/user.rs"]
mod user;

use std::time::{Duration, Instant};

use support::{Image, write_program};
use user::{User, values};
use xshell::cmd;

#[test]
fn the_same_again_is_left_alone_and_another_is_an_error() {
    let user = User::new("again", "v1.12.4");
    let made = user.make("--docker", &["--workers", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let creates = user.calls(&["cluster", "create"]).len();
    let again = user.make("--docker", &["--workers", "0"]);
    assert!(again.code == Some(0) && again.stderr.contains("is there already"), "{again:?}");
    let differs = user.make("--docker", &["--workers", "0", "--kubernetes-version", "1.30.0"]);
    let one = user.make("--docker", &["--workers", "1"]);
    assert!(one.code == Some(1) && one.stderr.contains("--workers is 0, wanted 1"), "{one:?}");
    assert!(differs.code == Some(1) && differs.stderr.contains("--kubernetes-version is the default, wanted 1.30.0"));
    let other = user.make("--qemu", &["--workers", "0"]);
    assert!(other.code == Some(1) && other.stderr.contains("it is there, made of docker"), "{other:?}");
    assert_eq!(user.calls(&["cluster", "create"]).len(), creates);

    let name = user.cluster().0;
    let status = user.xtask(&["--json", "cluster-status", "--name", &name]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((status.code, json["state"].as_str()), (Some(0), Some("whole")), "{status:?}");
    assert_eq!(json["nodes"][0]["up"], true);

    // A node that was stopped by hand makes it less than whole.
    let node = format!("{name}-controlplane-1");
    cmd!(user.world.sh, "docker stop --time 0 {node}").quiet().ignore_stdout().run().unwrap();
    let status = user.xtask(&["cluster-status", "--name", &name]);
    assert!(status.code == Some(3) && status.stdout.contains(&format!("not running: {node}")), "{status:?}");
    let lame = user.make("--docker", &["--workers", "0"]);
    assert!(lame.code == Some(1) && lame.stderr.contains("--recreate removes that"), "{lame:?}");
    assert_eq!(user.make("--docker", &["--workers", "0", "--recreate"]).code, Some(0));
    assert_eq!(user.down().code, Some(0));
    assert_eq!(user.down().code, Some(0));
    assert_eq!(user.xtask(&["cluster-status", "--name", &name]).code, Some(3));
}

#[test]
fn what_is_half_made_is_recognised_and_goes_by_its_labels() {
    for (release, fail) in [("v1.8.4", "half"), ("v1.11.6", "late"), ("v1.12.4", "half"), ("v1.12.4", "late")] {
        let mut user = User::new(&format!("half{}{fail}", release.replace('.', "")), release);
        user.set("STANDIN_FAIL", fail);
        let failed = user.make("--docker", &["--workers", "0"]);
        assert!(failed.code == Some(1) && failed.stderr.contains("cluster-down --name"), "{failed:?}");
        user.unset("STANDIN_FAIL");
        let again = user.make("--docker", &["--workers", "0"]);
        assert!(again.stderr.contains("its creation was not finished; containers "), "{release} {fail}: {again:?}");
        let over = user.make("--docker", &["--workers", "0", "--recreate"]);
        assert_eq!(over.code, Some(0), "{release} {fail}: {over:?}");
        // Without its record it is known by its labels.
        std::fs::remove_dir_all(user.state()).unwrap();
        let known = user.make("--docker", &["--workers", "0"]);
        assert!(known.code == Some(1) && known.stderr.contains("not whole: containers "), "{known:?}");
        assert_eq!(user.down().code, Some(0));
        assert_eq!(user.objects(), "");
    }
}

#[test]
fn a_cluster_goes_without_a_talosctl_that_can_be_asked() {
    let user = User::without_caches("unasked", "v1.9.6");
    assert_eq!(user.make("--docker", &["--no-cache", "--workers", "0"]).code, Some(0));
    let program = user.home.join("bin/talosctl");
    std::fs::remove_file(&program).unwrap();
    write_program(user.home.join("bin").as_std_path(), "talosctl", "#!/bin/sh\necho 'Tag: none'\n");
    let down = user.down();
    assert!(down.code == Some(0) && down.stderr.contains("goes without talosctl"), "{down:?}");
    assert_eq!(user.objects(), "");
}

#[test]
fn what_has_no_record_here_goes_only_when_it_is_named() {
    let mut user = User::without_caches("unnamed", "v1.8.4");
    // The default name is talosctl's own as well, so this uses none that anybody else could have.
    let name = user.cluster().0;
    let (label, network) = (format!("talos.cluster.name={name}"), name.clone());
    let sh = &user.world.sh;
    cmd!(sh, "docker network create --label talos.owned=true --label {label} {network}").quiet().read().unwrap();
    let named = user.make("--docker", &["--no-cache"]);
    assert!(named.code == Some(1) && named.stderr.contains("not whole: network "), "{named:?}");
    user.set("STANDIN_RECORD", user.home.join("record").as_str());
    assert_eq!(user.down().code, Some(0));
    assert_eq!(user.objects(), "");
}

/// A docker cluster of this user's name that somebody makes past this tool, under another home.
fn somebody_elses(user: &User, release: &str, cidr: &str) {
    let home = user.home.join("other");
    std::fs::create_dir_all(&home).unwrap();
    let (name, sh) = (user.cluster().0, user.shell());
    sh.set_var("HOME", &home);
    sh.set_var("STANDIN_TALOSCTL_VERSION", release);
    let state = home.join("clusters");
    let args = ["cluster", "create", "--provisioner", "docker", "--name", &name, "--cidr", cidr, "--workers", "0"];
    cmd!(sh, "talosctl {args...} --state {state}").quiet().ignore_stdout().ignore_stderr().run().unwrap();
}

#[test]
fn a_cluster_of_somebody_else_outlives_ours_of_the_same_name() {
    // One of virtual machines has nothing on the engine.
    let mut user = User::without_caches("vmname", "v1.8.4");
    user.world.settings("[boot]\nrelease = \"http://127.0.0.1:1\"\nfactory = \"http://127.0.0.1:1\"\n");
    let (name, cidr) = user.cluster();
    let made = user.make("--qemu", &["--no-cache", "--", "--iso-path", "/dev/null"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    somebody_elses(&user, "v1.8.4", &cidr);
    let theirs = user.objects();
    let down = user.down();
    assert_eq!((down.code, user.objects()), (Some(0), theirs.clone()), "{down:?}");
    let refused = user.make("--qemu", &["--no-cache", "--", "--iso-path", "/dev/null"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("it is there, made of docker"), "{refused:?}");

    // Of one that was finished here, and then removed by hand, only what is on record may go.
    let sh = xshell::Shell::new().unwrap();
    let by_hand = || {
        let node = format!("{name}-controlplane-1");
        cmd!(sh, "docker rm --force --volumes {node}").quiet().ignore_stdout().run().unwrap();
        cmd!(sh, "docker network rm {name}").quiet().ignore_stdout().run().unwrap();
    };
    by_hand();
    for (fail, code) in [(None, 0), (Some("half"), 1)] {
        fail.iter().for_each(|fail| user.set("STANDIN_FAIL", fail));
        let made = user.make("--docker", &["--no-cache", "--workers", "0"]);
        assert_eq!(made.code, Some(code), "{made:?}");
        user.unset("STANDIN_FAIL");
        by_hand();
        somebody_elses(&user, "v1.8.4", &cidr);
        let theirs = user.objects();
        let recreate = user.make("--docker", &["--no-cache", "--workers", "0", "--recreate"]);
        assert!(recreate.code == Some(1) && recreate.stderr.contains("was made without this tool"), "{recreate:?}");
        let down = user.down();
        assert_eq!((down.code, user.objects()), (Some(0), theirs), "{fail:?}: {down:?}");
        assert!(!user.state().exists());
        by_hand();
    }
}

#[test]
fn a_context_that_was_there_before_stays_wherever_it_leads() {
    let user = User::without_caches("oldcontext", "v1.9.6");
    let (name, cidr) = user.cluster();
    let address = cidr.replace(".0/24", ".2");
    let before = format!("context: {name}\ncontexts:\n    {name}:\n        endpoints:\n            - {address}\n");
    std::fs::create_dir_all(user.home.join(".talos")).unwrap();
    std::fs::write(user.home.join(".talos/config"), before).unwrap();
    let made = user.make("--docker", &["--no-cache", "--workers", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let dry = user.xtask(&["cluster-down", "--name", &name, "--dry-run"]);
    assert!(dry.stdout.contains(&format!("would take context {name}-1 out")), "{dry:?}");
    assert_eq!(user.down().code, Some(0));
    let after = std::fs::read_to_string(user.home.join(".talos/config")).unwrap();
    assert!(after.contains(&format!("    {name}:")) && !after.contains(&format!("{name}-1")), "{after}");
}

#[test]
fn virtual_machines_that_are_half_made_go_with_their_processes_and_bridge_and_nothing_else() {
    let mut user = User::without_caches("vm", "v1.12.4");
    user.world.settings("[boot]\nrelease = \"http://127.0.0.1:1\"\nfactory = \"http://127.0.0.1:1\"\n");
    user.set("STANDIN_FAIL", "half");
    let failed = user.make("--qemu", &["--no-cache", "--", "--presets", "pxe"]);
    assert!(failed.code == Some(1) && failed.stderr.contains("talosctl ended with"), "{failed:?}");
    user.unset("STANDIN_FAIL");
    let name = user.cluster().0;
    let state = user.state().join("s").join(&name);
    // A machine that runs, one whose number somebody else has by now, and the cluster's bridge.
    let qemu = user.home.join("bin/qemu-system-fake");
    std::fs::copy("/bin/sleep", &qemu).unwrap();
    let sh = &xshell::Shell::new().unwrap();
    let start = "\"$1\" 300 >/dev/null 2>&1 & echo $!";
    let own = cmd!(sh, "sh -c {start} sh {qemu}").quiet().read().unwrap();
    let other = cmd!(sh, "sh -c {start} sh sleep").quiet().read().unwrap();
    std::fs::write(state.join(format!("{name}-controlplane-1.pid")), &own).unwrap();
    std::fs::write(state.join(format!("{name}-worker-1.pid")), &other).unwrap();
    let id = support::digest(name.as_bytes());
    let bridge = format!("talos{}", &id["sha256:".len()..][..8]);
    cmd!(sh, "ip link add {bridge} type bridge").quiet().run().unwrap();
    let status = user.xtask(&["cluster-status", "--name", &name]);
    assert!(status.stdout.contains(&format!("{name}-worker-1 (not running)")), "{status:?}");
    let dry = user.xtask(&["cluster-down", "--name", &name, "--dry-run"]);
    assert!(dry.stdout.contains(&format!("would remove bridge {bridge}")), "{dry:?}");
    let down = user.down();
    // One that has ended and that nobody waits for has no command line any more.
    let alive = |pid: &str| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let (own_lives, other_lives) = (alive(&own), alive(&other));
    let _ = cmd!(sh, "kill {other}").quiet().run();
    assert_eq!(down.code, Some(0), "{down:?}");
    assert!(!own_lives && other_lives, "its own: {own_lives}, another's: {other_lives}");
    assert!(!std::path::Path::new("/sys/class/net").join(&bridge).exists());
    assert!(!user.state().exists());

    // A bridge that was there before is not its own.
    cmd!(sh, "ip link add {bridge} type bridge").quiet().run().unwrap();
    user.set("STANDIN_FAIL", "half");
    user.make("--qemu", &["--no-cache", "--", "--presets", "pxe"]);
    let down = user.down();
    let stays = std::path::Path::new("/sys/class/net").join(&bridge).exists();
    cmd!(sh, "ip link delete {bridge}").quiet().run().unwrap();
    assert!(down.code == Some(0) && stays, "{down:?}");
}

#[test]
fn the_context_that_was_in_use_is_in_use_again() {
    let user = User::without_caches("context", "v1.11.6");
    let before = "context: work\ncontexts:\n    prod:\n        endpoints:\n            - 192.0.2.1\n    work:\n        endpoints:\n            - 192.0.2.2\n";
    std::fs::create_dir_all(user.home.join(".talos")).unwrap();
    std::fs::write(user.home.join(".talos/config"), before).unwrap();
    let made = user.make("--docker", &["--no-cache", "--workers", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(user.down().code, Some(0));
    let after = std::fs::read_to_string(user.home.join(".talos/config")).unwrap();
    assert!(after.contains("context: work\n") && !after.contains(&user.cluster().0), "{after}");
}

#[test]
fn relative_paths_lead_to_the_users_folder_and_outlive_the_cluster() {
    let mut user = User::without_caches("paths", "v1.12.4");
    let folder = user.home.join("project");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("patch.yaml"), "machine: {}\n").unwrap();
    user.set("KUBECONFIG", "kube/a:/kube/b");
    let (name, cidr) = user.cluster();
    let run = |user: &User, args: &[&str]| {
        let sh = user.shell();
        sh.change_dir(&folder);
        support::xtask(&sh, &[&["--config", user.world.config().to_str().unwrap()], args].concat())
    };
    let make = ["cluster", "--docker", "--no-cache", "--workers", "0", "--name", &name, "--cidr", &cidr];
    let flags = ["--", "--config-patch", "@patch.yaml", "--config-patch=./patch.yaml"];
    let destination = ["--talosconfig-destination", "own/config"];
    let made = run(&user, &[&make[..], &flags, &destination].concat());
    assert_eq!(made.code, Some(0), "{made:?}");
    let file = folder.join("patch.yaml");
    let call = user.calls(&["cluster", "create"]).pop().unwrap();
    assert_eq!(values(&call, "--config-patch"), [format!("@{file}")]);
    assert!(made.stderr.contains(&format!(" --config-patch @{file} --config-patch={file} ")), "{made:?}");
    assert_eq!(call["env"]["KUBECONFIG"], format!("{folder}/kube/a:/kube/b"));
    let record = std::fs::read_to_string(user.state().join("cluster.json")).unwrap();
    assert!(record.contains(&format!("--config-patch={file}")), "{record}");
    assert!(folder.join("own/config").exists());
    assert_eq!(run(&user, &["cluster-down", "--name", &name]).code, Some(0));
    assert!(folder.join("own/config").exists());

    // The same of the environment, whose file is found again when the cluster goes.
    user.set("TALOSCONFIG", "env/config");
    let made = run(&user, &make);
    assert_eq!(made.code, Some(0), "{made:?}");
    let config = || std::fs::read_to_string(folder.join("env/config")).unwrap();
    assert!(config().contains(&name), "{}", config());
    let down = run(&user, &["cluster-down", "--name", &name]);
    assert!(down.code == Some(0) && down.stderr.contains(&format!("TALOSCONFIG={folder}/env/config")), "{down:?}");
    assert!(!config().contains(&name), "{}", config());
}

#[test]
fn a_node_that_is_gone_makes_it_less_than_whole_and_two_runs_do_not_meet() {
    let mut user = User::without_caches("gone", "v1.9.6");
    let made = user.make("--docker", &["--no-cache", "--workers", "1"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let name = user.cluster().0;
    let node = format!("{name}-worker-1");
    cmd!(user.world.sh, "docker rm --force --volumes {node}").quiet().ignore_stdout().run().unwrap();
    let status = user.xtask(&["cluster-status", "--name", &name]);
    assert!(status.code == Some(3) && status.stdout.contains(&format!("gone: {node}")), "{status:?}");
    // While one run removes and makes it, another is told so.
    user.set("STANDIN_SLEEP", "5");
    let (_, cidr) = user.cluster();
    let mut child = user.spawn(&["cluster", "--docker", "--no-cache", "--recreate", "--name", &name, "--cidr", &cidr]);
    let until = Instant::now() + Duration::from_secs(30);
    while user.calls(&["cluster", "create"]).len() < 2 {
        assert!(Instant::now() < until, "the second create never began");
        std::thread::sleep(Duration::from_millis(50));
    }
    let other = user.down();
    assert!(other.code == Some(1) && other.stderr.contains("another run is making or removing it"), "{other:?}");
    assert!(child.wait().unwrap().success());
    assert_eq!(user.down().code, Some(0));
}

#[test]
fn an_interrupted_create_says_what_is_left_and_how_to_remove_it() {
    let mut user = User::new("int", "v1.12.4");
    user.set("STANDIN_SLEEP", "30");
    let (name, cidr) = user.cluster();
    let child = user.spawn(&["cluster", "--docker", "--name", &name, "--cidr", &cidr, "--workers", "0"]);
    let until = Instant::now() + Duration::from_secs(30);
    while !user.state().join("s").join(&name).join("state.yaml").exists() {
        assert!(Instant::now() < until, "the cluster was never made");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = child.id().to_string();
    cmd!(user.world.sh, "kill -INT {pid}").quiet().run().unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("Signal received, aborting"), "talosctl got it: {said}");
    assert!(said.contains(&format!("`cargo xtask cluster-down --name {name}` removes it")), "{said}");
    user.unset("STANDIN_SLEEP");
    assert_eq!(user.down().code, Some(0));
    assert_eq!(user.objects(), "");
}

#[test]
fn one_cluster_goes_and_the_other_stays_with_its_context() {
    let user = User::new("two", "v1.11.6");
    assert_eq!(user.make("--docker", &["--workers", "0"]).code, Some(0));
    let (name, cidr) = user.cluster();
    let other = format!("{name}-b");
    let wider = cidr.replace("10.79.", "10.80.");
    let made = user.xtask(&["cluster", "--docker", "--name", &other, "--cidr", &wider, "--workers", "0"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    assert_eq!(user.down().code, Some(0));
    let status = user.xtask(&["cluster-status", "--name", &other]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let contexts = std::fs::read_to_string(user.home.join(".talos/config")).unwrap();
    assert!(contexts.contains(&format!("{other}:")) && !contexts.contains(&format!("{name}:")), "{contexts}");
    assert_eq!(user.xtask(&["cluster-down", "--name", &other]).code, Some(0));
    assert_eq!(user.world.xtask(&["cache-status"]).code, Some(0), "the caches are as they were");
}

#[test]
fn a_cluster_that_talosctl_made_by_itself_is_not_touched() {
    let user = User::without_caches("alone", "v1.12.4");
    let name = user.cluster().0;
    std::fs::create_dir_all(user.home.join(".talos/clusters").join(&name)).unwrap();
    for run in [user.make("--docker", &["--no-cache", "--recreate"]), user.down()] {
        assert!(run.code == Some(1) && run.stderr.contains("made without this tool"), "{run:?}");
    }
    assert!(user.home.join(".talos/clusters").join(&name).exists());
    assert!(user.calls(&["cluster"]).is_empty());
}

#[test]
fn the_end_says_what_the_caches_did_for_this_boot() {
    let user = User::new("boot", "v1.9.6");
    let image = Image::push(user.world.upstream_port, "library/one");
    image.pull(user.world.ports[0]).unwrap();
    support::settled(&user.world, "docker.io");
    // A node that boots asks for a manifest and a blob.
    let [(manifest, accept, bytes), (blob, _, content)] = image.manifest_and_blob();
    let base = format!("http://127.0.0.1:{}/v2/library/one", user.world.ports[0]);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in 'cluster create'*)\ncurl -sf -o /dev/null -H 'Accept: {accept}' {base}/{manifest}\n\
         curl -sf -o /dev/null {base}/{blob} ;;\nesac\nexec {} \"$@\"\n",
        user.home.join("bin/real")
    );
    std::fs::rename(user.home.join("bin/talosctl"), user.home.join("bin/real")).unwrap();
    write_program(user.home.join("bin").as_std_path(), "talosctl", &script);
    let made = user.xtask(
        &{
            let (name, cidr) = user.cluster();
            let args = ["--json", "cluster", "--docker", "--name", &name, "--cidr", &cidr, "--workers", "0"];
            args.map(str::to_owned)
        }
        .each_ref()
        .map(String::as_str),
    );
    let json: serde_json::Value = serde_json::from_str(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    let [host, traffic] = [&json["traffic"][0][0], &json["traffic"][0][1]];
    assert_eq!((host.as_str(), traffic["hits"].as_u64()), (Some("docker.io"), Some(2)), "{json}");
    assert_eq!(traffic["bytes_from_cache"].as_u64(), Some((bytes.len() + content.len()) as u64));
    assert_eq!(traffic["bytes_from_upstream"], 0);
    let text = user.make("--docker", &["--workers", "0", "--recreate"]).stdout;
    assert!(text.contains("no request: k8s.gcr.io, quay.io, gcr.io, ghcr.io, registry.k8s.io, factory.talos.dev"));
    assert_eq!(user.down().code, Some(0));
}

#[test]
fn the_image_of_the_nodes_comes_through_its_proxy() {
    let user = User::new("image", "v1.9.6");
    let repository = format!("{}talos:v1.9.6", user.world.prefix);
    let (upstream, reference) =
        (format!("127.0.0.1:{}/{repository}", user.world.upstream_port), format!("ghcr.io/{repository}"));
    let sh = &user.world.sh;
    cmd!(sh, "docker tag registry:2 {upstream}").quiet().run().unwrap();
    cmd!(sh, "docker push --quiet {upstream}").quiet().ignore_stdout().run().unwrap();
    cmd!(sh, "docker rmi {upstream}").quiet().ignore_stdout().run().unwrap();
    let made = user.make("--docker", &["--workers", "0", "--", "--image", &reference]);
    assert!(made.stderr.contains(&format!("image {reference}: pulled through its proxy")), "{made:?}");
    let image = cmd!(sh, "docker image ls --quiet {reference}").quiet().read().unwrap();
    assert_eq!(user.down().code, Some(0));
    cmd!(sh, "docker rmi {reference}").quiet().ignore_stdout().run().unwrap();
    assert!(made.code == Some(0) && !image.is_empty(), "{made:?}");
}

#[test]
fn a_cache_that_is_not_healthy_stops_it_unless_told_otherwise() {
    let user = User::new("ill", "v1.9.6");
    user.world.settings("offline = false");
    user.world.upstream("stop");
    let names = support::HOSTS.map(|host| user.world.name(host));
    let ill = &names[..1];
    cmd!(user.world.sh, "docker restart --time 0 {ill...}").quiet().ignore_stdout().run().unwrap();
    support::until(&user.world, "docker.io", "restarting");
    let refused = user.make("--docker", &["--workers", "0"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--allow-unhealthy"), "{refused:?}");
    assert!(user.calls(&["cluster"]).is_empty());
    let made = user.make("--docker", &["--workers", "0", "--allow-unhealthy"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    let call = user.calls(&["cluster", "create"]).pop().unwrap();
    assert_eq!(values(&call, "--registry-mirror"), user.mirrors(&user.world.gateway)[1..]);
    // The same again is the same cluster, and says what it was made without; so does a dry run.
    let again = user.make("--docker", &["--workers", "0", "--allow-unhealthy"]);
    assert!(again.code == Some(0) && again.stderr.contains("it was made without docker.io"), "{again:?}");
    let (_, cidr) = user.cluster();
    let other = cidr.replace("10.79.", "10.81.");
    let dry = ["cluster", "--docker", "--name", "dry", "--cidr", &other, "--allow-unhealthy", "--dry-run"];
    let dry = user.xtask(&dry);
    assert!(dry.code == Some(0) && dry.stdout.contains("would run "), "{dry:?}");
    assert_eq!(user.down().code, Some(0));
    let without = user.make("--docker", &["--workers", "0", "--no-cache"]);
    assert_eq!(without.code, Some(0), "{without:?}");
    let call = user.calls(&["cluster", "create"]).pop().unwrap();
    assert_eq!(values(&call, "--registry-mirror"), Vec::<String>::new());
    assert_eq!(user.down().code, Some(0));
}

#[test]
fn a_task_that_is_told_to_end_at_a_terminal_tells_talosctl() {
    let mut user = User::without_caches("term", "v1.12.4");
    user.set("STANDIN_SLEEP", "60");
    let (name, cidr) = user.cluster();
    let (sh, log) = (user.shell(), user.home.join("log"));
    let config = user.world.config();
    let run = format!(
        "exec {} --config {} cluster --docker --no-cache --workers 0 --name {name} --cidr {cidr}",
        support::XTASK,
        config.display()
    );
    // `script` gives it a terminal of its own.
    let start = "script --quiet --return --command \"$1\" \"$2\" >/dev/null 2>&1 & echo $!";
    let script = cmd!(sh, "sh -c {start} sh {run} {log}").quiet().read().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !user.state().join("s").join(&name).join("state.yaml").exists() {
        assert!(Instant::now() < until, "the cluster was never made");
        std::thread::sleep(Duration::from_millis(50));
    }
    let children = std::fs::read_to_string(format!("/proc/{script}/task/{script}/children")).unwrap();
    let task = children.split_whitespace().next().unwrap().to_owned();
    cmd!(sh, "kill -TERM {task}").quiet().run().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    // Its terminal ends once all that it said is in the log.
    while std::fs::read(format!("/proc/{script}/cmdline")).is_ok_and(|line| !line.is_empty()) {
        assert!(Instant::now() < until, "it goes on");
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("interrupted: left is"), "{said}");
    user.unset("STANDIN_SLEEP");
    assert_eq!(user.down().code, Some(0));
    assert_eq!(user.objects(), "");
}
