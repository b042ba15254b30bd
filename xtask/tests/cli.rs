//! The built program from outside, without an engine: what it prints and how it ends.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use support::{Run, write_program, xtask};
use xshell::Shell;

fn run(args: &[&str], vars: &[(&str, &str)]) -> Run {
    let sh = Shell::new().unwrap();
    for (name, value) in vars {
        sh.set_var(name, value);
    }
    xtask(&sh, args)
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    let run = run(&["cache-up", "--nonsense"], &[]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--nonsense"), "{run:?}");
}

#[test]
fn a_host_that_is_not_configured_names_those_that_are() {
    let run = run(&["--color", "never", "cache-status", "docker.example"], &[]);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.starts_with("error: no mirror is configured for \"docker.example\"\nfix: name one of docker.io, "),
        "{run:?}"
    );
}

#[test]
fn a_broken_file_of_settings_names_file_line_and_fix() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let file = dir.path().join("cache.toml");
    std::fs::write(&file, "preset = \"guide\"\n[mirrors.\"docker.io\"]\nport = 5001\n").unwrap();
    let run = run(&["--config", file.to_str().unwrap(), "config"], &[]);
    assert_eq!(run.code, Some(2));
    let expected = format!(
        "error: {}:3: docker.io and k8s.gcr.io are both on port 5001\nfix: give one of them another port\n",
        file.display()
    );
    assert_eq!(run.stderr, expected);
}

#[test]
fn no_docker_on_path_says_how_to_get_it() {
    let run = run(&["cache-up"], &[("PATH", "/nonexistent")]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.starts_with("error: docker is not on PATH\nfix: cargo xtask onboard"), "{run:?}");
}

#[test]
fn an_engine_that_is_down_is_never_nothing_there() {
    for task in ["cache-up", "cache-down", "cache-clean", "cache-status", "cache-logs"] {
        let run = run(&[task], &[("DOCKER_HOST", "unix:///nonexistent.sock")]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains("fix: start the engine"), "{run:?}");
        assert_eq!(run.stdout, "");
    }
}

#[test]
fn an_engine_older_than_18_03_is_refused_before_anything_is_created() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let asked = dir.path().join("asked");
    let script = format!(
        "#!/bin/sh\necho \"$*\" >>{}\ncase \"$1 $2\" in\n'container inspect') echo '[]'; exit 1 ;;\n'version --format') echo '1.35 17.12.1-ce' ;;\nesac\n",
        asked.display()
    );
    write_program(dir.path(), "docker", &script);
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let file = dir.path().join("cache.toml");
    std::fs::write(&file, "[mirrors.\"docker.io\"]\nport = 45999\n").unwrap();
    let run = run(&["--config", file.to_str().unwrap(), "cache-up", "docker.io"], &[("PATH", &path)]);
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("the Docker engine is too old: 17.12.1-ce (API 1.35)"), "{run:?}");
    let asked = std::fs::read_to_string(asked).unwrap();
    assert!(!asked.lines().any(|line| line.starts_with("run ") || line.starts_with("pull ")), "{asked}");
}

#[test]
fn settings_in_force_are_printed_as_text_and_as_json() {
    let text = run(&["--preset", "guide", "config"], &[]).stdout;
    let words = |key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(words("mirrors.quay.io.image"), "registry:2.5 preset guide");
    assert_eq!(words("offline"), "auto built in");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json", "config"], &[]).stdout).unwrap();
    assert_eq!(json["mirrors"].as_array().unwrap().len(), 7);
}

#[test]
fn a_dry_run_of_the_checks_runs_none() {
    let dry = run(&["ci", "--dry-run"], &[]);
    assert!(dry.code == Some(0) && dry.stdout.ends_with("would cargo test --workspace\n"), "{dry:?}");
}

#[test]
fn an_archive_that_is_not_there_is_a_usage_error() {
    let run = run(&["cache-up", "--image-archive", "/nonexistent.tar"], &[]);
    assert!(
        run.code == Some(2) && run.stderr.contains("--image-archive /nonexistent.tar: it does not exist\n"),
        "{run:?}"
    );
}

#[test]
fn a_silent_engine_is_announced_after_two_seconds_and_awaited_once() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = format!("tcp://{}", silent.local_addr().unwrap());
    let started = std::time::Instant::now();
    let run = run(&["cache-up"], &[("DOCKER_HOST", &host)]);
    assert!(run.code == Some(1) && run.stderr.contains("no answer within 30 s\nfix: "), "{run:?}");
    assert_eq!(run.stderr.matches("Waiting for an answer to `docker container inspect ").count(), 1, "{run:?}");
    assert!(started.elapsed().as_secs() < 45, "{:?}", started.elapsed());
}

#[test]
fn an_answer_that_cannot_be_read_is_never_nothing_there() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    write_program(dir.path(), "docker", "#!/bin/sh\necho 'the answer is 42'\n");
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let tasks = [&["cache-up"][..], &["cache-down"], &["cache-clean"], &["cache-clean", "--all"], &["cache-status"]];
    for task in [&tasks[..], &[&["cache-logs"], &["cluster-down"], &["cluster-status"]]].concat() {
        let run = run(task, &[("PATH", &path), ("DOCKER_HOST", "")]);
        assert!(run.code == Some(1) && run.stderr.starts_with("error: cannot read what `docker "), "{task:?}: {run:?}");
        assert_eq!(run.stdout, "", "{task:?}");
    }
}

#[test]
fn no_program_that_is_started_inherits_a_password() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let seen = dir.path().join("seen");
    // Every program that a task can start, as one that writes down what it has been given.
    let script = format!("#!/bin/sh\necho \"$0 $*\" >>{0}\nenv >>{0}\nexit 1\n", seen.display());
    for program in ["docker", "talosctl", "curl", "sudo", "id", "qemu-system-x86_64", "iptables"] {
        write_program(dir.path(), program, &script);
    }
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let file = dir.path().join("cache.toml");
    let account = "username = \"me\"\npassword_env = \"HB_TOKEN\"\n";
    std::fs::write(&file, format!("bind = \"local\"\n[mirrors.\"docker.io\"]\n{account}")).unwrap();
    let vars = [("PATH", path.as_str()), ("HB_TOKEN", "hunter2")];
    for task in [&["cache-up"][..], &["cache-status"], &["cluster", "--docker"], &["cluster", "--qemu"], &["onboard"]] {
        run(&[&["--config", file.to_str().unwrap()], task].concat(), &vars);
    }
    let seen = std::fs::read_to_string(seen).unwrap();
    for program in ["docker", "talosctl"] {
        assert!(seen.contains(&format!("/{program} ")), "{seen}");
    }
    assert!(!seen.contains("hunter2") && !seen.contains("HB_TOKEN"), "{seen}");
}

#[test]
fn an_engine_with_an_address_that_is_none_says_what_the_client_says() {
    let run = run(&["cache-status"], &[("DOCKER_HOST", "foo://x")]);
    assert!(run.code == Some(1) && run.stderr.contains("foo://x"), "{run:?}");
}

#[test]
fn a_docker_context_that_is_not_there_or_does_not_answer_is_named() {
    let run_in = |context: &str, folder: &str, task: &[&str]| {
        run(task, &[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", context), ("DOCKER_CONFIG", folder)])
    };
    let status = run_in("nope", "/nonexistent", &["cache-status"]);
    assert!(
        status.code == Some(1) && status.stderr.contains("fix: choose a docker context that is there"),
        "{status:?}"
    );
    // Chosen in the client's own file, as `docker context use` does.
    let sh = Shell::new().unwrap();
    let dir = sh.create_temp_dir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let away = "host=unix:///nonexistent.sock";
    xshell::cmd!(sh, "docker --config {folder} context create away --docker {away}")
        .quiet()
        .ignore_stdout()
        .ignore_stderr()
        .run()
        .unwrap();
    std::fs::write(dir.path().join("config.json"), "{\"currentContext\": \"away\"}").unwrap();
    let onboard = run_in("", folder, &["onboard", "--yes"]);
    assert_eq!(onboard.code, Some(1), "{onboard:?}");
    assert!(
        onboard.stderr.starts_with("error: no engine answers in the docker context away\nfix: start"),
        "{onboard:?}"
    );
}

#[test]
fn an_address_of_another_host_is_not_looked_for_on_this_one() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let container = serde_json::json!([{
        "Id": "abc", "Name": "/registry-docker.io", "State": {"Status": "running"},
        "Config": {"Image": "registry:2", "Env": ["REGISTRY_PROXY_REMOTEURL=https://old.example"],
                   "Labels": {"talos-cache.prefix": "registry-"}},
        "HostConfig": {"PortBindings": {"5000/tcp": [{"HostIp": "192.0.2.7", "HostPort": "5000"}]},
                       "RestartPolicy": {"Name": "always"}},
    }]);
    std::fs::write(dir.path().join("found"), container.to_string()).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2\" in\n'container inspect') cat {}/found ;;\n'exec registry-docker.io') exit 1 ;;\nesac\n",
        dir.path().display()
    );
    write_program(dir.path(), "docker", &script);
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let file = dir.path().join("cache.toml");
    std::fs::write(&file, "bind = \"192.0.2.7\"\n").unwrap();
    let task = ["--config", file.to_str().unwrap(), "cache-up", "--dry-run", "docker.io"];
    let run = run(&task, &[("PATH", &path), ("DOCKER_HOST", "tcp://192.0.2.7:2375")]);
    assert!(
        run.code == Some(0) && run.stdout.starts_with("would replace docker.io (upstream is https://old"),
        "{run:?}"
    );
}

#[test]
fn with_json_every_error_is_an_object_on_stdout_and_a_text_on_stderr() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let file = dir.path().join("cache.toml");
    std::fs::write(&file, "preset = \"guide\"\n[mirrors.\"docker.io\"]\nport = 5001\n").unwrap();
    let file = file.to_str().unwrap();
    let at_line_3 = format!("{file}:3");
    type Case<'a> = (&'a [&'a str], (&'a str, &'a str), i32, &'a str);
    let cases: [Case; 6] = [
        (&["--json", "--config", file, "config"], ("NO_COLOR", "1"), 2, &at_line_3),
        (&["cache-status", "docker.example", "--json"], ("NO_COLOR", "1"), 2, "command line"),
        (&["--json", "cache-up", "--nonsense"], ("NO_COLOR", "1"), 2, "command line"),
        (&["--json"], ("NO_COLOR", "1"), 2, "command line"),
        (&["--json", "cache-up"], ("PATH", "/nonexistent"), 1, "tool"),
        (&["--json", "cache-logs"], ("DOCKER_HOST", "unix:///nonexistent.sock"), 1, ""),
    ];
    for (args, var, code, subject) in cases {
        let run = run(args, &[var]);
        assert_eq!(run.code, Some(code), "{run:?}");
        assert_eq!(run.stdout.lines().count(), 1, "{run:?}");
        let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(json["code"], code, "{run:?}");
        let error = &json["errors"][0];
        assert!(error["subject"].as_str().unwrap().contains(subject), "{run:?}");
        assert!(!error["fix"].as_str().unwrap().is_empty() && error["seen"].is_array(), "{run:?}");
        assert!(!error["problem"].as_str().unwrap().is_empty() && !run.stderr.is_empty(), "{run:?}");
    }
    for args in [["--json", "--help"], ["--json", "--version"]] {
        let run = run(&args, &[]);
        assert!(run.code == Some(0) && serde_json::from_str::<serde_json::Value>(&run.stdout).is_err(), "{run:?}");
    }
}

/// A settings file with credentials for docker.io, in a folder of its own.
fn settings_with(account: &str) -> (xshell::TempDir, String) {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let file = dir.path().join("cache.toml");
    let port = support::free_ports(1)[0];
    let table = format!("bind = \"local\"\n[mirrors.\"docker.io\"]\nport = {port}\nusername = \"me\"\n{account}\n");
    std::fs::write(&file, table).unwrap();
    (dir, file.to_str().unwrap().to_owned())
}

#[test]
fn a_password_that_is_not_text_is_refused_and_never_shown() {
    use std::os::unix::ffi::OsStrExt;
    let tasks: [&[&str]; 3] = [&["cache-up"], &["cache-up", "--dry-run", "--json"], &["-v", "cache-status"]];
    let secret = std::ffi::OsStr::from_bytes(b"hunter2\xfc7731");
    let (dir, of_file) = settings_with("password_file = \"token\"");
    std::fs::write(dir.path().join("token"), secret.as_bytes()).unwrap();
    let (_dir, of_variable) = settings_with("password_env = \"HB_TOKEN\"");
    for (file, place) in [(of_file, "/token: it is not UTF-8 text"), (of_variable, "HB_TOKEN: it is not UTF-8 text")] {
        for task in tasks {
            let sh = Shell::new().unwrap();
            sh.set_var("HB_TOKEN", secret);
            let run = xtask(&sh, &[&["--config", &*file], task, &["docker.io"]].concat());
            assert!(task[0] == "-v" || run.code == Some(1) && run.stderr.contains(place), "{run:?}");
            assert!(!format!("{run:?}").contains("hunter2"), "{run:?}");
        }
    }
}

#[test]
fn a_password_in_the_engines_address_is_never_shown() {
    for host in ["tcp://me:hunter2@127.0.0.1:1", "tcp://me:hun/ter2@127.0.0.1:1", "foo://me:hunter2@x"] {
        let tasks = [&["cache-up"][..], &["-v", "cache-status"], &["onboard", "--yes"], &["cluster", "--docker"]];
        for task in [&tasks[..], &[&["--json", "cache-status"], &["--json", "onboard", "--yes"]]].concat() {
            let run = run(task, &[("DOCKER_HOST", host)]);
            assert_eq!(run.code, Some(1), "{run:?}");
            assert!(!run.stderr.is_empty() && !format!("{run:?}").contains("ter2"), "{run:?}");
        }
    }
}

#[test]
fn a_file_of_the_user_is_a_small_regular_one() {
    let sh = Shell::new().unwrap();
    let dir = sh.create_temp_dir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (pipe, large, text) = (at("pipe"), at("large"), at("cache.toml"));
    xshell::cmd!(sh, "mkfifo {pipe}").quiet().run().unwrap();
    std::fs::write(&large, vec![b'#'; 2 * 1024 * 1024]).unwrap();
    std::fs::write(&text, b"\xef\xbb\xbfoffline = true\n").unwrap();
    let refused = |args: &[&str], code: i32, path: &str, word: &str| {
        let run = run(args, &[]);
        assert!(run.code == Some(code) && run.stderr.contains(path) && run.stderr.contains(word), "{run:?}");
        assert!(run.stderr.lines().count() == 2 || code == 1, "one error with one fix: {run:?}");
    };
    for (path, word) in [
        ("/dev/zero", "it is a device, not a regular file"),
        (pipe.as_str(), "it is a pipe, not a regular file"),
        ("/tmp", "it is a folder, not a regular file"),
        (large.as_str(), "it is larger than 1 MiB"),
    ] {
        refused(&["--config", path, "config"], 2, path, word);
        let (dir, file) = settings_with(&format!("password_file = \"{path}\""));
        refused(&["--config", &file, "cache-up", "docker.io"], 1, path, word);
        drop(dir);
        if path != large {
            refused(&["cache-up", "--image-archive", path], 2, path, word);
        }
    }
    xshell::cmd!(sh, "mkfifo").args([at("daemon.json")]).quiet().run().unwrap();
    let task =
        ["mirror-config", "--format", "docker", "--address", "10.5.0.1", "--output", dir.path().to_str().unwrap()];
    refused(&task, 1, "daemon.json", "it is a pipe, not a regular file");
    // The client's own file, which says which context is meant.
    xshell::cmd!(sh, "mkfifo").args([at("config.json")]).quiet().run().unwrap();
    let vars = [("DOCKER_HOST", ""), ("DOCKER_CONTEXT", ""), ("DOCKER_CONFIG", dir.path().to_str().unwrap())];
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    write_program(dir.path(), "docker", "#!/bin/sh\necho no engine >&2\nexit 1\n");
    let run = run(&["--config", &text, "cache-status"], &[&vars[..], &[("PATH", &path)]].concat());
    assert!(run.code == Some(1) && run.stderr.contains("no engine"), "{run:?}");
}

#[test]
fn a_folder_of_this_host_is_not_measured_for_an_engine_of_another() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let folder = dir.path().join("_data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("blob"), [0; 4096]).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1 $2\" in\n'volume ls') printf 'registry-docker.io\\tregistry-\\t{}\\n' ;;\n\
         'image inspect') echo 'Error: No such image: registry:2' >&2; exit 1 ;;\nesac\n",
        folder.display()
    );
    write_program(dir.path(), "docker", &script);
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let freed = |host: &str| {
        let run = run(&["--json", "cache-clean"], &[("PATH", &path), ("DOCKER_HOST", host)]);
        let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
        assert_eq!(json["removed"]["volumes"], serde_json::json!(["registry-docker.io"]), "{run:?}");
        json["freed_bytes"].clone()
    };
    assert_eq!(freed(""), 4096);
    assert_eq!(freed("tcp://192.0.2.7:2375"), serde_json::Value::Null);
}
