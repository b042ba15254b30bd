//! One look at the engine a round: one inspect, a list where that leaves a question, then what only some proxies need.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use camino::Utf8PathBuf;

use crate::config::{Bind, Config, Credentials, Mirror, Offline};
use crate::container::{self, Container};
use crate::crash::{Crash, crash, may_be_tls};
use crate::credentials::{self, Found};
use crate::docker::{self, LABEL_PREFIX, Listed, Mode};
use crate::endpoint;
use crate::error::{Error, Result};
use crate::exec::{Cmd, Output, Runner};
use crate::listen::{self, Listen};
use crate::login::{self, Login};
use crate::own_address::{self, refused};
use crate::plan::{Observed, Tried};
use crate::{disk, registry, upstream};

/// Enough to hold the stack of a panic and what stood before it.
const CRASH_LINES: usize = 80;

/// What a whole look needs to know beside the wish.
pub struct Look<'a> {
    /// The settings in force.
    pub config: &'a Config,
    /// The mirrors to look at.
    pub mirrors: &'a [Mirror],
    /// What this run has tried so far.
    pub tried: &'a Tried,
    /// Whether to ask the upstreams of offline proxies if they are back, which takes seconds for one that is silent; and
    /// again for credentials that they refused.
    pub returns: bool,
    /// Whether it matters what proxies make of their credentials, which may be a question to their upstreams.
    pub logins: bool,
    /// Whether proxies that were made by hand may be replaced, so that it matters where they keep what they cached.
    pub adopt: bool,
}

/// Observes the mirrors: one inspect of all names and, where that leaves a question, one list.
///
/// # Errors
/// The engine does not answer; that is never taken for "nothing is there".
pub fn observe(runner: &dyn Runner, look: &Look) -> Result<Observed> {
    let names: Vec<String> = look.mirrors.iter().map(|mirror| mirror.name.clone()).collect();
    let inspect = runner.run(&docker::inspect(&names))?;
    // A client that never got as far as the engine prints nothing; the list below has its words.
    let nothing = !inspect.ok() && inspect.text().trim().is_empty();
    let found = if nothing { Vec::new() } else { container::containers(&inspect.stdout)? };
    if inspect.ok() && found.len() != names.len() {
        let problem = format!("{} containers were asked for, and it describes {}", names.len(), found.len());
        return Err(Error::Answer { command: docker::inspect(&names).shell(), problem });
    }
    let containers: BTreeMap<String, Container> =
        found.into_iter().map(|container| (container.name().to_owned(), container)).collect();
    // An inspect that fails says nothing of the engine: it ends the same way for one absent name and for no engine.
    let wanted: Vec<&Mirror> = look.mirrors.iter().filter(|mirror| !holds_its_port(mirror, &containers)).collect();
    let listing = if inspect.ok() && wanted.is_empty() { Vec::new() } else { listing(runner)? };
    let listen = listen(runner, look.config.bind)?;
    // Ports and addresses of this host matter to what is to be published, and only where the engine is here.
    let local = (wanted.is_empty() && listen.0.is_empty()) || endpoint::is_local(runner)?;
    let given_up = given_up(look.mirrors, &containers, &listing);
    let wanted: Vec<&Mirror> = wanted.into_iter().filter(|mirror| !given_up.contains(&mirror.port)).collect();
    let holders = holders(&wanted, &listen, &listing, local);
    let unbindable = if local { own_address::unbindable(&listen) } else { None };
    let all = &look.config.mirrors;
    let may_lead_back = own_address::may_lead_back(all) && endpoint::is_local(runner)?;
    let cycles = if may_lead_back { own_address::cycles(all, &listen) } else { BTreeMap::new() };
    let unfinished = |mirror: &&Mirror| listing.iter().any(|entry| entry.name == docker::copier(mirror));
    let unfinished = look.mirrors.iter().filter(unfinished).map(|mirror| mirror.host.clone()).collect();
    let details = details(runner, look, &containers)?;
    Ok(Observed { containers, holders, unbindable, cycles, listen, unfinished, tried: look.tried.clone(), ..details })
}

/// The addresses to publish on.
///
/// # Errors
/// The engine does not say where its bridge is.
pub fn listen(runner: &dyn Runner, bind: Bind) -> Result<Listen> {
    match bind {
        Bind::All => Ok(Listen::default()),
        Bind::Address(address) => Ok(Listen(vec![address])),
        Bind::Local => {
            let cmd = listen::bridge();
            let bridge = listen::bridge_address(&engine_answer(&cmd, runner.run(&cmd)?)?.text())?;
            Ok(Listen(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), bridge]))
        }
    }
}

/// The answer of a command that only fails when the engine does.
///
/// # Errors
/// It failed; the error says how to get an engine that answers.
pub fn engine_answer(cmd: &Cmd, output: Output) -> Result<Output> {
    let denied = String::from_utf8_lossy(&output.stderr).contains("permission denied");
    let no_context = String::from_utf8_lossy(&output.stderr).contains("context not found");
    let fix = if no_context {
        endpoint::NO_CONTEXT
    } else if denied {
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
    unusable: Option<String>,
    cached: bool,
    account: Option<Found>,
    login: Option<Login>,
    own_layer: Option<String>,
}

fn details(runner: &dyn Runner, look: &Look, containers: &BTreeMap<String, Container>) -> Result<Observed> {
    let there: Vec<&Mirror> = look.mirrors.iter().filter(|mirror| containers.contains_key(&mirror.name)).collect();
    let mut observed = Observed::default();
    for (host, detail) in each(&there, |mirror| detail(runner, look, mirror, &containers[&mirror.name])) {
        let detail = detail?;
        if detail.answers {
            observed.answering.insert(host.clone());
        }
        if detail.reachable {
            observed.reachable.insert(host.clone());
        }
        if let Some(lines) = detail.crash {
            observed.crashes.insert(host.clone(), lines);
        }
        if let Some(reason) = detail.unusable {
            observed.unusable.insert(host.clone(), reason);
        }
        if detail.cached {
            observed.cached.insert(host.clone());
        }
        if let Some(found) = detail.account {
            observed.accounts.insert(host.clone(), found);
        }
        if let Some(login) = detail.login {
            observed.logins.insert(host.clone(), login);
        }
        if let Some(place) = detail.own_layer {
            observed.own_layers.insert(host, place);
        }
    }
    Ok(observed)
}

fn detail(runner: &dyn Runner, look: &Look, mirror: &Mirror, container: &Container) -> Result<Detail> {
    let mut detail = Detail::default();
    let config = look.config;
    if container.label(LABEL_PREFIX).is_none() && look.adopt {
        detail.own_layer = own_layer(runner, mirror)?;
    }
    let account =
        mirror.credentials.as_ref().filter(|_| container.mode() == Mode::Proxy && container.has_credentials());
    if let Some(credentials) = account {
        detail.account = Some(account_of(runner, mirror, credentials)?);
    }
    match container.state.status.as_str() {
        "running" => {
            let (answers, unusable) = together(
                || registry::answers(&registry::address(mirror, config.bind)),
                || unusable_while_it_runs(runner, container),
            );
            detail.answers = answers || answers_inside(runner, mirror)?;
            detail.unusable = unusable?;
            let may_return = config.offline == Offline::Auto && container.mode() == Mode::Offline;
            // Whoever has just been waited for in vain is not back yet, and what this run turned offline stays that.
            let settled = [&look.tried.waited, &look.tried.offline].iter().any(|hosts| hosts.contains(&mirror.host));
            if detail.answers && may_return && look.returns && !settled {
                runner.lines(&docker::probe_upstream(mirror), &mut |line| {
                    detail.reachable |= docker::upstream_answered(line);
                    !detail.reachable
                })?;
            }
            if detail.answers && look.logins && account.is_some() {
                detail.login = Some(login::login(runner, mirror, container, config.bind, look.returns)?);
            }
        }
        "restarting" => {
            let output = runner.run(&docker::logs(&mirror.name, CRASH_LINES))?;
            let all = [output.stdout, output.stderr].concat();
            let lines = registry::last_words(&String::from_utf8_lossy(&all));
            detail.unusable = unusable(runner, container, &lines)?;
            detail.cached = detail.unusable.is_some() && has_cached(runner, mirror, container)?;
            detail.crash = Some(lines);
        }
        _ => {}
    }
    Ok(detail)
}

/// Where a proxy keeps its store in its container's own layer. One that another run has just removed keeps none.
///
/// # Errors
/// The engine does not answer, or its answer cannot be read.
pub fn own_layer(runner: &dyn Runner, mirror: &Mirror) -> Result<Option<String>> {
    let cmd = docker::diff(&mirror.name);
    let output = runner.run(&cmd)?;
    if !output.ok() && String::from_utf8_lossy(&output.stderr).contains("No such container") {
        return Ok(None);
    }
    let changes = output.checked(&cmd, "see what the engine says of it, then run this again")?;
    docker::stores_in_its_layer(&cmd, &changes.text())
}

/// Why the upstream of a registry that runs cannot be used: it was turned offline for that, or has started all the same.
fn unusable_while_it_runs(runner: &dyn Runner, container: &Container) -> Result<Option<String>> {
    Ok(match container.mode() {
        Mode::Offline => container.label(docker::LABEL_UNUSABLE).map(str::to_owned),
        Mode::Proxy => {
            is_of_tls(runner, container, upstream::refuses_plain_http)?.then(|| upstream::SPEAKS_TLS.to_owned())
        }
    })
}

/// Why the upstream of a registry that ends as soon as it starts cannot be used, where it was reached.
fn unusable(runner: &dyn Runner, container: &Container, lines: &[String]) -> Result<Option<String>> {
    Ok(match crash(lines) {
        Crash::Unusable(reason) => Some(reason),
        Crash::Unreachable(reason) if may_be_tls(&reason) && is_of_tls(runner, container, upstream::speaks_tls)? => {
            Some(upstream::SPEAKS_TLS.to_owned())
        }
        _ => None,
    })
}

/// Whether a container's upstream is a server of TLS behind an `http://` address. Asked from this host, where the engine
/// is: the same address leads another engine elsewhere.
fn is_of_tls(runner: &dyn Runner, container: &Container, asks: fn(&str) -> bool) -> Result<bool> {
    let plain = container.upstream().filter(|upstream| upstream.starts_with("http://"));
    plain.map_or(Ok(false), |upstream| Ok(endpoint::is_local(runner)? && asks(upstream)))
}

/// Whether a registry has anything cached: by a look at its store where that is allowed, else as its engine gives it out.
fn has_cached(runner: &dyn Runner, mirror: &Mirror, container: &Container) -> Result<bool> {
    if let Some(links) = container.store_path().and_then(|path| disk::has_links(runner, path)) {
        return Ok(links);
    }
    let output = runner.run(&docker::get_links(&mirror.name))?;
    Ok(output.ok() && String::from_utf8_lossy(&output.stdout).contains("/link"))
}

/// Whether a container has the account that is configured. That its file is not there is an answer; that the engine
/// cannot say is none.
fn account_of(runner: &dyn Runner, mirror: &Mirror, credentials: &Credentials) -> Result<Found> {
    let cmd = docker::get_credentials(&mirror.name);
    let output = runner.run(&cmd)?;
    let word = String::from_utf8_lossy(&output.stderr).to_lowercase();
    let absent =
        ["could not find the file", "no such file", "no such container"].iter().any(|text| word.contains(text));
    if !output.ok() && absent {
        return Ok(Found::Differs);
    }
    let archive = output.checked(&cmd, "see what the engine says of it, then run this again")?;
    credentials::compare(mirror, credentials, &archive.stdout)
        .map_err(|problem| Error::Answer { command: cmd.shell(), problem })
}

/// Whether a registry answers in its own container: where that is so and [`registry::answers`] says no, this host is
/// not the engine's.
///
/// # Errors
/// The client cannot be started.
pub fn answers_inside(runner: &dyn Runner, mirror: &Mirror) -> Result<bool> {
    Ok(runner.run(&docker::ask_inside(&mirror.name))?.ok())
}

fn holds_its_port(mirror: &Mirror, containers: &BTreeMap<String, Container>) -> bool {
    containers.get(&mirror.name).is_some_and(|container| {
        container.publishes(mirror.port)
            && !container.lost_its_network()
            && matches!(container.state.status.as_str(), "running" | "paused" | "restarting")
    })
}

/// The ports that proxies of ours hold and are about to give up, since the settings give them others.
fn given_up(mirrors: &[Mirror], containers: &BTreeMap<String, Container>, listing: &[Listed]) -> BTreeSet<u16> {
    let moves = |name: &str| {
        let mirror = mirrors.iter().find(|mirror| mirror.name == name);
        let both = mirror.zip(containers.get(name));
        both.is_some_and(|(mirror, found)| found.label(LABEL_PREFIX).is_some() && !found.publishes(mirror.port))
    };
    listing.iter().filter(|entry| moves(&entry.name)).flat_map(|entry| entry.ports.iter().copied()).collect()
}

/// Who holds a port that a mirror wants and does not hold itself: another container, or a process.
fn holders(mirrors: &[&Mirror], listen: &Listen, listing: &[Listed], local: bool) -> BTreeMap<u16, String> {
    let holder = |mirror: &Mirror| {
        let other = |entry: &&Listed| entry.name != mirror.name && entry.ports.contains(&mirror.port);
        let by_container = listing.iter().find(other).map(|entry| format!("container {}", entry.name));
        by_container.or_else(|| process(listen, mirror.port, local))
    };
    mirrors.iter().filter_map(|mirror| Some((mirror.port, holder(mirror)?))).collect()
}

fn process(listen: &Listen, port: u16, local: bool) -> Option<String> {
    let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    let addresses = if listen.0.is_empty() { &every[..] } else { &listen.0[..] };
    if !local {
        return None;
    }
    if !addresses.iter().any(|address| refused(*address, port) == Some(ErrorKind::AddrInUse)) {
        return None;
    }
    let named = listeners::get_process_by_port(port, listeners::Protocol::TCP);
    Some(named.map_or_else(
        |_| "a process that only root can name".to_owned(),
        |process| format!("process {} (pid {})", process.name, process.pid),
    ))
}

/// The rows that a listing of the engine prints.
///
/// # Errors
/// The engine does not answer, or its answer cannot be read.
pub fn rows<const N: usize>(runner: &dyn Runner, cmd: &Cmd) -> Result<Vec<[String; N]>> {
    docker::rows(cmd, &engine_answer(cmd, runner.run(cmd)?)?.text())
}

/// All containers of the engine, ours or not.
///
/// # Errors
/// The engine does not answer.
pub fn listing(runner: &dyn Runner) -> Result<Vec<Listed>> {
    let cmd = docker::list();
    docker::listed(&engine_answer(&cmd, runner.run(&cmd)?)?.text())
}

/// A volume of the engine.
pub struct Volume {
    /// The value of our label; empty where it carries none.
    pub prefix: String,
    /// Where it is on the engine's host.
    pub path: Utf8PathBuf,
}

/// All volumes, or those of ours that were made for a prefix, by name.
///
/// # Errors
/// The engine does not answer.
pub fn volumes(runner: &dyn Runner, prefix: Option<&str>) -> Result<BTreeMap<String, Volume>> {
    let cmd = docker::list_volumes(prefix);
    let text = engine_answer(&cmd, runner.run(&cmd)?)?.text();
    let rows = docker::rows(&cmd, &text)?.into_iter();
    Ok(rows.map(|[name, prefix, path]| (name, Volume { prefix, path: path.into() })).collect())
}

/// Does two things at once.
pub fn together<A: Send, B>(one: impl FnOnce() -> A + Send, other: impl FnOnce() -> B) -> (A, B) {
    std::thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        (one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), other)
    })
}

/// Observes mirrors that nobody has waited for.
///
/// # Errors
/// There is no client, or the engine does not answer.
pub fn look(runner: &dyn Runner, config: &Config, mirrors: &[Mirror]) -> Result<Observed> {
    look_for(runner, config, mirrors, false)
}

/// The same, with what their health depends on besides: whether credentials are used and taken.
///
/// # Errors
/// As for [`look`].
pub fn look_at_health(runner: &dyn Runner, config: &Config, mirrors: &[Mirror]) -> Result<Observed> {
    look_for(runner, config, mirrors, true)
}

fn look_for(runner: &dyn Runner, config: &Config, mirrors: &[Mirror], logins: bool) -> Result<Observed> {
    crate::tool::Tool::Docker.require()?;
    observe(runner, &Look { config, mirrors, tried: &Tried::default(), returns: false, logins, adopt: false })
}

/// Whether a container is ours: it carries the label, or is what the guide would have made.
pub fn is_ours(config: &Config, mirror: &Mirror, container: &Container, listen: &Listen) -> bool {
    match container.label(LABEL_PREFIX) {
        Some(prefix) => prefix == config.prefix,
        None => container.guide_drift(mirror, listen).is_empty(),
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
