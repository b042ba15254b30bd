//! Parse, resolve, dispatch; the only exit of the program.

use std::process::ExitCode;

use camino::Utf8Path;
use clap::{CommandFactory, Parser};
use serde_json::json;
use xtask::app::{self, App};
use xtask::cli::{Cli, Task};
use xtask::config::{Config, Overrides};
use xtask::error::{self, Error, Result};
use xtask::exec::{Interrupt, Processes};
use xtask::term::Term;
use xtask::{bench, cache, ci, clean, cluster, completions, demo, down, mirror_config, onboard, report, status};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        if error::json::is_asked_for(std::env::args_os()) {
            print(error::json::of_command_line(&error));
        }
        error.exit()
    });
    let term = Term::new(cli.global.quiet, cli.global.verbose, cli.global.color);
    match run(&cli, term) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if cli.global.json {
                print(error.json());
            }
            if !matches!(error, Error::Ended { .. }) {
                term.error(&error.to_string(), error.fix());
            }
            ExitCode::from(error.code())
        }
    }
}

/// Prints an error for a program, on one line. Whoever does not read it can still read the exit code.
fn print(error: Option<serde_json::Value>) {
    let _ = error.map(|error| app::write(&format!("{error}\n")));
}

fn run(cli: &Cli, term: Term) -> Result<()> {
    if let Task::Completions { shell } = &cli.task {
        return app::write(&completions::script(*shell, &mut Cli::command()));
    }
    let overrides = Overrides { file: cli.global.config.clone(), preset: cli.global.preset };
    let interrupt = Interrupt::install()?;
    let config = Config::load(workspace_root(), &overrides)?;
    let processes = Processes::new(interrupt, term).read_only(cli.global.dry_run);
    let app = App {
        processes: processes.keeping_secret(config.password_variables.clone()),
        term,
        config,
        dry_run: cli.global.dry_run,
        json: cli.global.json,
    };
    match &cli.task {
        Task::Onboard { yes, up } => onboard::onboard(&app, *yes, up),
        Task::CacheUp { hosts, up } => cache::up(&app, hosts, up),
        Task::CacheDown { hosts } => down::down(&app, hosts),
        Task::CacheClean { hosts, keep_cache, all } => clean::clean(&app, hosts, *keep_cache, *all),
        Task::CacheStatus { hosts } => status::status(&app, hosts),
        Task::CacheLogs { hosts, follow, tail } => cache::logs(&app, hosts, *follow, *tail),
        Task::Cluster(args) => cluster::create::create(&app, args),
        Task::ClusterStatus { name } => cluster::status::status(&app, name),
        Task::ClusterDown { name } => cluster::down::down(&app, name.as_deref()),
        Task::Demo => demo::demo(&app),
        Task::MirrorConfig(args) => mirror_config::mirror_config(&app, args, None),
        Task::Config => app.print(|| report::config(&app.config), || json!(app.config)),
        Task::Ci { full } => ci::ci(&app, *full),
        Task::Bench { rounds } => bench::bench(&app, usize::from(*rounds)),
        Task::Completions { .. } => Ok(()),
    }
}

/// The folder above this crate: where `cache.toml` is, from whatever folder the task was called.
fn workspace_root() -> &'static Utf8Path {
    let crate_folder = Utf8Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.parent().unwrap_or(crate_folder)
}
