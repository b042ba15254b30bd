//! The command line, as clap types without logic.

use camino::Utf8PathBuf;
use clap::{Args, Parser, Subcommand};

use crate::config::Preset;
use crate::mirror_config::MirrorConfigArgs;
use crate::term::Color;

/// Pull-through caches for local Talos clusters.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, propagate_version = true)]
pub struct Cli {
    /// What is asked of every task.
    #[command(flatten)]
    pub global: Global,
    /// The task.
    #[command(subcommand)]
    pub task: Task,
}

/// What is asked of every task.
#[derive(Debug, Args)]
#[command(next_help_heading = "Every task")]
pub struct Global {
    /// Settings to use instead of cache.toml at the workspace root
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<Utf8PathBuf>,
    /// The set of mirrors to start from
    #[arg(long, global = true, value_enum)]
    pub preset: Option<Preset>,
    /// Print what would be done, and do nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Print JSON on stdout (status, config, plan, result, logs, errors)
    #[arg(long, global = true)]
    pub json: bool,
    /// Echo every command that is run
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Say nothing but warnings, errors and what was asked for
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
}

/// The tasks.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Make sure of an engine and of the registry image, and bring the caches up
    Onboard {
        /// Do not ask before installing or starting anything
        #[arg(long)]
        yes: bool,
        /// How the caches are brought up
        #[command(flatten)]
        up: Up,
    },
    /// Bring a caching proxy up for each upstream
    CacheUp {
        /// Hosts to bring up; all that are configured when none is named
        hosts: Vec<String>,
        /// How they are brought up
        #[command(flatten)]
        up: Up,
    },
    /// Stop the proxies; what they cached stays
    CacheDown {
        /// Hosts to stop; all when none is named
        hosts: Vec<String>,
    },
    /// Remove the proxies and what they cached
    CacheClean {
        /// Hosts to remove; all mirrors of the settings in force when none is named
        hosts: Vec<String>,
        /// Remove the containers alone, and keep what they cached
        #[arg(long)]
        keep_cache: bool,
        /// Remove the proxies of mirrors that the settings in force do not have, too
        #[arg(long, conflicts_with = "hosts")]
        all: bool,
    },
    /// Show each proxy; ends with 3 when one that is configured is not healthy
    CacheStatus {
        /// Hosts to show; all when none is named
        hosts: Vec<String>,
    },
    /// Show what the proxies log, each line with its host in front
    CacheLogs {
        /// Hosts to show; all when none is named
        hosts: Vec<String>,
        /// Go on until Ctrl-C
        #[arg(short, long)]
        follow: bool,
        /// How many lines to begin with, for each proxy
        #[arg(long, value_name = "N", default_value_t = 20)]
        tail: u32,
    },
    /// Make a local cluster that pulls through the caches
    Cluster(Cluster),
    /// Show a cluster; ends with 3 when it is not there or not whole
    ClusterStatus {
        /// The cluster
        #[arg(long, default_value = DEFAULT_CLUSTER)]
        name: String,
    },
    /// Remove a cluster; the caches stay
    ClusterDown {
        /// The cluster; talos-default when none is named
        #[arg(long)]
        name: Option<String>,
    },
    /// Show it all without a network: an upstream, proxies, and pulls by a containerd; gone at the end
    Demo,
    /// Print the same mirrors as configuration for machines that this does not create
    MirrorConfig(MirrorConfigArgs),
    /// Show the settings in force, and where each comes from
    Config,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Get what the tests need, then check format, lints and all tests
    Ci {
        /// Build the image registry:3 from its release (Go, minutes), and run the tests that need it
        #[arg(long)]
        full: bool,
    },
    /// Time this against the guide's own commands
    Bench {
        /// How often to measure each
        #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
        rounds: u8,
    },
}

/// How long all proxies together may take to answer, in seconds, when nothing is said.
const TIMEOUT: u64 = 60;

/// How proxies are brought up.
#[derive(Debug, Args)]
pub struct Up {
    /// How long all proxies together may take to answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = TIMEOUT, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Serve what is cached without asking any upstream, whatever is within reach
    #[arg(long)]
    pub offline: bool,
    /// Replace proxies that were made by hand and differ; what they have cached is moved, not downloaded again
    #[arg(long)]
    pub adopt: bool,
    /// A registry image as `docker save` writes it, for when none can be pulled
    #[arg(long, value_name = "FILE")]
    pub image_archive: Option<Utf8PathBuf>,
}

impl Default for Up {
    fn default() -> Self {
        Self { timeout: TIMEOUT, offline: false, adopt: false, image_archive: None }
    }
}

/// talosctl's own default.
pub const DEFAULT_CLUSTER: &str = "talos-default";

/// What `cluster` is asked for.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("provisioner").required(true)))]
pub struct Cluster {
    /// Virtual machines
    #[arg(long, group = "provisioner")]
    pub qemu: bool,
    /// Containers
    #[arg(long, group = "provisioner")]
    pub docker: bool,
    /// The cluster's name; talos-default when none is named
    #[arg(long)]
    pub name: Option<String>,
    /// The cluster's network
    #[arg(long, default_value = "10.5.0.0/24")]
    pub cidr: String,
    /// How many control planes
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub controlplanes: u32,
    /// How many workers; talosctl's default, 1, when nothing is said
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// The Talos that nodes run; talosctl's own version when nothing is said
    #[arg(long, value_name = "vX.Y.Z")]
    pub talos_version: Option<String>,
    /// The Kubernetes that nodes run; talosctl's default when nothing is said
    #[arg(long, value_name = "X.Y.Z")]
    pub kubernetes_version: Option<String>,
    /// How nodes learn of the mirrors
    #[arg(long, value_enum, default_value_t)]
    pub mirrors_as: MirrorsAs,
    /// Make it without the caches
    #[arg(long)]
    pub no_cache: bool,
    /// Go on with the caches that are healthy when one is not
    #[arg(long, conflicts_with = "no_cache")]
    pub allow_unhealthy: bool,
    /// Remove what is there of a cluster of that name first
    #[arg(long)]
    pub recreate: bool,
    /// More flags for talosctl; they win
    #[arg(last = true, value_name = "FLAGS FOR talosctl")]
    pub extra: Vec<String>,
}

/// How nodes learn of the mirrors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum MirrorsAs {
    /// A `--registry-mirror` for each
    #[default]
    Flag,
    /// A `--config-patch` with all of them
    Patch,
}
