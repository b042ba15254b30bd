//! The cache of a proxy that was made by hand, on its way to the volume of its mirror.

use crate::config::Mirror;
use crate::container::{self, Container};
use crate::docker::{self, LABEL_RUN};
use crate::error::{Error, Result};
use crate::exec::Runner;
use crate::plan::Observed;
use crate::reconcile::Reconcile;

/// Copies what a container made by hand has cached to the mirror's volume, while it is stopped. Where that fails, or is
/// interrupted, the container goes on as it was, and nothing of the copy is ever served.
///
/// # Errors
/// The engine refuses, another run copies the same, or a signal ended it.
pub fn save_store(run: &Reconcile, mirror: &Mirror, observed: &Observed, id: &str) -> Result<()> {
    let Some(container) = observed.containers.get(&mirror.name) else { return Ok(()) };
    if container.store() == Some(&mirror.name) {
        return Ok(());
    }
    let done = copier(run.runner, mirror)?;
    if let Some(earlier) = &done {
        if earlier.state.status == "running" {
            return another_run(run, earlier);
        }
        run.go(&docker::remove_copiers(std::slice::from_ref(&earlier.id)))?;
    }
    run.go(&docker::stop(std::slice::from_ref(&container.id)))?;
    if done.is_some_and(|earlier| has_copied_all(&earlier, container)) {
        return Ok(());
    }
    let copied = run.go(&docker::copy_store(mirror, &container.id, &run.config.prefix, id));
    match &copied {
        Ok(()) => run.go(&docker::remove_copiers(&[docker::copier(mirror)]))?,
        Err(_) => go_on(run, mirror, container, id)?,
    }
    copied
}

/// Whether the copier of a run that was killed has copied all, and the container has not run since.
fn has_copied_all(copier: &Container, container: &Container) -> bool {
    let started = |container: &Container| humantime::parse_rfc3339(&container.state.started_at).ok();
    let stayed = container.state.status == "exited" && started(container) < started(copier);
    copier.state.status == "exited" && copier.state.exit_code == 0 && started(container).is_some() && stayed
}

/// Waits for the copy of another run, which goes on with it; what is left to do the next look tells.
fn another_run(run: &Reconcile, copier: &Container) -> Result<()> {
    let cmd = docker::wait(&copier.id);
    let bar = run.term.waiting(format!("waiting for {}, which another run started", copier.name()));
    run.runner.lines(&cmd, &mut |_| true)?;
    drop(bar);
    Err(Error::Command {
        command: cmd.shell(),
        status: "the end of another run's copy".to_owned(),
        seen: vec!["another run copied the same cache".to_owned()],
        fix: String::new(),
    })
}

/// Lets the container go on as it was. The end of a client is no end of the copy, which has to be ended itself; it stays
/// as the sign of an unfinished one.
fn go_on(run: &Reconcile, mirror: &Mirror, container: &Container, id: &str) -> Result<()> {
    match copier(run.runner, mirror)? {
        // Another run was faster, and has stopped the container for its own copy.
        Some(copier) if copier.label(LABEL_RUN) != Some(id) => return Ok(()),
        Some(copier) if copier.state.status == "running" => run.go(&docker::kill(&copier.id))?,
        _ => {}
    }
    run.go(&docker::start(&container.id))?;
    run.term.step(&format!(
        "The copy of the cache of {} is unfinished, and the container runs as before; \
         `cargo xtask cache-up --adopt {}` starts the copy over",
        mirror.name, mirror.host
    ));
    Ok(())
}

/// Removes what an unfinished copy left on the volume of a mirror whose container is gone, or has another name now.
///
/// # Errors
/// The engine refuses.
pub fn discard(run: &Reconcile, mirror: &Mirror) -> Result<()> {
    // Releases before 20.10 call it a failure that it is gone.
    if let Some(copier) = copier(run.runner, mirror)? {
        run.go(&docker::remove_copiers(&[copier.id]))?;
    }
    run.go(&docker::discard_copy(mirror, &run.config.prefix))
}

fn copier(runner: &dyn Runner, mirror: &Mirror) -> Result<Option<Container>> {
    let output = runner.run(&docker::inspect(&[docker::copier(mirror)]))?;
    Ok(container::containers(&output.stdout)?.pop())
}
