//! The cluster tasks: make one that pulls through the caches, show it, remove it.

pub mod contexts;
pub mod create;
pub mod down;
pub mod existing;
pub mod firmware;
pub mod guest;
pub mod mirrors;
pub mod place;
pub mod preflight;
pub mod prepare;
pub mod processes;
pub mod served;
pub mod status;
pub mod talos;
