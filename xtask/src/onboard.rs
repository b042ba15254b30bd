//! `onboard`: from a machine that has only Rust and git to caches that answer.

use std::io::{BufRead, IsTerminal};

use crate::app::App;
use crate::cli::Up;
use crate::error::{Error, Result};
use crate::{app, cache, engine};

/// Makes sure of an engine, brings the caches up, and says what to run next.
///
/// # Errors
/// There is no engine and none can be had, the user says no, or the caches do not come up.
pub fn onboard(app: &App, yes: bool, up: &Up) -> Result<()> {
    let needs = engine::needs(&app.processes)?;
    if !needs.is_empty() {
        let list: String = needs.iter().map(|need| format!("  {}\n", need.line())).collect();
        if app.dry_run {
            return app::write(&format!("would do, before the caches are brought up:\n{list}"));
        }
        if !yes && !agreed(app, &list)? {
            return Err(Error::Usage {
                problem: "nothing was installed or started".to_owned(),
                fix: "run it with --yes, or start an engine yourself".to_owned(),
            });
        }
        engine::provide(&app.processes, app.term, &needs)?;
    }
    cache::up(app, &[], up)?;
    if !app.dry_run && !app.json {
        app.term.step("next: `cargo xtask cache-status` shows the caches; README.md has how nodes use them");
    }
    Ok(())
}

fn agreed(app: &App, list: &str) -> Result<bool> {
    app.term.warn(&format!("there is no engine that answers; this would\n{list}"));
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    app.term.step("go on? [y/N]");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Error::io("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
