//! What carries no label of ours: left as it is when it is what the guide makes, replaced when that was asked for, and
//! otherwise never touched.

use super::{Observed, Wanted, differs, unstartable};
use crate::config::{Mirror, Offline};
use crate::container::Container;
use crate::error::Finding;

/// What is to be replaced, as phrases; none where it is left as it is.
///
/// # Errors
/// It differs, and may not or cannot be replaced.
pub(super) fn drift(
    wanted: Wanted,
    mirror: &Mirror,
    container: &Container,
    observed: &Observed,
) -> Result<Vec<String>, Finding> {
    if container.upstream().is_none() {
        return Err(foreign(mirror, container));
    }
    let mut drift = differs(mirror, container, observed);
    drift.extend(unstartable(mirror, observed));
    if wanted.config.offline == Offline::Always {
        drift.push("offline is asked for".to_owned());
    }
    if drift.is_empty() {
        return Ok(drift);
    }
    if wanted.adopt {
        if let Some(finding) = elsewhere(mirror, container, observed) {
            return Err(finding);
        }
        drift.push("its cache is moved to the volume".to_owned());
        return Ok(drift);
    }
    let unfinished = observed.unfinished.contains(&mirror.host);
    let more = if unfinished { " (an earlier --adopt was interrupted before its cache was copied)" } else { "" };
    let problem = format!("{} was made by hand and differs: {}{more}", mirror.name, drift.join("; "));
    let fix = match container.kept_elsewhere() {
        Some(_) => format!("{}, or say the same in cache.toml", rename(mirror)),
        None => format!(
            "`cargo xtask cache-up --adopt {}` replaces it and keeps what it has cached; or say the same in cache.toml",
            mirror.host
        ),
    };
    Err(Finding::new(&mirror.host, problem, fix))
}

/// That a proxy may keep what it has cached where adoption does not look.
pub(super) fn elsewhere(mirror: &Mirror, container: &Container, observed: &Observed) -> Option<Finding> {
    let own_layer = observed.own_layers.get(&mirror.host).map(String::as_str);
    let place = container.kept_elsewhere().or(own_layer)?;
    let problem = format!("{} may keep its cache in {place}, where --adopt does not look", mirror.name);
    Some(Finding::new(&mirror.host, problem, rename(mirror)))
}

fn foreign(mirror: &Mirror, container: &Container) -> Finding {
    let name = &mirror.name;
    let problem = match container.mounted_configuration() {
        Some(file) => {
            format!("container {name} takes its configuration from the mounted {file}, which this tool does not read")
        }
        None => format!("container {name} exists but is not a registry proxy: {}", container.image()),
    };
    Finding::new(&mirror.host, problem, format!("{}, or set another `prefix`", rename(mirror)))
}

fn rename(mirror: &Mirror) -> String {
    format!("remove or rename it (`docker rename {} OTHER`)", mirror.name)
}
