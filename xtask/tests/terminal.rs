//! What a person sees on a terminal: a spinner that is gone when it ends, and whole lines beside it.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;
#[path = "support/terminal.rs"]
mod terminal;

use support::{World, XTASK, write_program};
use terminal::Terminal;
use xshell::Shell;

/// Whether a row is of a spinner, or what is left of one.
fn spins(row: &str) -> bool {
    row.chars().any(|char| ('\u{2800}'..='\u{28ff}').contains(&char)) || row.contains("s)")
}

fn no_spinner_is_left(rows: &[String]) {
    assert!(!rows.iter().any(|row| spins(row)), "{rows:#?}");
}

#[test]
fn ctrl_c_while_an_image_is_pulled_leaves_no_spinner() {
    let dir = Shell::new().unwrap().create_temp_dir().unwrap();
    let script = "#!/bin/sh
        case \"$1 $2\" in
        'container inspect') echo '[]'; exit 1 ;;
        'image inspect') echo 'Error: No such image: registry:2' >&2; exit 1 ;;
        'version --format') echo '1.41 20.10.24' ;;
        'pull registry:2') exec sleep 30 ;;
        esac\n";
    write_program(dir.path(), "docker", script);
    let file = dir.path().join("cache.toml");
    let port = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    std::fs::write(&file, format!("[mirrors.\"docker.io\"]\nport = {port}\n")).unwrap();
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    let task = format!("{XTASK} --config {} cache-up docker.io", file.display());
    let mut terminal = Terminal::start(&task, &[("PATH", &path), ("DOCKER_HOST", "")]);
    terminal.until(|rows| rows.iter().any(|row| spins(row) && row.contains("pulling registry:2")));
    terminal.types("\u{3}");
    let (code, rows) = terminal.end();
    assert_eq!(code, Some(130), "{rows:#?}");
    no_spinner_is_left(&rows);
    assert!(rows[0].starts_with("error: interrupted"), "{rows:#?}");
}

#[test]
fn ctrl_c_while_proxies_are_awaited_leaves_no_spinner() {
    let world = World::new("ctrl-c");
    // It takes a connection and says nothing, so that no proxy opens its port.
    let silent = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let at = format!("http://{}:{}", world.gateway, silent.local_addr().unwrap().port());
    let text = std::fs::read_to_string(world.config()).unwrap();
    std::fs::write(world.config(), text.replace(&world.upstream_url(), &at)).unwrap();
    // With all seven hosts in it the row is longer than the terminal is wide; -v prints lines while it is shown.
    for (task, hosts) in [("cache-up", 7), ("cache-up docker.io", 1), ("-v cache-up docker.io quay.io", 2)] {
        let config = world.config();
        let mut terminal = Terminal::start(&format!("{XTASK} --config {} {task}", config.display()), &[]);
        terminal.until(|rows| rows.iter().any(|row| spins(row) && row.contains("waiting for ")));
        // In this time -v shows two looks at what is awaited.
        std::thread::sleep(std::time::Duration::from_millis(1300));
        assert_eq!(terminal.rows().iter().filter(|row| spins(row)).count(), 1, "{task}: {:#?}", terminal.rows());
        terminal.types("\u{3}");
        let (code, rows) = terminal.end();
        assert_eq!(code, Some(130), "{task}: {rows:#?}");
        no_spinner_is_left(&rows);
        assert!(rows.iter().any(|row| row.starts_with("error: interrupted: ")), "{task}: {rows:#?}");
        let created = rows.iter().filter(|row| row.starts_with("created ")).count();
        assert_eq!(created, hosts, "{task}: {rows:#?}");
    }
    drop(silent);
}

#[test]
fn a_spinner_is_gone_when_what_it_awaits_is_there() {
    let world = World::new("spinner");
    let terminal = Terminal::start(&format!("{XTASK} --config {} cache-up", world.config().display()), &[]);
    let (code, rows) = terminal.end();
    assert_eq!(code, Some(0), "{rows:#?}");
    no_spinner_is_left(&rows);
    assert!(rows.iter().filter(|row| row.contains("  http://")).count() == 7, "{rows:#?}");
}
