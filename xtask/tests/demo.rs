//! The demonstration, which is a real containerd that pulls through the proxies, and the benchmark.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use xshell::{Shell, cmd};

#[test]
fn the_demonstration_hits_when_it_is_warm_and_leaves_nothing() {
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

fn nothing_is_left(sh: &Shell, task: &str) {
    let format = "{{.Names}}";
    let containers = cmd!(sh, "docker ps --all --format {format}").quiet().read().unwrap();
    let volumes = cmd!(sh, "docker volume ls --quiet").quiet().read().unwrap();
    assert!(!format!("{containers}{volumes}").contains(&format!("talos-cache-{task}-")), "{containers}{volumes}");
}
