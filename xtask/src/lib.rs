//! Pull-through caches for local Talos clusters, as `cargo xtask` tasks; `docs/architecture.md` has the map.

pub mod app;
pub mod cache;
pub mod ci;
pub mod cli;
pub mod config;
pub mod docker;
pub mod engine;
pub mod error;
pub mod exec;
pub mod image;
pub mod observe;
pub mod onboard;
pub mod plan;
pub mod reconcile;
pub mod registry;
pub mod report;
pub mod talosctl;
pub mod term;
pub mod tool;
pub mod traffic;
