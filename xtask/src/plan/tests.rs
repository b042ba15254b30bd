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
    seen.tried.waited.insert("docker.io".into());
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
    right.tried.waited.insert("docker.io".into());
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
    assert!(blocker(&foreign).problem.contains("is not a registry proxy"));
    let mounted = observed(|json| {
        json["Config"]["Labels"] = json!({});
        json["Config"]["Env"] = json!([]);
        json["Mounts"] = json!([{"Destination": "/etc/docker/registry/config.yml", "Source": "/srv/proxy.yml"}]);
    });
    assert!(
        blocker(&mounted).problem.contains("takes its configuration from the mounted /etc/docker/registry/config.yml")
    );
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
    assert!(plan(&config(), true, &by_hand(json!([]))).blockers[0].problem.contains("is not a registry proxy"));
}

/// The settings with credentials for docker.io, whose password is not there.
fn with_credentials() -> Config {
    use crate::config::{Credentials, Password};
    let mut config = config();
    let password = Password::Env("TALOS_CACHE_TEST_ABSENT".into());
    config.mirrors[0].credentials = Some(Credentials { username: "me".into(), password });
    config
}

fn with_account() -> Observed {
    let mut seen = observed(|json| json["Config"]["Cmd"] = json!([crate::credentials::PATH]));
    seen.answering.insert("docker.io".into());
    seen
}

#[test]
fn a_proxy_that_started_without_its_credentials_is_started_again_once() {
    let with = |login, restarted: bool| {
        let mut seen = with_account();
        seen.logins.insert("docker.io".into(), login);
        seen.tried.restarted.extend(restarted.then(|| "docker.io".to_owned()));
        plan(&with_credentials(), false, &seen)
    };
    assert_eq!(with(Login::Used, false), Plan::default());
    assert_eq!(with(Login::Unauthenticated, false).steps[0].action, Action::Restart);
    let without = with(Login::Unauthenticated, true);
    assert!(without.steps.is_empty() && without.flaws[0].problem.contains("runs without credentials"), "{without:?}");
    assert_eq!(with(Login::Unsupported, false).flaws, without.flaws);
    let refused = with(Login::Refused("unauthorized: incorrect username or password".into()), false);
    let problem =
        "https://registry-1.docker.io refuses the credentials of \"me\": unauthorized: incorrect username or password";
    assert_eq!(refused.flaws[0].problem, problem);
    assert!(refused.flaws[0].fix.contains("the variable TALOS_CACHE_TEST_ABSENT"), "{refused:?}");
}

#[test]
fn what_this_run_turned_offline_stays_that_whatever_its_upstream_does() {
    let mut offline = observed(|json| json["Config"]["Labels"][crate::docker::LABEL_MODE] = json!("offline"));
    offline.answering.insert("docker.io".into());
    offline.reachable.insert("docker.io".into());
    offline.tried.offline.insert("docker.io".into());
    assert_eq!(action(&offline), None);
}

#[test]
fn what_the_engine_cannot_start_is_made_anew_on_its_volume() {
    let stopped = |refusals| {
        let mut seen = observed(|json| json["State"]["Status"] = json!("exited"));
        seen.tried.refusals.insert("docker.io".into(), (refusals, "Unknown runtime specified x".into()));
        seen
    };
    assert_eq!(action(&stopped(1)), Some(Action::Start));
    let plan = plan(&config(), false, &stopped(2));
    assert_eq!(plan.steps[0].action, Action::Replace(Mode::Proxy));
    assert_eq!(plan.steps[0].why, ["its engine cannot start it: Unknown runtime specified x"]);
}

#[test]
fn an_upstream_that_cannot_be_used_is_an_error_unless_something_is_cached() {
    let reason = "x509: certificate signed by unknown authority";
    let mut seen = crashing(&format!("panic: Get \"https://registry-1.docker.io/v2/\": {reason}"));
    seen.unusable.insert("docker.io".into(), reason.into());
    let empty = plan(&config(), false, &seen);
    assert!(empty.steps.is_empty() && empty.blockers.is_empty(), "{empty:?}");
    assert_eq!(empty.flaws[0].problem, format!("https://registry-1.docker.io cannot be used: {reason}"));
    seen.cached.insert("docker.io".into());
    assert_eq!(action(&seen), Some(Action::Replace(Mode::Offline)));
    // What serves its cache is up, and still wrong.
    let mut up = observed(|json| json["Config"]["Labels"][crate::docker::LABEL_MODE] = json!("offline"));
    up.answering.insert("docker.io".into());
    up.unusable.insert("docker.io".into(), reason.into());
    let plan = plan(&config(), false, &up);
    assert!(plan.steps.is_empty() && plan.blockers.is_empty());
    assert!(plan.flaws[0].problem.ends_with("; only cached images are served"), "{plan:?}");
}

#[test]
fn an_upstream_of_the_wrong_scheme_is_told_the_right_one() {
    let fix = |upstream: &str, reason: &str| {
        let mirror = Mirror { upstream: upstream.into(), ..mirror() };
        crashed::unusable(&mirror, reason).fix
    };
    let plain = "tls: first record does not look like a TLS handshake";
    assert!(fix("https://a:5000", plain).starts_with("write `upstream = \"http://a:5000\"`"));
    assert!(fix("http://a", crate::upstream::SPEAKS_TLS).starts_with("write `upstream = \"https://a\"`"));
}

#[test]
fn an_unfinished_copy_is_told_and_discarded_once_its_source_is_gone() {
    let gone = Observed { unfinished: ["docker.io".to_owned()].into(), ..Observed::default() };
    let plan = plan(&config(), false, &gone);
    assert_eq!(plan.steps[0].action, Action::Create(Mode::Proxy));
    assert!(plan.steps[0].why[1].contains("unfinished copy"), "{plan:?}");
}

#[test]
fn another_account_replaces_the_container_and_a_missing_password_is_found_before_that() {
    let mut config = with_credentials();
    let mut seen = with_account();
    seen.accounts.insert("docker.io".into(), Found::Unknown("it is gone".into()));
    assert_eq!(plan(&config, false, &seen), Plan::default());
    let warnings = warnings(&config.mirrors, &seen);
    assert_eq!(warnings, ["docker.io: the running proxy keeps the password that it has: it is gone"]);
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

#[test]
fn an_upstream_that_leads_back_to_a_proxy_stands_in_the_way_unless_it_is_not_asked() {
    let mut seen = observed(|_| ());
    seen.cycles.insert("docker.io".into(), "its upstream is this proxy itself".into());
    let told = blocker(&seen);
    assert_eq!((told.problem.as_str(), told.subject.as_str()), ("its upstream is this proxy itself", "docker.io"));
    assert!(told.fix.contains("[mirrors.\"docker.io\"]"), "{told:?}");
    let offline = Config { offline: Offline::Always, ..config() };
    assert_eq!(plan(&offline, false, &seen).blockers, []);
}

#[test]
fn an_address_that_nobody_reaches_stands_in_the_way_of_a_new_container() {
    let mut seen = Observed { unbindable: Some("10.0.0.255 is a broadcast address".into()), ..Observed::default() };
    assert_eq!(blocker(&seen).problem, "10.0.0.255 is a broadcast address");
    seen.containers = observed(|_| ()).containers;
    seen.answering.insert("docker.io".into());
    assert_eq!(action(&seen), None);
}
