//! The demonstration, which is a real containerd that pulls through the proxies, and the benchmark.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::{Mutex, PoisonError};

use xshell::{Shell, cmd};

/// One at a time: each looks at what the others would have there.
static STAGE: Mutex<()> = Mutex::new(());

#[test]
fn the_demonstration_hits_when_it_is_warm_and_leaves_nothing() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let sh = Shell::new().unwrap();
    let run = support::xtask(&sh, &["--json", "demo"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let [cold, warm, gone] = &json["rounds"].as_array().unwrap()[..] else { panic!("{json}") };
    let of = |round: &serde_json::Value, name: &str| round["figures"][name].as_u64().unwrap();
    // Three images of an index, a manifest, a configuration and three layers each.
    assert_eq!(of(cold, "misses"), 3 * 6, "{cold}");
    for round in [warm, gone] {
        assert_eq!((of(round, "misses"), of(round, "bytes_from_upstream")), (0, 0), "{round}");
        assert_eq!(of(round, "hits"), of(cold, "requests"), "{round}");
        assert_eq!(of(round, "bytes_to_clients"), of(cold, "bytes_to_clients"), "{round}");
    }
    nothing_is_left(&sh, "demo");
}

#[test]
fn the_benchmark_measures_what_it_says_round_after_round_and_leaves_nothing() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let sh = Shell::new().unwrap();
    let run = support::xtask(&sh, &["--json", "bench", "--rounds", "2"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    for measure in json["seconds"].as_array().unwrap() {
        for side in ["guide", "this"] {
            let times = measure[side].as_array().unwrap();
            assert!(times.len() == 2 && times.iter().all(|time| time.as_f64() > Some(0.0)), "{measure}");
        }
    }
    nothing_is_left(&sh, "bench");
}

#[test]
fn one_that_is_interrupted_stops_and_leaves_nothing() {
    let _alone = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    let sh = Shell::new().unwrap();
    // A task each that is at work once so many of its containers are there: the upstream and its three or five proxies.
    for (args, task, containers, signal, code) in
        [(&["demo"][..], "demo", 4, "INT", 130), (&["bench", "--rounds", "20"], "bench", 6, "TERM", 143)]
    {
        let (ended, said) = support::signalled_when(&sh, args, signal, || left(&sh, task).0.len() == containers);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.ends_with("error: interrupted: all that was made for this is removed\n"), "{said}");
        nothing_is_left(&sh, task);
    }
}

/// The containers and the volumes of a task.
fn left(sh: &Shell, task: &str) -> (Vec<String>, Vec<String>) {
    let format = "{{.Names}}";
    let containers = cmd!(sh, "docker ps --all --format {format}").quiet().read().unwrap();
    let volumes = cmd!(sh, "docker volume ls --quiet").quiet().read().unwrap();
    let name = format!("talos-cache-{task}-");
    let of = |text: String| text.lines().filter(|line| line.starts_with(&name)).map(str::to_owned).collect();
    (of(containers), of(volumes))
}

fn nothing_is_left(sh: &Shell, task: &str) {
    assert_eq!(left(sh, task), (Vec::new(), Vec::new()));
}
