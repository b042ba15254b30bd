//! `ci`: gets whatever the tests need, then format, lints and all tests.

use serde_json::json;

use crate::app::App;
use crate::cluster::firmware;
use crate::error::Result;
use crate::exec::Cmd;
use crate::tool::Tool;
use crate::{engine, image};

/// What the tests run beside the engine and the node's containerd, which comes with it, and where Debian has it.
const NEEDED: [(Tool, &str); 10] = [
    (Tool::Ctr, "containerd"),
    (Tool::Ip, "iproute2"),
    (Tool::Busybox, "busybox-static"),
    (Tool::Qemu, "qemu-system-x86"),
    (Tool::Curl, "curl"),
    (Tool::Sudo, "sudo"),
    (Tool::Script, "bsdutils"),
    (Tool::Zsh, "zsh"),
    (Tool::Fish, "fish"),
    (Tool::Elvish, "elvish"),
];

/// Makes an image of registry 3 from a release.
const REGISTRY_3_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/registry-3.sh");
/// The release of registry 3 that the full tests run.
const REGISTRY_3: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.1";

/// Checks everything, the tests on a real engine included; with `full` also those that need the image `registry:3`.
///
/// # Errors
/// The first check that fails; its own output has been shown.
pub fn ci(app: &App, full: bool) -> Result<()> {
    let needs = engine::needs(&app.processes)?;
    let programs = NEEDED.iter().filter(|(tool, _)| tool.path().is_none()).map(|(_, package)| *package);
    let firmware = Some("ovmf").filter(|_| !firmware::is_there());
    let missing: Vec<&str> = programs.chain(firmware).collect();
    if app.dry_run {
        let packages = Some(format!("install with apt: {}", missing.join(", "))).filter(|_| !missing.is_empty());
        let lines: Vec<String> = needs.iter().map(|need| need.line()).chain(packages).collect();
        let image = Some(format!("make the image registry:3 from {REGISTRY_3}, where it is absent")).filter(|_| full);
        let lines = lines.into_iter().chain(image).chain(commands(full).iter().map(Cmd::shell)).collect::<Vec<_>>();
        let text = || lines.iter().map(|line| format!("would {line}\n")).collect();
        return app.print(text, || json!({ "would": lines }));
    }
    engine::provide(&app.processes, app.term, &needs)?;
    if !missing.is_empty() {
        Tool::AptGet.require()?;
        engine::install(&app.processes, &missing)?;
    }
    if full {
        registry_3(app)?;
    }
    for cmd in commands(full) {
        app.processes.attached(&cmd)?.checked(&cmd, "mend what it names above")?;
    }
    Ok(())
}

/// The checks, in their order.
fn commands(full: bool) -> Vec<Cmd> {
    let tests: &[&str] =
        if full { &["test", "--workspace", "--", "--include-ignored"] } else { &["test", "--workspace"] };
    let lints: &[&str] = &["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    let format: &[&str] = &["fmt", "--all", "--check"];
    [format, lints, tests].map(|args| Cmd::write("cargo").args(args.iter().copied())).to_vec()
}

/// Makes an image of registry 3 with the official image's defaults: its program, built from the release, in registry 2's
/// file system.
fn registry_3(app: &App) -> Result<()> {
    const IMAGE: &str = "registry:3";
    if image::absent(&app.processes, &[IMAGE].into())?.is_empty() {
        return Ok(());
    }
    let absent = image::absent(&app.processes, &["registry:2"].into())?;
    image::provide(&app.processes, app.term, &absent, None)?;
    Tool::Go.require()?;
    let cmd = Cmd::write("sh").args([REGISTRY_3_SCRIPT, REGISTRY_3, IMAGE]);
    app.processes.attached(&cmd)?.checked(&cmd, "mend what it names above").map(|_| ())
}
