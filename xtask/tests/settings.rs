//! What the settings and flags of the caches do, on the engine.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::{HOSTS, Image, World, XTASK};
use xshell::cmd;

fn mode(world: &World) -> String {
    let status = world.xtask(&["--json", "cache-status", "docker.io"]);
    let json: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    json["proxies"][0]["mode"].as_str().unwrap().to_owned()
}

#[test]
fn bound_to_this_host_the_proxies_answer_on_loopback_and_the_docker_bridge_alone() {
    let world = World::new("local");
    let image = Image::push(world.upstream_port, "library/one");
    world.settings("bind = \"local\"");
    let up = world.xtask(&["cache-up"]);
    assert_eq!(up.code, Some(0), "{up:?}");
    for (host, port) in HOSTS.iter().zip(&world.ports) {
        image.pull(*port).unwrap();
        image.pull_from(&format!("{}:{port}", world.gateway)).unwrap();
        let name = world.name(host);
        let published = cmd!(world.sh, "docker port {name}").quiet().read().unwrap();
        let mut at: Vec<&str> = published.lines().map(|line| line.split("-> ").last().unwrap()).collect();
        at.sort_unstable();
        assert_eq!(at, [format!("127.0.0.1:{port}"), format!("{}:{port}", world.gateway)]);
    }
    let ages = world.ages();
    assert_eq!(world.xtask(&["cache-up"]).code, Some(0));
    assert_eq!(world.ages(), ages, "a second run touches nothing");
}

#[test]
fn offline_is_what_was_asked_for() {
    let world = World::new("offline");
    let image = Image::push(world.upstream_port, "library/one");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
    support::settled(&world, "docker.io");

    // By the flag, although the upstream is well; and back without it.
    let flag = world.xtask(&["cache-up", "--offline", "docker.io"]);
    assert!(flag.code == Some(0) && flag.stdout.contains("offline"), "{flag:?}");
    assert_eq!(mode(&world), "offline");
    image.pull(world.ports[0]).unwrap();
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    assert_eq!(mode(&world), "proxy");

    // By the settings, until they say otherwise.
    world.settings("offline = true");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    assert_eq!(mode(&world), "offline");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).stderr, "");
    world.settings("offline = false");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    assert_eq!(mode(&world), "proxy");

    // Where offline is an error, it is one with its cause, and the cache is still there.
    world.upstream("stop");
    let name = world.name("docker.io");
    cmd!(world.sh, "docker restart --time 0 {name}").quiet().ignore_stdout().run().unwrap();
    support::until(&world, "docker.io", "restarting");
    let error = world.xtask(&["cache-up", "docker.io"]);
    assert!(error.code == Some(1) && error.stderr.contains("is out of reach: dial tcp"), "{error:?}");
    world.settings("");
    assert_eq!(world.xtask(&["cache-up", "docker.io"]).code, Some(0));
    image.pull(world.ports[0]).unwrap();
}

#[test]
fn a_clean_up_leaves_what_the_settings_in_force_do_not_have_unless_all_is_asked_for() {
    let world = World::new("scope");
    assert_eq!(world.xtask(&["cache-up", "docker.io", "quay.io"]).code, Some(0));
    let text = std::fs::read_to_string(world.config()).unwrap();
    let quay = "[mirrors.\"quay.io\"]\n";
    std::fs::write(world.config(), text.replace(quay, &format!("{quay}enabled = false\n"))).unwrap();
    let clean = world.xtask(&["cache-clean"]);
    let name = world.name("quay.io");
    let word = format!("left, since the settings in force have no such mirror: {name} (--all removes them too)");
    assert!(clean.code == Some(0) && clean.stderr.contains(&word), "{clean:?}");
    assert_eq!(world.left(), [name.clone(), name]);
    assert_eq!(world.xtask(&["cache-clean", "--all"]).code, Some(0));
    assert_eq!(world.left(), Vec::<String>::new());
}

#[test]
fn a_log_that_cannot_be_read_is_no_success() {
    let world = World::new("nolog");
    let (name, port) = (world.name("docker.io"), format!("{}:5000", world.ports[0]));
    let env = format!("REGISTRY_PROXY_REMOTEURL={}", world.upstream_url());
    cmd!(world.sh, "docker run -d -p {port} -e {env} --restart always --log-driver none --name {name} registry:2")
        .quiet()
        .ignore_stdout()
        .run()
        .unwrap();
    let logs = world.xtask(&["cache-logs", "docker.io"]);
    assert!(logs.code == Some(1) && logs.stderr.contains("its log cannot be read"), "{logs:?}");
}

#[test]
fn following_the_logs_ends_with_ctrl_c() {
    let world = World::new("follow");
    assert_eq!(world.xtask(&["cache-up", "docker.io", "quay.io"]).code, Some(0));
    let (code, said) = support::signalled(&world, &["cache-logs", "--follow"], "INT", &world.name("docker.io"));
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(said, "", "it is the way to end it");
}

#[test]
fn what_would_be_done_is_one_value_for_a_program() {
    let world = World::new("json");
    let json = |args: &[&str]| -> serde_json::Value {
        let run = world.xtask(args);
        serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
    };
    let plan = json(&["--json", "--dry-run", "cache-up", "docker.io"]);
    assert_eq!(plan["steps"][0]["action"], "create");
    assert_eq!(json(&["--json", "cache-up", "docker.io"])["proxies"][0]["healthy"], true);
    let dry = json(&["--json", "--dry-run", "cache-clean"]);
    assert_eq!(dry["would_run"].as_array().unwrap().len(), 2);
    assert_eq!(json(&["--json", "cache-down"])["stopped"][0], world.name("docker.io"));
    let clean = json(&["--json", "cache-clean"]);
    assert_eq!(clean["removed"]["volumes"][0], world.name("docker.io"));
    assert_eq!(json(&["--json", "cache-clean"])["removed"]["volumes"], serde_json::json!([]));
}

#[test]
fn the_logs_are_an_object_a_line_for_a_program() {
    let world = World::new("logs-json");
    let objects = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    // Nothing is there yet: one error, on one line.
    let none = world.xtask(&["--json", "cache-logs"]);
    assert!(none.code == Some(1) && objects(&none.stdout)[0]["errors"][0]["subject"] == "cache-logs", "{none:?}");
    assert_eq!(world.xtask(&["cache-up", "docker.io", "quay.io"]).code, Some(0));
    let logs = objects(&world.xtask(&["--json", "cache-logs", "--tail", "5"]).stdout);
    for host in ["docker.io", "quay.io"] {
        let of_host: Vec<_> = logs.iter().filter(|line| line["host"] == host).collect();
        assert!(
            !of_host.is_empty() && of_host.iter().all(|line| !line["line"].as_str().unwrap().is_empty()),
            "{logs:?}"
        );
    }
    // A reader sees each as it comes, and Ctrl-C adds nothing.
    let (config, sh) = (world.config(), &world.sh);
    let followed = cmd!(sh, "timeout --signal INT 3 {XTASK} --config {config} --json cache-logs --follow");
    let followed = followed.quiet().ignore_status().output().unwrap();
    let lines = objects(&String::from_utf8(followed.stdout).unwrap());
    assert!(!lines.is_empty() && lines.iter().all(|line| line["host"].is_string()), "{lines:?}");
    assert_eq!(String::from_utf8(followed.stderr).unwrap(), "");

    // The answer of a task that says no is an answer, and no error is added to it.
    assert_eq!(world.xtask(&["cache-down"]).code, Some(0));
    let status = world.xtask(&["--json", "cache-status"]);
    let value: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert!(status.code == Some(3) && value["proxies"].is_array() && value.get("errors").is_none(), "{status:?}");
}

/// The settings of two mirrors with these upstreams.
fn upstreams(world: &World, bind: &str, of: [&str; 2]) {
    let table = |n: usize| format!("[mirrors.\"{}\"]\nport = {}\nupstream = \"{}\"\n", HOSTS[n], world.ports[n], of[n]);
    let text = format!("prefix = \"{}\"\n{bind}\n{}{}", world.prefix, table(0), table(1));
    std::fs::write(world.config(), text).unwrap();
}

#[test]
fn an_upstream_that_leads_back_to_a_proxy_is_refused_and_a_chain_works() {
    let world = World::new("cycle");
    let image = Image::push(world.upstream_port, "library/one");
    let [first, second] = [0, 1].map(|n: usize| format!("http://{}:{}", world.gateway, world.ports[n]));
    let itself = "is this proxy itself\n  fix: set `upstream` in";
    for (of, part) in
        [([&*first, &world.upstream_url()], itself), ([&second, &first], "leads back to a proxy, by k8s.gcr.io")]
    {
        for bind in ["", "bind = \"local\""] {
            upstreams(&world, bind, of);
            let run = world.xtask(&["cache-up", "docker.io"]);
            assert!(run.code == Some(1) && run.stderr.contains(part), "{run:?}");
        }
        assert_eq!(world.left(), Vec::<String>::new());
    }
    // The same port on an address where no proxy is published is somebody else's.
    upstreams(&world, "bind = \"127.0.0.1\"", [&first, &world.upstream_url()]);
    let run = world.xtask(&["cache-up", "--dry-run", "docker.io"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    upstreams(&world, "", [&second, &world.upstream_url()]);
    for host in [HOSTS[1], HOSTS[0]] {
        let run = world.xtask(&["cache-up", host]);
        assert_eq!(run.code, Some(0), "{run:?}");
    }
    image.pull(world.ports[0]).unwrap();
}

#[test]
fn a_broadcast_address_of_this_host_is_nothing_to_bind_to() {
    let world = World::new("broadcast");
    let format = "{{(index .IPAM.Config 0).Subnet}}";
    let subnet = cmd!(world.sh, "docker network inspect --format {format} bridge").quiet().read().unwrap();
    let broadcast = subnet.parse::<ipnet::Ipv4Net>().unwrap().broadcast();
    world.settings(&format!("bind = \"{broadcast}\""));
    let run = world.xtask(&["cache-up", "docker.io"]);
    let problem =
        format!("{broadcast} is the broadcast address of a network of this host; no client can connect to it\n");
    assert!(run.code == Some(1) && run.stderr.contains(&problem), "{run:?}");
    assert_eq!(world.left(), Vec::<String>::new());
}
