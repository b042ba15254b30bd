//! `ci`: gets whatever the tests need, then format, lints and all tests.

use crate::app::App;
use crate::engine;
use crate::error::Result;
use crate::exec::Cmd;

/// Checks everything, the tests on a real engine included.
///
/// # Errors
/// The first check that fails; its own output has been shown.
pub fn ci(app: &App) -> Result<()> {
    let needs = engine::needs(&app.processes)?;
    engine::provide(&app.processes, app.term, &needs)?;
    for args in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"],
        &["test", "--workspace"],
    ] {
        let cmd = Cmd::write("cargo").args(args.iter().copied());
        app.processes.attached(&cmd)?.checked(&cmd, "mend what it names above")?;
    }
    Ok(())
}
