//! `cluster show` and `cluster destroy`.

use std::path::Path;

use crate::Outcome;
use crate::engine::Engine;
use crate::pflag::Parsed;
use crate::standin::StandIn;
use crate::state::{Cluster, os_error, subject};

/// Shows a cluster; of a docker cluster that is not there, empty fields.
pub fn show(standin: &StandIn, parsed: &Parsed) -> Outcome {
    let (name, state) = subject(parsed)?;
    let cluster = match provisioner(standin, parsed)?.as_str() {
        "docker" => {
            standin.engine_answers()?;
            Engine::new(standin)?.find(&name)?.map(|cluster| seen_through_engine(standin, cluster))
        }
        kind => Some(of_kind(Cluster::load(&state, &name)?, kind)?),
    };
    print(standin, &name, cluster.as_ref());
    Ok(())
}

/// The engine knows no gateway of a network that was made without naming one.
fn seen_through_engine(standin: &StandIn, cluster: Cluster) -> Cluster {
    let gateway = if standin.version.at_least((1, 12)) { "invalid IP" } else { "" };
    Cluster { gateway: gateway.to_owned(), ..cluster }
}

fn provisioner(standin: &StandIn, parsed: &Parsed) -> Result<String, String> {
    let kind = parsed.get("provisioner").unwrap_or("docker");
    let firecracker = kind == "firecracker" && !standin.version.at_least((0, 13));
    if ["docker", "qemu"].contains(&kind) || firecracker {
        return Ok(kind.to_owned());
    }
    Err(format!("unsupported provisioner \"{kind}\""))
}

fn of_kind(cluster: Cluster, kind: &str) -> Result<Cluster, String> {
    if cluster.provisioner == kind {
        return Ok(cluster);
    }
    Err(format!("cluster \"{}\" was created with different provisioner \"{}\"", cluster.name, cluster.provisioner))
}

/// Prints a cluster in the release's form.
pub fn print(standin: &StandIn, name: &str, cluster: Option<&Cluster>) {
    let field = |value: fn(&Cluster) -> &str| cluster.map(value).unwrap_or_default().to_owned();
    let network = cluster.filter(|cluster| !cluster.cidr.is_empty());
    let mut fields = vec![
        ("PROVISIONER", cluster.map_or("docker", |cluster| &cluster.provisioner).to_owned()),
        ("NAME", name.to_owned()),
        ("NETWORK NAME", network.map(|cluster| cluster.name.clone()).unwrap_or_default()),
        ("NETWORK CIDR", field(|cluster| &cluster.cidr)),
        ("NETWORK GATEWAY", field(|cluster| &cluster.gateway)),
        ("NETWORK MTU", if network.is_some() { "1500" } else { "0" }.to_owned()),
    ];
    if standin.version.at_least((1, 7)) {
        let endpoint = cluster.map(|cluster| match cluster.provisioner.as_str() {
            "docker" => "https://127.0.0.1:43211".to_owned(),
            _ => format!("https://{}:6443", cluster.gateway),
        });
        fields.push(("KUBERNETES ENDPOINT", endpoint.unwrap_or_default()));
    }
    print_columns(&fields.into_iter().map(|(label, value)| vec![label.to_owned(), value]).collect::<Vec<_>>());
    println!("\nNODES:\n");
    let mut rows = vec![["NAME", "TYPE", "IP", "CPU", "RAM", "DISK"].map(str::to_owned).to_vec()];
    let mut nodes = cluster.map(|cluster| cluster.nodes.clone()).unwrap_or_default();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    let disk = if cluster.is_some_and(|cluster| cluster.provisioner == "docker") { "-" } else { "6.4 GB" };
    for node in nodes {
        rows.push(vec![node.name, node.kind, node.address, "2.00".to_owned(), "2.1 GB".to_owned(), disk.to_owned()]);
    }
    print_columns(&rows);
}

/// Columns as Go's tabwriter sets them: as wide as their widest cell and three spaces, the last one as it is.
pub fn print_columns(rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0) + 3).collect();
    for row in rows {
        let cell = |(column, cell): (usize, &String)| {
            if column + 1 == row.len() { cell.clone() } else { format!("{cell:0$}", widths[column]) }
        };
        println!("{}", row.iter().enumerate().map(cell).collect::<String>());
    }
}

/// Destroys a cluster. For docker, releases from 1.9 on remove the whole state directory with it, be there other
/// clusters in it or not; up to 1.11 they do so even where no cluster was found.
pub fn destroy(standin: &StandIn, parsed: &Parsed) -> Outcome {
    let (name, state) = subject(parsed)?;
    if standin.version.at_least((1, 12)) {
        let cluster = Cluster::load(&state, &name)?;
        return match cluster.provisioner.as_str() {
            "docker" => destroy_docker(standin, &name, &state),
            _ => destroy_qemu(&cluster, &state),
        };
    }
    match provisioner(standin, parsed)?.as_str() {
        "docker" => destroy_docker(standin, &name, &state),
        kind => destroy_qemu(&of_kind(Cluster::load(&state, &name)?, kind)?, &state),
    }
}

fn destroy_docker(standin: &StandIn, name: &str, state: &Path) -> Outcome {
    standin.engine_answers()?;
    let engine = Engine::new(standin)?;
    if let Some(cluster) = engine.find(name)? {
        engine.remove(&cluster)?;
    }
    if standin.version.at_least((1, 9)) && state.exists() {
        std::fs::remove_dir_all(state).map_err(os_error("remove", state))?;
    }
    Ok(())
}

fn destroy_qemu(cluster: &Cluster, state: &Path) -> Outcome {
    for node in &cluster.nodes {
        eprintln!("stopping VM {}", node.name);
    }
    eprintln!("removing state directory");
    let directory = state.join(&cluster.name);
    std::fs::remove_dir_all(&directory).map_err(os_error("remove", &directory))
}
