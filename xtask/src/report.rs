//! What the tasks say in the end, as text; pure.

use crate::config::{Config, Mirror};
use crate::docker::Mode;
use crate::plan::{Action, Plan, Step};

/// One step that was taken, as a line of progress.
pub fn done(mirror: &Mirror, step: &Step) -> String {
    let verb = match step.action {
        Action::Create(_) => "created",
        Action::Replace(_) => "replaced",
        Action::Adopt(_) => "adopted",
        Action::Restart => "restarted",
        Action::Start => "started",
        Action::Unpause => "unpaused",
        Action::Mend => "mended",
        Action::Wait => "waited for",
    };
    format!("{verb} {}{} ({})", mirror.name, offline(step.action), step.why.join("; "))
}

fn offline(action: Action) -> &'static str {
    match action {
        Action::Create(Mode::Offline) | Action::Replace(Mode::Offline) | Action::Adopt(Mode::Offline) => ", offline",
        _ => "",
    }
}

/// One step that would be taken, as a phrase that goes behind "would".
pub fn would(step: &Step) -> String {
    let verb = match step.action {
        Action::Create(_) => "create",
        Action::Replace(_) => "replace",
        Action::Adopt(_) => "adopt",
        Action::Restart => "restart",
        Action::Start => "start",
        Action::Unpause => "unpause",
        Action::Mend => "mend",
        Action::Wait => "wait for",
    };
    format!("{verb} {}{} ({})", step.host, offline(step.action), step.why.join("; "))
}

/// A plan, a line a step; `nothing to do` where it is empty.
pub fn plan(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing to do\n".to_owned();
    }
    plan.steps.iter().map(|step| format!("would {}\n", would(step))).collect()
}

/// Where the caches are: a line a mirror.
pub fn addresses(config: &Config, mirrors: &[Mirror], offline: impl Fn(&Mirror) -> bool) -> String {
    let width = mirrors.iter().map(|mirror| mirror.host.len()).max().unwrap_or(0);
    let line = |mirror: &Mirror| {
        let at = crate::registry::address(mirror, config.bind);
        let mode = if offline(mirror) { "  offline: serves what is cached" } else { "" };
        format!("{:width$}  http://{at}{mode}\n", mirror.host)
    };
    mirrors.iter().map(line).collect()
}

/// A number of bytes as a person reads it, in powers of 1024.
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Columns that line up, under their heads.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head).add_rows(rows);
    table.column_iter_mut().for_each(|column| {
        column.set_padding((0, 1));
    });
    table.trim_fmt() + "\n"
}

/// The settings in force as text: each with where it comes from.
pub fn config(config: &Config) -> String {
    let file = config.file.as_ref().map_or("none; all is built in", |file| file.as_str());
    format!("file: {file}\n{}", table(["SETTING", "VALUE", "FROM"], config.values()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_it_would_do_and_why() {
        let step = |host: &str, action| Step { host: host.into(), action, why: vec!["absent".into()] };
        let steps =
            vec![step("docker.io", Action::Create(Mode::Proxy)), step("quay.io", Action::Replace(Mode::Offline))];
        assert_eq!(
            plan(&Plan { steps, ..Plan::default() }),
            "would create docker.io (absent)\nwould replace quay.io, offline (absent)\n"
        );
        assert_eq!(plan(&Plan::default()), "nothing to do\n");
    }
}
