//! `ci`: gets whatever the tests need, then format, lints and all tests.

use serde_json::json;

use crate::app::App;
use crate::cluster::preflight;
use crate::error::Result;
use crate::exec::Cmd;
use crate::tool::Tool;
use crate::{engine, image};

/// What the tests run beside the engine and the node's containerd, which comes with it, and where Debian has it.
const NEEDED: [(Tool, &str); 5] = [
    (Tool::Ctr, "containerd"),
    (Tool::Ip, "iproute2"),
    (Tool::Busybox, "busybox-static"),
    (Tool::Qemu, "qemu-system-x86"),
    (Tool::Curl, "curl"),
];

/// The release of registry 3 that the full tests run.
const REGISTRY_3: &str = "github.com/distribution/distribution/v3/cmd/registry@v3.1.1";

/// Checks everything, the tests on a real engine included; with `full` also those that need the image `registry:3`.
///
/// # Errors
/// The first check that fails; its own output has been shown.
pub fn ci(app: &App, full: bool) -> Result<()> {
    let needs = engine::needs(&app.processes)?;
    let programs = NEEDED.iter().filter(|(tool, _)| tool.path().is_none()).map(|(_, package)| *package);
    let firmware = Some("ovmf").filter(|_| !preflight::firmware(std::env::consts::ARCH));
    let missing: Vec<&str> = programs.chain(firmware).collect();
    if app.dry_run {
        let packages = Some(format!("install with apt: {}", missing.join(", "))).filter(|_| !missing.is_empty());
        let lines: Vec<String> = needs.iter().map(|need| need.line()).chain(packages).collect();
        let lines = lines.into_iter().chain(commands(full).iter().map(Cmd::shell)).collect::<Vec<_>>();
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
    let script = r#"
folder=$(mktemp -d)
trap 'rm -rf -- "$folder"; docker rm --force --volumes "$container" >/dev/null' EXIT
GOBIN="$folder" CGO_ENABLED=0 go install "$1"
mkdir -p "$folder/etc/distribution"
cat >"$folder/etc/distribution/config.yml" <<'END'
version: 0.1
log: {level: debug, fields: {service: registry}}
storage: {delete: {enabled: true}, cache: {blobdescriptor: inmemory}, filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: ":5000", debug: {addr: ":5001", prometheus: {enabled: true}}}
END
container=$(docker create registry:2)
docker cp "$folder/registry" "$container:/bin/registry"
docker cp "$folder/etc/distribution" "$container:/etc/distribution"
docker commit --change 'CMD ["/etc/distribution/config.yml"]' "$container" "$2" >/dev/null
"#;
    Tool::Go.require()?;
    let cmd = Cmd::write("sh").args(["-euc", script, "sh", REGISTRY_3, IMAGE]);
    app.processes.attached(&cmd)?.checked(&cmd, "mend what it names above").map(|_| ())
}
