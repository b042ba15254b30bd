//! `cache-down`, with another command between any two of its own: in memory, and on the engine at the same time.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/caches.rs"]
mod caches;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/fake.rs"]
mod fake;
mod support;

use cases::{CASES, Case};
use fake::{Client, Fault};
use support::World;
use xshell::Shell;
use xtask::down::{Down, Stopped};
use xtask::error::{Error, Result};
use xtask::exec::Runner;

fn down(case: &Case, client: &Client) -> Result<Stopped> {
    let config = &case.caches.config;
    let down = Down { runner: client, config, mirrors: &config.mirrors };
    down.stop(down.running()?)
}

fn running(case: &Case) -> Vec<String> {
    let (client, config) = (case.fake.client(), &case.caches.config);
    Down { runner: &client, config, mirrors: &config.mirrors }.running().unwrap()
}

/// Everything that a run may find, brought up unless it is to crash.
fn cases() -> impl Iterator<Item = (&'static str, impl Fn() -> Case)> {
    CASES.into_iter().map(|(name, case)| {
        let up = move || {
            let case = case();
            if !["cut off", "damaged"].contains(&name) {
                case.caches.up(&case.fake.client()).unwrap();
            }
            case
        };
        (name, up)
    })
}

/// Runs something for each case at once and for 0, 1, 2 and so on, until it says that there is no more: most of the time
/// is waiting.
fn each_in_turn(work: impl Fn(&str, Case, usize) -> bool + Sync) {
    std::thread::scope(|scope| {
        for (name, case) in cases() {
            let work = &work;
            scope.spawn(move || assert!((0..50).any(|number| !work(name, case(), number)), "{name} has no end"));
        }
    });
}

#[test]
fn a_clean_up_between_any_two_commands_is_no_failure() {
    each_in_turn(|name, case, number| {
        // By turns with what they cached and without: whose containers go is the same.
        let clean = || case.caches.clean(&case.fake.client(), number.is_multiple_of(2)).unwrap();
        let client = case.fake.overtaken(number, clean);
        let (result, when) = (down(&case, &client), format!("{name}, before command {number}"));
        assert!(result.is_ok(), "{when}: {result:?}");
        assert_eq!(running(&case), Vec::<String>::new(), "{when}");
        number < client.commands()
    });
}

#[test]
fn another_cache_down_between_any_two_commands_is_no_failure() {
    each_in_turn(|name, case, number| {
        let client = case.fake.overtaken(number, || drop(down(&case, &case.fake.client()).unwrap()));
        let (result, when) = (down(&case, &client), format!("{name}, before command {number}"));
        assert!(result.is_ok_and(|stopped| stopped.removed.is_empty()), "{when}");
        assert_eq!(running(&case), Vec::<String>::new(), "{when}");
        if number == 0 {
            case.converges(&when);
        }
        number < client.commands()
    });
}

#[test]
fn a_stop_that_the_engine_refuses_once_is_tried_again_and_what_is_unheard_is_seen() {
    for (name, case) in cases() {
        for fault in [Fault::Refused, Fault::Unheard] {
            let case = case();
            let names = running(&case);
            let client = case.fake.faulty(0, fault);
            let stopped = down(&case, &client).unwrap();
            assert_eq!(stopped, Stopped { stopped: names, removed: Vec::new() }, "{name}: {fault:?}");
            assert!(client.is_met() && running(&case).is_empty(), "{name}: {fault:?}");
        }
    }
}

/// An engine that never stops anything, and says so.
struct Refusing<'a>(Client<'a>);

impl Runner for Refusing<'_> {
    fn run(&self, cmd: &xtask::exec::Cmd) -> Result<xtask::exec::Output> {
        if cmd.shell().starts_with("docker container stop") {
            let stderr = b"Error response from daemon: cannot stop container: tried to kill it\n".to_vec();
            return Ok(xtask::exec::Output { code: Some(1), stdout: Vec::new(), stderr });
        }
        self.0.run(cmd)
    }

    fn lines(&self, cmd: &xtask::exec::Cmd, line: &mut dyn FnMut(&str) -> bool) -> Result<bool> {
        self.0.lines(cmd, line)
    }
}

#[test]
fn what_never_stops_is_an_error_with_the_engines_word_after_several_tries() {
    let case = Case::up();
    let config = &case.caches.config;
    let refusing = Refusing(case.fake.client());
    let down = Down { runner: &refusing, config, mirrors: &config.mirrors };
    let Err(Error::Blocked(findings)) = down.stop(down.running().unwrap()) else { panic!("it has not stopped") };
    let subjects: Vec<&str> = findings.iter().map(|finding| finding.subject.as_str()).collect();
    assert_eq!(subjects, caches::HOSTS);
    assert!(findings[0].problem.contains("still runs after 5 attempts to stop it"), "{findings:?}");
    assert!(findings[0].seen[0].ends_with("tried to kill it"), "{findings:?}");
}

#[test]
fn a_signal_between_look_and_stop_stops_nothing() {
    let case = Case::up();
    let client = case.fake.client();
    let down = Down { runner: &client, config: &case.caches.config, mirrors: &case.caches.config.mirrors };
    let names = down.running().unwrap();
    client.interrupt();
    assert_eq!(down.stop(names).unwrap_err().code(), 130);
    assert_eq!(running(&case).len(), 2);
}

#[test]
fn cache_down_beside_cache_clean_ends_well_on_the_engine() {
    let world = World::new("down-clean");
    let config = world.config();
    let run = |task: &str| {
        let sh = Shell::new().unwrap();
        support::xtask(&sh, &["--config", config.to_str().unwrap(), task])
    };
    for round in 0..4 {
        assert_eq!(world.xtask(&["cache-up", "docker.io", "quay.io", "ghcr.io"]).code, Some(0));
        let ends_well = |task: &str, delay: u64| {
            std::thread::sleep(std::time::Duration::from_millis(delay));
            let run = run(task);
            assert_eq!(run.code, Some(0), "round {round}, {task}: {run:?}");
        };
        std::thread::scope(|scope| {
            scope.spawn(|| ends_well("cache-down", 0));
            scope.spawn(|| ends_well("cache-down", 0));
            scope.spawn(|| ends_well("cache-clean", 60 * round));
        });
        assert_eq!(world.left(), Vec::<String>::new(), "round {round}");
    }
}
