//! The contexts that `cluster create` leaves in the talosconfig, and how they are taken out again.

use crate::exec::Cmd;
use crate::talosctl::{Version, read, show, write};

/// A context of the talosconfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Whether it is the one in use.
    pub current: bool,
    /// Its name.
    pub name: String,
    /// Where its cluster answers.
    pub endpoints: Vec<String>,
}

/// A talosconfig that makes no context the current one when it is merged: merging takes the current context over from
/// the file, under the name that it got, and one that is not in the file got none.
///
/// `config remove` passes over the current context and ends with 0, and `cluster create` makes its own the current one;
/// where there is no other to switch to, merging this comes first.
pub const NONE_CURRENT: &str = "context: none\ncontexts: {}\n";

/// Lists the contexts.
pub fn list() -> Cmd {
    read().args(["config", "contexts"])
}

/// Reads what [`list`] printed.
pub fn read_list(printed: &str) -> Vec<Context> {
    let context = |row: std::collections::BTreeMap<String, String>| {
        let cell = |heading: &str| row.get(heading).map_or("", String::as_str);
        Context {
            current: cell("CURRENT") == "*",
            name: cell("NAME").to_owned(),
            endpoints: show::list(cell("ENDPOINTS")),
        }
    };
    show::table(printed).into_iter().map(context).collect()
}

/// The contexts that creates of this name may have left: `NAME`, then `NAME-1`, `NAME-2` where that was taken. A
/// cluster that is itself called `NAME-1` has the same, so that their endpoints have to be compared as well.
pub fn of_cluster<'a>(contexts: &'a [Context], cluster: &'a str) -> impl Iterator<Item = &'a Context> {
    contexts.iter().filter(move |context| {
        let rest = context.name.strip_prefix(cluster);
        rest.is_some_and(|rest| {
            let number = rest.strip_prefix('-').map(|digits| digits.parse::<u32>().is_ok_and(|number| number > 0));
            rest.is_empty() || number == Some(true)
        })
    })
}

/// Makes another context the current one.
pub fn switch(context: &str) -> Cmd {
    write().args(["config", "context", context])
}

/// Merges a talosconfig from a file, [`NONE_CURRENT`] for instance.
pub fn merge(file: &camino::Utf8Path) -> Cmd {
    write().args(["config", "merge", file.as_str()])
}

/// Removes a context that is not the current one; `None` before 1.4, which cannot. talosctl takes the name as a
/// pattern, so one with `*` is left alone too.
pub fn remove(version: &Version, context: &str) -> Option<Cmd> {
    let can = version.at_least((1, 4)) && !context.contains('*') && !context.is_empty();
    can.then(|| write().args(["config", "remove", context, "--noconfirm"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
CURRENT   NAME     ENDPOINTS           NODES
          demo     10.5.0.2,10.5.0.3   10.5.0.2
*         demo-1   127.0.0.1:43211     10.5.0.2
          demo-x                       
          other    192.0.2.1
";

    #[test]
    fn contexts_are_read_with_their_endpoints() {
        let contexts = read_list(PRINTED);
        assert_eq!(contexts.len(), 4);
        assert_eq!((contexts[0].current, contexts[0].endpoints.len()), (false, 2));
        assert_eq!((contexts[1].current, contexts[1].name.as_str()), (true, "demo-1"));
        assert!(contexts[2].endpoints.is_empty());
        assert!(read_list("CURRENT   NAME   ENDPOINTS   NODES\n").is_empty());
    }

    #[test]
    fn a_cluster_owns_its_name_and_the_numbered_ones() {
        let contexts = read_list(PRINTED);
        let names: Vec<&str> = of_cluster(&contexts, "demo").map(|context| context.name.as_str()).collect();
        assert_eq!(names, ["demo", "demo-1"]);
        assert_eq!(of_cluster(&contexts, "dem").count(), 0);
    }

    #[test]
    fn contexts_can_be_removed_from_1_4_on() {
        let version = |tag| Version::parse(tag).unwrap();
        assert!(remove(&version("v1.3.7"), "demo").is_none());
        assert!(remove(&version("v1.4.0"), "d*").is_none());
        let cmd = remove(&version("v1.4.0"), "demo").unwrap();
        assert_eq!(cmd.shell(), "env -u TAG talosctl config remove demo --noconfirm");
    }
}
