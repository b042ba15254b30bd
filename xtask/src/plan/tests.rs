//! What is decided, for everything that can be observed.

use super::*;
use crate::config::Overrides;
use crate::container::containers;
use camino::Utf8Path;
use serde_json::{Value, json};

fn config() -> Config {
    Config::load(Utf8Path::new("/nonexistent"), &Overrides::default()).unwrap()
}

fn mirror() -> Mirror {
    config().mirrors[0].clone()
}

fn observed(change: impl Fn(&mut Value)) -> Observed {
    let env = crate::docker::environment(&mirror(), Mode::Proxy);
    let mut value = json!([{
        "Id": "abc", "Name": "/registry-docker.io", "State": {"Status": "running", "Error": ""},
        "Config": {"Image": "registry:2", "Env": env, "Labels": {LABEL_PREFIX: "registry-"}},
        "HostConfig": {
            "PortBindings": {"5000/tcp": [{"HostIp": "", "HostPort": "5000"}]},
            "RestartPolicy": {"Name": "always"},
        },
        "Mounts": [{"Name": "registry-docker.io", "Destination": "/var/lib/registry"}]
    }]);
    change(&mut value[0]);
    let container = containers(value.to_string().as_bytes()).unwrap().remove(0);
    let containers = [(container.name().to_owned(), container)].into();
    Observed { containers, ..Observed::default() }
}

fn plan(config: &Config, adopt: bool, observed: &Observed) -> Plan {
    up(Wanted { config, mirrors: &config.mirrors[..1], adopt }, observed)
}

fn action(observed: &Observed) -> Option<Action> {
    let plan = plan(&config(), false, observed);
    assert_eq!(plan.blockers, []);
    plan.steps.first().map(|step| step.action)
}

fn blocker(observed: &Observed) -> Finding {
    let mut plan = plan(&config(), false, observed);
    assert_eq!(plan.steps, []);
    plan.blockers.remove(0)
}

fn crashing(words: &str) -> Observed {
    let mut seen = observed(|json| json["State"]["Status"] = json!("restarting"));
    seen.crashes.insert("docker.io".into(), vec![words.into()]);
    seen
}

#[test]
fn each_state_has_its_step() {
    let in_state = |status: &str| observed(|json| json["State"]["Status"] = json!(status));
    assert_eq!(action(&Observed::default()), Some(Action::Create(Mode::Proxy)));
    assert_eq!(action(&in_state("running")), Some(Action::Wait));
    assert_eq!(action(&in_state("paused")), Some(Action::Unpause));
    assert_eq!(action(&in_state("exited")), Some(Action::Start));
    assert_eq!(action(&in_state("created")), Some(Action::Start));
    assert_eq!(action(&in_state("dead")), Some(Action::Replace(Mode::Proxy)));
}

#[test]
fn what_answers_and_is_right_is_left_alone() {
    let mut seen = observed(|_| ());
    seen.answering.insert("docker.io".into());
    seen.holders.insert(5000, "itself".into());
    assert_eq!(action(&seen), None);
}

#[test]
fn a_port_clash_that_left_a_container_replaces_it() {
    let seen = observed(|json| json["State"] = json!({"Status": "created", "Error": "port is already allocated"}));
    assert_eq!(action(&seen), Some(Action::Replace(Mode::Proxy)));
}

#[test]
fn an_upstream_out_of_reach_means_offline_and_back() {
    let seen = crashing("panic: Get \"https://registry-1.docker.io/v2/\": dial tcp: no such host");
    assert_eq!(action(&seen), Some(Action::Replace(Mode::Offline)));

    let mut offline = observed(|json| json["Config"]["Labels"][crate::docker::LABEL_MODE] = json!("offline"));
    offline.answering.insert("docker.io".into());
    assert_eq!(action(&offline), None);
    offline.reachable.insert("docker.io".into());
    assert_eq!(action(&offline), Some(Action::Replace(Mode::Proxy)));
}

#[test]
fn a_silent_upstream_means_offline_once_it_was_waited_for() {
    let mut seen = observed(|_| ());
    seen.waited.insert("docker.io".into());
    assert_eq!(action(&seen), Some(Action::Replace(Mode::Offline)));
}

#[test]
fn offline_is_what_the_settings_say() {
    let with = |offline, observed: &Observed| plan(&Config { offline, ..config() }, false, observed);
    let mut right = observed(|_| ());
    right.answering.insert("docker.io".into());
    assert_eq!(with(Offline::Never, &right), Plan::default());
    assert_eq!(with(Offline::Always, &right).steps[0].action, Action::Replace(Mode::Offline));
    assert_eq!(with(Offline::Always, &Observed::default()).steps[0].action, Action::Create(Mode::Offline));
    right.answering.clear();
    right.waited.insert("docker.io".into());
    assert_eq!(with(Offline::Never, &right).blockers[0].problem, "https://registry-1.docker.io is silent");
}

#[test]
fn a_damaged_record_of_expiry_dates_is_moved_aside() {
    for words in ["panic: unexpected end of JSON input", "panic: invalid character 'b' looking for beginning"] {
        assert_eq!(action(&crashing(words)), Some(Action::Mend));
    }
}

#[test]
fn another_crash_is_shown_and_not_touched() {
    assert_eq!(blocker(&crashing("panic: runtime error")).seen, ["panic: runtime error"]);
    let mut silent = crashing("");
    silent.crashes.clear();
    assert!(blocker(&silent).problem.ends_with("ends as soon as it starts without a word"));
    let configuration = blocker(&crashing("configuration error: error parsing /etc/x: yaml"));
    assert!(configuration.problem.ends_with("since its configuration makes no sense to it"));
}

#[test]
fn what_is_foreign_is_never_touched() {
    let foreign = observed(|json| {
        json["Config"]["Labels"] = json!({});
        json["Config"]["Env"] = json!([]);
    });
    assert!(blocker(&foreign).problem.contains("is no proxy"));
    let other = observed(|json| {
        json["Config"]["Labels"] = json!(null);
        json["Config"]["Image"] = json!("registry:2.5");
    });
    assert!(blocker(&other).problem.contains("image is registry:2.5, wanted registry:2"));
}

#[test]
fn what_was_made_by_hand_and_differs_is_replaced_when_that_is_asked_for() {
    let by_hand = |env: Value| {
        observed(|json| {
            json["Config"]["Labels"] = json!(null);
            json["Config"]["Env"] = env.clone();
            json["Config"]["Image"] = json!("registry:2.5");
        })
    };
    let proxy = "REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io";
    let adopted = plan(&config(), true, &by_hand(json!([proxy])));
    assert_eq!(adopted.steps[0].action, Action::Adopt(Mode::Proxy));
    let elsewhere = json!([proxy, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=/data"]);
    assert!(plan(&config(), true, &by_hand(elsewhere)).blockers[0].problem.contains("in /data"));
    assert!(plan(&config(), true, &by_hand(json!([]))).blockers[0].problem.contains("is no proxy"));
}

#[test]
fn a_proxy_that_started_without_its_account_is_started_again() {
    let with = |login| {
        let mut seen = observed(|_| ());
        seen.answering.insert("docker.io".into());
        seen.logins.insert("docker.io".into(), login);
        plan(&config(), false, &seen)
    };
    assert_eq!(with(Login::Used), Plan::default());
    assert_eq!(with(Login::Missed).steps[0].action, Action::Restart);
    assert!(with(Login::Impossible).blockers[0].problem.contains("runs without its account"));
}

#[test]
fn another_account_replaces_the_container_and_a_missing_password_is_found_before_that() {
    use crate::config::{Credentials, Password};
    let mut config = config();
    let password = Password::Env("TALOS_CACHE_TEST_ABSENT".into());
    config.mirrors[0].credentials = Some(Credentials { username: "me".into(), password });
    let mut seen = observed(|json| json["Config"]["Cmd"] = json!([crate::credentials::PATH]));
    seen.answering.insert("docker.io".into());
    seen.accounts.insert("docker.io".into(), Found::Unknown);
    assert_eq!(plan(&config, false, &seen), Plan::default());
    seen.accounts.insert("docker.io".into(), Found::Differs);
    assert!(plan(&config, false, &seen).blockers[0].problem.contains("TALOS_CACHE_TEST_ABSENT"));
    config.mirrors[0].credentials = None;
    let gone = plan(&config, false, &seen);
    assert!(gone.steps[0].why[0].contains("none is configured"), "{gone:?}");
}

#[test]
fn what_the_guide_made_is_adopted() {
    let mut made = observed(|json| {
        json["Config"]["Labels"] = json!(null);
        json["Config"]["Env"] = json!(["REGISTRY_PROXY_REMOTEURL=https://registry-1.docker.io"]);
        json["Mounts"][0]["Name"] = json!("0123");
    });
    made.answering.insert("docker.io".into());
    assert_eq!(action(&made), None);
}

#[test]
fn a_busy_port_names_its_holder_before_anything_is_created() {
    let seen = Observed { holders: [(5000, "container web".to_owned())].into(), ..Observed::default() };
    assert_eq!(blocker(&seen).problem, "port 5000 is held by container web");
}
