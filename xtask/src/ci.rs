//! `ci`: gets whatever the tests need, then format, lints and all tests.

use crate::app::App;
use crate::engine;
use crate::error::Result;
use crate::exec::Cmd;
use crate::tool::Tool;

/// What the tests run beside the engine and the node's containerd, which comes with it, and where Debian has it.
const NEEDED: [(Tool, &str); 5] = [
    (Tool::Ctr, "containerd"),
    (Tool::Ip, "iproute2"),
    (Tool::Busybox, "busybox-static"),
    (Tool::Qemu, "qemu-system-x86"),
    (Tool::Curl, "curl"),
];

/// Checks everything, the tests on a real engine included.
///
/// # Errors
/// The first check that fails; its own output has been shown.
pub fn ci(app: &App) -> Result<()> {
    let needs = engine::needs(&app.processes)?;
    engine::provide(&app.processes, app.term, &needs)?;
    let missing: Vec<&str> =
        NEEDED.iter().filter(|(tool, _)| tool.path().is_none()).map(|(_, package)| *package).collect();
    if !missing.is_empty() {
        Tool::AptGet.require()?;
        engine::install(&app.processes, &missing)?;
    }
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
