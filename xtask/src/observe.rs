//! One look at the engine a round: a list and one inspect together, then what only some proxies need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::Mutex;

use crate::config::{Bind, Config, Mirror, Offline};
use crate::docker::{self, Container, LABEL_PREFIX, Mode};
use crate::error::{Error, Result};
use crate::exec::{Cmd, Output, Runner};
use crate::plan::Observed;
use crate::registry;

/// Enough to hold the stack of a panic and what stood before it.
const CRASH_LINES: usize = 80;

/// What a whole look needs to know beside the wish.
pub struct Look<'a> {
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to look at.
    pub mirrors: &'a [Mirror],
    /// Hosts that were waited for without an answer.
    pub waited: &'a BTreeSet<String>,
}

/// Observes the mirrors.
///
/// # Errors
/// The engine does not answer; that is never taken for "nothing is there".
pub fn observe(runner: &dyn Runner, look: &Look) -> Result<Observed> {
    let names: Vec<String> = look.mirrors.iter().map(|mirror| mirror.name.clone()).collect();
    let (list, inspect) = std::thread::scope(|scope| {
        let list = scope.spawn(|| runner.run(&docker::list()));
        let inspect = runner.run(&docker::inspect(&names));
        (list.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), inspect)
    });
    let listing = engine_answer(&docker::list(), list?)?.text();
    let containers: BTreeMap<String, Container> = docker::containers(&inspect?.stdout)?
        .into_iter()
        .map(|container| (container.name().to_owned(), container))
        .collect();
    let holders = holders(look, &containers, &listing);
    let details = details(runner, look, &containers)?;
    Ok(Observed { containers, holders, waited: look.waited.clone(), ..details })
}

/// The answer of a command that only fails when the engine does.
///
/// # Errors
/// It failed; the error says how to get an engine that answers.
pub fn engine_answer(cmd: &Cmd, output: Output) -> Result<Output> {
    let denied = String::from_utf8_lossy(&output.stderr).contains("permission denied");
    let fix = if denied {
        "add yourself to the group that may use the engine (`sudo usermod -aG docker $USER`, then log in again), or use sudo"
    } else {
        "start the engine (`cargo xtask onboard` does), or set DOCKER_HOST to the one you mean"
    };
    output.checked(cmd, fix)
}

/// Runs something for each mirror at once and gives back what it found, by host.
pub fn each<T: Send>(mirrors: &[&Mirror], work: impl Fn(&Mirror) -> T + Sync) -> Vec<(String, T)> {
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for mirror in mirrors {
            scope.spawn(|| {
                let result = work(mirror);
                found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((mirror.host.clone(), result));
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[derive(Default)]
struct Detail {
    answers: bool,
    reachable: bool,
    crash: Option<Vec<String>>,
}

fn details(runner: &dyn Runner, look: &Look, containers: &BTreeMap<String, Container>) -> Result<Observed> {
    let there: Vec<&Mirror> = look.mirrors.iter().filter(|mirror| containers.contains_key(&mirror.name)).collect();
    let mut observed = Observed::default();
    for (host, detail) in each(&there, |mirror| detail(runner, look.config, mirror, &containers[&mirror.name])) {
        let detail = detail?;
        if detail.answers {
            observed.answering.insert(host.clone());
        }
        if detail.reachable {
            observed.reachable.insert(host.clone());
        }
        if let Some(lines) = detail.crash {
            observed.crashes.insert(host, lines);
        }
    }
    Ok(observed)
}

fn detail(runner: &dyn Runner, config: &Config, mirror: &Mirror, container: &Container) -> Result<Detail> {
    let mut detail = Detail::default();
    match container.state.status.as_str() {
        "running" => {
            detail.answers = registry::answers(&registry::address(mirror, &config.bind));
            let may_return = config.offline == Offline::Auto && container.mode() == Mode::Offline;
            if detail.answers && may_return {
                runner.lines(&docker::probe_upstream(mirror), &mut |line| {
                    detail.reachable |= docker::upstream_answered(line);
                    !detail.reachable
                })?;
            }
        }
        "restarting" => {
            let output = runner.run(&docker::logs(&mirror.name, CRASH_LINES))?;
            let all = [output.stdout, output.stderr].concat();
            detail.crash = Some(registry::last_words(&String::from_utf8_lossy(&all)));
        }
        _ => {}
    }
    Ok(detail)
}

/// Who holds a port that a mirror wants and does not hold itself: another container, or a process.
fn holders(look: &Look, containers: &BTreeMap<String, Container>, listing: &str) -> BTreeMap<u16, String> {
    let mut holders = BTreeMap::new();
    for mirror in look.mirrors {
        let holds = |container: &Container| {
            container.publishes(mirror.port)
                && matches!(container.state.status.as_str(), "running" | "paused" | "restarting")
        };
        if containers.get(&mirror.name).is_some_and(holds) {
            continue;
        }
        let by_container = listing.lines().find_map(|line| {
            let (name, ports) = line.split_once('\t')?;
            (name != mirror.name && docker::host_ports(ports).contains(&mirror.port))
                .then(|| format!("container {name}"))
        });
        if let Some(holder) = by_container.or_else(|| process(&look.config.bind, mirror.port)) {
            holders.insert(mirror.port, holder);
        }
    }
    holders
}

fn process(bind: &Bind, port: u16) -> Option<String> {
    let address = match bind {
        Bind::All => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Bind::Address(address) => *address,
    };
    let error = TcpListener::bind((address, port)).err()?;
    if error.kind() != std::io::ErrorKind::AddrInUse {
        return None;
    }
    let named = listeners::get_process_by_port(port, listeners::Protocol::TCP);
    Some(named.map_or_else(
        |_| "a process that only root can name".to_owned(),
        |process| format!("process {} (pid {})", process.name, process.pid),
    ))
}

/// The names of all containers and volumes that carry our label for this prefix, whatever is configured now.
///
/// # Errors
/// The engine does not answer.
pub fn ours(runner: &dyn Runner, prefix: &str) -> Result<(Vec<String>, Vec<String>)> {
    let names = |cmd: Cmd| -> Result<Vec<String>> {
        let output = engine_answer(&cmd, runner.run(&cmd)?)?;
        Ok(output.text().lines().map(str::to_owned).collect())
    };
    Ok((names(docker::our_containers(prefix))?, names(docker::our_volumes(prefix))?))
}

/// Whether a container is ours: it carries the label, or is what the guide would have made.
pub fn is_ours(config: &Config, mirror: &Mirror, container: &Container) -> bool {
    match container.label(LABEL_PREFIX) {
        Some(prefix) => prefix == config.prefix,
        None => container.guide_drift(mirror, &config.bind).is_empty(),
    }
}

/// Asks the engine for its version, and says no to one that is too old.
///
/// # Errors
/// It does not answer, or is older than Docker 18.03.
pub fn check_version(runner: &dyn Runner) -> Result<()> {
    let cmd = docker::version();
    let text = engine_answer(&cmd, runner.run(&cmd)?)?.text();
    let (api, release) = text
        .trim()
        .split_once(' ')
        .ok_or_else(|| Error::Answer { command: cmd.shell(), problem: format!("{:?} is no version", text.trim()) })?;
    crate::tool::check_engine(api, release)
}
