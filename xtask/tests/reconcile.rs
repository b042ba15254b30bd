//! What no real engine can be made to do on demand: every command failing in turn, a run that is killed at any point,
//! another run between any two commands.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/caches.rs"]
mod caches;
#[path = "support/cases.rs"]
mod cases;
#[path = "support/fake.rs"]
mod fake;

use std::time::Duration;

use cases::{CASES, Case, KEPT, UPSTREAM};
use fake::{Fault, Upstream};
use xtask::config::Mirror;
use xtask::docker::Mode;
use xtask::exec::ReadOnly;
use xtask::plan::{Action, Step};
use xtask::registry;

/// How many numbers are tried at once: most of a run's time is waiting.
const AT_ONCE: usize = 6;

/// Runs something for each case and for 0, 1, 2 and so on, until it says that there is no more.
fn each_in_turn(work: impl Fn(&str, fn() -> Case, usize) -> bool + Sync) {
    let some = |name: &str, case, from: usize| {
        std::thread::scope(|scope| {
            let work = &work;
            let runs = (from..from + AT_ONCE).map(|number| scope.spawn(move || work(name, case, number)));
            let runs: Vec<_> = runs.collect();
            // The scope waits for those that are not asked, and they can fail the test as well.
            runs.into_iter().all(|run| run.join().unwrap())
        })
    };
    std::thread::scope(|scope| {
        for (name, case) in CASES {
            let some = &some;
            let has_end =
                move || assert!((0..96).step_by(AT_ONCE).any(|from| !some(name, case, from)), "{name} has no end");
            scope.spawn(has_end);
        }
    });
}

fn fail_each_write(fault: Fault) {
    each_in_turn(|name, case, number| {
        let (when, case) = (format!("{name}, write {number}: {fault:?}"), case());
        let client = case.fake.faulty(number, fault);
        let first = case.caches.up(&client);
        case.nothing_is_lost(&when);
        if client.is_met() && matches!(fault, Fault::KilledBefore | Fault::KilledHalfway | Fault::KilledAfter) {
            assert!(first.is_err(), "{when}");
        }
        case.converges(&when);
        client.is_met()
    });
}

#[test]
fn a_run_that_follows_one_whose_engine_refused_a_write_converges() {
    fail_each_write(Fault::Refused);
}

#[test]
fn a_run_that_follows_one_that_was_not_told_of_its_success_converges() {
    fail_each_write(Fault::Unheard);
}

#[test]
fn a_run_that_follows_one_that_was_killed_before_a_write_converges() {
    fail_each_write(Fault::KilledBefore);
}

#[test]
fn a_run_that_follows_one_that_was_killed_half_way_through_a_write_converges() {
    fail_each_write(Fault::KilledHalfway);
}

#[test]
fn a_run_that_follows_one_that_was_killed_after_a_write_converges() {
    fail_each_write(Fault::KilledAfter);
}

#[test]
fn a_write_that_is_refused_once_is_made_up_for_in_the_same_run() {
    each_in_turn(|name, case, number| {
        let case = case();
        let client = case.fake.faulty(number, Fault::Refused);
        let done = case.caches.up(&client);
        // An image that cannot be pulled is an error with a way out of it, and the end of the run.
        let pulls = name == "cold" && number == 0;
        assert_eq!(done.is_ok(), !pulls, "{name}, write {number}: {:?}", case.caches.told(&done));
        client.is_met()
    });
}

#[test]
fn another_run_between_any_two_commands_makes_no_difference() {
    each_in_turn(|name, case, number| {
        let (when, case) = (format!("{name}, before command {number}"), case());
        let client = case.fake.overtaken(number, || {
            let other = case.caches.up(&case.fake.client());
            assert!(other.is_ok(), "{name}, the other one: {:?}", case.caches.told(&other));
        });
        let done = case.caches.up(&client);
        assert!(done.is_ok(), "{when}: {:?}", case.caches.told(&done));
        case.converges(&when);
        number < client.commands()
    });
}

#[test]
fn a_clean_up_between_any_two_commands_is_made_up_for() {
    each_in_turn(|name, case, number| {
        let (when, mut case) = (format!("{name}, before command {number}"), case());
        // What is cached goes with it: that is what was asked for.
        case.filled.clear();
        let client = case.fake.overtaken(number, || case.caches.clean(&case.fake.client(), false).unwrap());
        let done = case.caches.up(&client);
        assert!(done.is_ok(), "{when}: {:?}", case.caches.told(&done));
        let next = case.caches.up(&case.fake.client());
        assert!(next.is_ok(), "{when}: {:?}", case.caches.told(&next));
        number < client.commands()
    });
}

#[test]
fn an_engine_that_goes_down_between_any_two_commands_is_an_error_and_no_harm() {
    each_in_turn(|name, case, number| {
        let (when, case) = (format!("{name}, before command {number}"), case());
        let client = case.fake.overtaken(number, || case.fake.engine_is_down(true));
        let done = case.caches.up(&client);
        case.fake.engine_is_down(false);
        if done.is_ok() {
            // The last questions are whether an upstream is back and an account is used; a proxy answers without them.
            let left = case.caches.plan(&case.fake.client());
            let back = "the upstream answers again";
            let returns = |step: &Step| step.action == Action::Replace(Mode::Proxy) && step.why == [back];
            assert!(left.blockers.is_empty() && left.steps.iter().all(returns), "{when}: {left:?}");
        }
        case.converges(&when);
        number < client.commands()
    });
}

#[test]
fn runs_at_the_same_time_all_end_well() {
    for (name, case) in CASES {
        let case = case();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let done = case.caches.up(&case.fake.client());
                    assert!(done.is_ok(), "{name}: {:?}", case.caches.told(&done));
                });
            }
        });
        case.converges(name);
    }
}

#[test]
fn a_clean_up_that_is_interrupted_while_it_looks_removes_nothing() {
    for (name, case) in CASES {
        let case = case();
        let client = case.fake.client();
        let before = case.caches.seen(&client);
        client.interrupt();
        assert!(case.caches.clean(&client, false).is_err(), "{name}");
        assert_eq!(case.caches.seen(&case.fake.client()), before, "{name}");
    }
}

#[test]
fn a_dry_run_asks_and_writes_nothing() {
    for (name, case) in CASES {
        let case = case();
        let client = case.fake.client();
        let plan = case.caches.plan(&ReadOnly(&client));
        assert!(!plan.steps.is_empty() && plan.blockers.is_empty(), "{name}: {plan:?}");
        assert_eq!(client.writes(), 0, "{name}");
    }
}

#[test]
fn a_run_that_is_interrupted_takes_back_what_never_answered_and_keeps_what_did() {
    let case = Case::new();
    // quay.io's upstream takes the connection and says nothing.
    let mut caches = case.caches.clone();
    caches.config.mirrors[1].upstream = "http://192.0.2.8:5000".to_owned();
    case.fake.upstream("http://192.0.2.8:5000", Upstream::Silent);
    let client = case.fake.client();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            let made = || case.fake.containers().contains(&caches.name("quay.io"));
            while !made() || !registry::answers(&format!("127.0.0.1:{}", caches.ports[0])) {
                std::thread::sleep(Duration::from_millis(1));
            }
            client.interrupt();
        });
        caches.up(&client).map(|_| ()).unwrap_err()
    });
    assert_eq!(error.code(), 130, "{error}");
    assert_eq!(
        (case.fake.containers(), case.fake.volumes()),
        (vec![caches.name("docker.io")], vec![caches.name("docker.io")])
    );
}

#[test]
fn one_that_is_interrupted_beside_a_proxy_that_is_offline_takes_back_no_less() {
    let case = Case::new();
    let mut caches = case.caches.clone();
    let quay = caches.config.mirrors.pop().unwrap();
    case.fake.upstream(UPSTREAM, Upstream::Refuses);
    caches.up(&case.fake.client()).unwrap();
    let silent = "http://192.0.2.8:5000".to_owned();
    case.fake.upstream(&silent, Upstream::Silent);
    caches.config.mirrors.push(Mirror { upstream: silent, ..quay });
    let client = case.fake.client();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !case.fake.containers().contains(&caches.name("quay.io")) {
                std::thread::sleep(Duration::from_millis(1));
            }
            client.interrupt();
        });
        caches.up(&client).map(|_| ()).unwrap_err()
    });
    assert_eq!((error.code(), case.fake.containers()), (130, vec![caches.name("docker.io")]), "{error}");
}

#[test]
fn while_a_store_is_copied_every_other_proxy_is_there() {
    let mut case = cases::by_hand();
    let mut quay = case.caches.clone();
    quay.config.mirrors.remove(0);
    quay.up(&case.fake.client()).unwrap();
    case.caches.config.mirrors[1].port = case.caches.ports[2];
    // It stops the one made by hand, and is killed when it is to copy.
    let client = case.fake.faulty(1, Fault::KilledBefore);
    assert!(case.caches.up(&client).is_err() && client.is_met());
    assert_eq!(case.fake.containers(), caches::HOSTS.map(|host| case.caches.name(host)));
    case.converges("afterwards");
}

#[test]
fn the_time_that_images_take_is_not_the_proxies_own() {
    let mut case = Case::new();
    case.caches.timeout = Duration::from_secs(1);
    let done = case.caches.up_after(&case.fake.client(), Duration::from_millis(1200));
    assert!(done.is_ok(), "{:?}", case.caches.told(&done));
}

#[test]
fn a_silent_upstream_is_told_when_the_time_is_up_and_what_was_made_is_taken_back() {
    let mut case = Case::new();
    case.fake.upstream(UPSTREAM, Upstream::Silent);
    case.caches.timeout = Duration::from_millis(100);
    let told = case.caches.told(&case.caches.up(&case.fake.client()));
    assert!(told[0].starts_with("docker.io: "), "{told:?}");
    assert_eq!(case.fake.containers(), Vec::<String>::new(), "{told:?}");
    assert_eq!(case.fake.volumes(), Vec::<String>::new());
}

#[test]
fn what_is_taken_back_is_what_is_gone_whatever_the_engine_said_of_it() {
    let case = Case::new();
    case.fake.upstream(UPSTREAM, Upstream::Refuses);
    let never = case.caches.with("offline = false", "");
    // It creates both, and removes both with one command.
    let client = case.fake.faulty(2, Fault::Unheard);
    assert!(never.up(&client).is_err() && client.is_met());
    assert_eq!((case.fake.containers(), case.fake.volumes()), (Vec::new(), Vec::new()));
}

#[test]
fn what_is_taken_back_leaves_a_volume_that_was_there_before_or_that_has_something_on_it() {
    let case = Case::up();
    case.caches.clean(&case.fake.client(), true).unwrap();
    // One that was there before, and is empty.
    std::fs::remove_file(case.fake.folder(&case.caches.name("quay.io")).join("kept-quay.io")).unwrap();
    case.fake.upstream(UPSTREAM, Upstream::Refuses);
    let never = case.caches.with("offline = false", "");
    assert!(never.up(&case.fake.client()).is_err());
    assert_eq!(case.fake.containers(), Vec::<String>::new());
    assert_eq!(case.fake.volumes(), caches::HOSTS.map(|host| case.caches.name(host)));
    case.nothing_is_lost("taken back");

    // One that this run made, and that somebody else has put something on since.
    let case = Case::new();
    case.fake.upstream(UPSTREAM, Upstream::Refuses);
    let never = case.caches.with("offline = false", "");
    let client = case.fake.client();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !case.fake.volumes().contains(&case.caches.name("docker.io")) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::fs::write(case.fake.folder(&case.caches.name("docker.io")).join(KEPT), "x").unwrap();
        });
        assert!(never.up(&client).is_err());
    });
    assert_eq!(case.fake.volumes(), [case.caches.name("docker.io")]);
    case.nothing_is_lost("filled meanwhile");
}
