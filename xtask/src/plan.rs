//! The one place that decides: from what is wished and what was observed to steps and blockers, pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Mirror, Offline};
use crate::docker::{Container, LABEL_PREFIX, Mode};
use crate::error::Finding;

/// What was observed, all of it in one round.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The containers that have the name of a mirror.
    pub containers: BTreeMap<String, Container>,
    /// Hosts whose registry answered `/v2/`.
    pub answering: BTreeSet<String>,
    /// Hosts that were waited for and did not answer.
    pub waited: BTreeSet<String>,
    /// The last log lines of containers that end again and again, by host.
    pub crashes: BTreeMap<String, Vec<String>>,
    /// Hosts that serve offline and whose upstream answers now.
    pub reachable: BTreeSet<String>,
    /// Who holds a port, container or process, by port.
    pub holders: BTreeMap<u16, String>,
}

/// What to do to one mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase", tag = "action", content = "mode")]
pub enum Action {
    /// Create and start it.
    Create(Mode),
    /// Remove the container, keep the volume, create it anew.
    Replace(Mode),
    /// Start what is there.
    Start,
    /// Let it go on.
    Unpause,
    /// Move its damaged record of expiry dates aside, and start it again.
    Mend,
    /// It runs; wait for its answer.
    Wait,
}

/// One step, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// The mirror's host.
    pub host: String,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
    /// Why, as phrases.
    pub why: Vec<String>,
}

/// What is to be done, or what stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the configuration; they do not depend on each other.
    pub steps: Vec<Step>,
    /// All that stands in the way; while there is one, nothing is touched.
    pub blockers: Vec<Finding>,
}

/// Decides what brings the mirrors up.
pub fn up(config: &Config, mirrors: &[Mirror], observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    for mirror in mirrors {
        match decide(config, mirror, observed) {
            Ok(None) => {}
            Ok(Some((action, why))) => {
                let binds = matches!(action, Action::Create(_) | Action::Replace(_) | Action::Start);
                match observed.holders.get(&mirror.port).filter(|_| binds) {
                    Some(holder) => plan.blockers.push(Finding::new(
                        &mirror.host,
                        format!("port {} is held by {holder}", mirror.port),
                        format!("stop it, or give the mirror another `port` in [mirrors.\"{}\"]", mirror.host),
                    )),
                    None => plan.steps.push(Step { host: mirror.host.clone(), action, why }),
                }
            }
            Err(blocker) => plan.blockers.push(blocker),
        }
    }
    plan
}

type Decision = Result<Option<(Action, Vec<String>)>, Finding>;

fn decide(config: &Config, mirror: &Mirror, observed: &Observed) -> Decision {
    let Some(container) = observed.containers.get(&mirror.name) else {
        return Ok(Some((Action::Create(wanted_mode(config, Mode::Proxy)), vec!["absent".to_owned()])));
    };
    let mode = wanted_mode(config, container.mode());
    let drift = match container.label(LABEL_PREFIX) {
        Some(_) => container.drift(mirror, &config.bind),
        None => by_hand(config, mirror, container)?,
    };
    if !drift.is_empty() {
        return Ok(Some((Action::Replace(mode), drift)));
    }
    if mode != container.mode() && container.label(LABEL_PREFIX).is_some() {
        return Ok(Some((Action::Replace(mode), vec![format!("{} is asked for", mode.word())])));
    }
    let status = container.state.status.as_str();
    match status {
        "running" => running(config, mirror, container, observed),
        "restarting" => crashed(config, mirror, container, observed),
        "paused" => Ok(Some((Action::Unpause, vec!["paused".to_owned()]))),
        "exited" => Ok(Some((Action::Start, vec!["stopped".to_owned()]))),
        "created" if container.state.error.is_empty() => Ok(Some((Action::Start, vec!["never started".to_owned()]))),
        _ => {
            let error = Some(&container.state.error).filter(|error| !error.is_empty());
            let why = format!("{status}{}", error.map(|error| format!(": {error}")).unwrap_or_default());
            Ok(Some((Action::Replace(mode), vec![why])))
        }
    }
}

/// The mode to be in: the one asked for, or the one that it is in where the upstream decides.
fn wanted_mode(config: &Config, now: Mode) -> Mode {
    match config.offline {
        Offline::Auto => now,
        Offline::Always => Mode::Offline,
        Offline::Never => Mode::Proxy,
    }
}

/// What carries no label of ours is adopted when it is what the guide makes, and is otherwise never touched.
fn by_hand(config: &Config, mirror: &Mirror, container: &Container) -> Result<Vec<String>, Finding> {
    let rename = format!("remove or rename it (`docker rename {} OTHER`)", mirror.name);
    if container.upstream().is_none() {
        let problem = format!("a container named {} is there and is no proxy: {}", mirror.name, container.image());
        return Err(Finding::new(&mirror.host, problem, format!("{rename}, or set another `prefix`")));
    }
    let drift = container.guide_drift(mirror, &config.bind);
    if drift.is_empty() {
        return Ok(Vec::new());
    }
    let problem = format!("{} was made by hand and differs: {}", mirror.name, drift.join("; "));
    Err(Finding::new(&mirror.host, problem, format!("{rename}, or say the same in cache.toml")))
}

fn running(config: &Config, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let answers = observed.answering.contains(&mirror.host);
    let offline = container.mode() == Mode::Offline;
    if answers && offline && observed.reachable.contains(&mirror.host) {
        return Ok(Some((Action::Replace(Mode::Proxy), vec!["the upstream answers again".to_owned()])));
    }
    if answers {
        return Ok(None);
    }
    if !observed.waited.contains(&mirror.host) {
        return Ok(Some((Action::Wait, vec!["no answer yet".to_owned()])));
    }
    if offline || container.label(LABEL_PREFIX).is_none() {
        let problem = format!("{} runs and does not answer on port {}", mirror.name, mirror.port);
        return Err(Finding::new(&mirror.host, problem, format!("read `docker logs {}`", mirror.name)));
    }
    without_upstream(config, mirror, format!("{} is silent", mirror.upstream))
}

/// What to do where the upstream is out of reach: serve what is cached, unless that is not wanted.
fn without_upstream(config: &Config, mirror: &Mirror, why: String) -> Decision {
    if config.offline == Offline::Never {
        let fix = "reach the upstream from here, or let `offline` be \"auto\" to serve what is cached";
        return Err(Finding::new(&mirror.host, why, fix));
    }
    Ok(Some((Action::Replace(Mode::Offline), vec![why])))
}

/// Why a registry ends as soon as it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its upstream did not answer: every registry from 2.6 on panics then.
    Upstream,
    /// Its record of expiry dates, `scheduler-state.json`, is damaged.
    State,
    /// Anything else.
    Other,
}

/// Tells the causes apart by the registry's own last words (`panic: Get "https://host/v2/": ...` from 2.6 on).
pub fn crash(lines: &[String], upstream: &str) -> Crash {
    let asked = format!("panic: Get \"{upstream}/v2/\": ");
    // The only JSON that a registry reads when it starts is that record (2.8.2 and 3.1.1, an empty and a cut file).
    let json = ["unexpected end of JSON input", "invalid character ", "json: "].map(|word| format!("panic: {word}"));
    if lines.iter().any(|line| line.contains(&asked)) {
        Crash::Upstream
    } else if lines.iter().any(|line| json.iter().any(|word| line.starts_with(word))) {
        Crash::State
    } else {
        Crash::Other
    }
}

fn crashed(config: &Config, mirror: &Mirror, container: &Container, observed: &Observed) -> Decision {
    let lines = observed.crashes.get(&mirror.host).cloned().unwrap_or_default();
    let cause = crash(&lines, &mirror.upstream);
    if cause == Crash::Upstream && container.label(LABEL_PREFIX).is_some() {
        let word = lines.iter().find_map(|line| line.split_once("/v2/\": ").map(|(_, word)| word.to_owned()));
        return without_upstream(
            config,
            mirror,
            format!("{} is out of reach: {}", mirror.upstream, word.unwrap_or_default()),
        );
    }
    if cause == Crash::State && container.label(LABEL_PREFIX).is_some() {
        return Ok(Some((Action::Mend, vec![format!("its scheduler-state.json is damaged: {}", lines.join(" "))])));
    }
    let problem = format!("{} ends as soon as it starts", mirror.name);
    let fix = format!("mend what its last lines name, then `cargo xtask cache-up {}`", mirror.host);
    Err(Finding::new(&mirror.host, problem, fix).seen(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bind, Overrides};
    use crate::docker::containers;
    use camino::Utf8Path;
    use serde_json::{Value, json};

    fn config() -> Config {
        Config::load(Utf8Path::new("/nonexistent"), &Overrides::default()).unwrap()
    }

    fn mirror() -> Mirror {
        config().mirrors[0].clone()
    }

    fn observed(change: impl Fn(&mut Value)) -> Observed {
        let args: Vec<String> = crate::docker::run(&mirror(), Mode::Proxy, "registry-", &Bind::All, "r")
            .argv()
            .map(str::to_owned)
            .collect();
        let env: Vec<&String> = args.windows(2).filter(|pair| pair[0] == "--env").map(|pair| &pair[1]).collect();
        let mut value = json!([{
            "Id": "abc", "Name": "/registry-docker.io", "State": {"Status": "running", "Error": ""},
            "Config": {"Image": "registry:2", "Env": env, "Labels": {LABEL_PREFIX: "registry-"}},
            "HostConfig": {"PortBindings": {"5000/tcp": [{"HostIp": "", "HostPort": "5000"}]}},
            "Mounts": [{"Name": "registry-docker.io", "Destination": "/var/lib/registry"}]
        }]);
        change(&mut value[0]);
        let container = containers(value.to_string().as_bytes()).unwrap().remove(0);
        let containers = [(container.name().to_owned(), container)].into();
        Observed { containers, ..Observed::default() }
    }

    fn action(observed: &Observed) -> Option<Action> {
        let plan = up(&config(), &[mirror()], observed);
        assert_eq!(plan.blockers, []);
        plan.steps.first().map(|step| step.action)
    }

    fn blocker(observed: &Observed) -> Finding {
        let mut plan = up(&config(), &[mirror()], observed);
        assert_eq!(plan.steps, []);
        plan.blockers.remove(0)
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
        let mut seen = observed(|json| json["State"]["Status"] = json!("restarting"));
        let last = "panic: Get \"https://registry-1.docker.io/v2/\": dial tcp: no such host";
        seen.crashes.insert("docker.io".into(), vec![last.into()]);
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
        let with = |offline, observed: &Observed| up(&Config { offline, ..config() }, &[mirror()], observed);
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
            let mut seen = observed(|json| json["State"]["Status"] = json!("restarting"));
            seen.crashes.insert("docker.io".into(), vec![words.into()]);
            assert_eq!(action(&seen), Some(Action::Mend));
        }
    }

    #[test]
    fn another_crash_is_shown_and_not_touched() {
        let mut seen = observed(|json| json["State"]["Status"] = json!("restarting"));
        seen.crashes.insert("docker.io".into(), vec!["configuration error".into()]);
        assert_eq!(blocker(&seen).seen, ["configuration error"]);
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
}
