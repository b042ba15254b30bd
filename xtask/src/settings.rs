//! `cache.toml` and the flags, resolved to the settings in force.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use toml::Spanned;

use crate::cache_toml::{File, Source, Table};
use crate::checks::is_host;
use crate::config::{Bind, Config, FILE, Mirror, Preset};
use crate::error::Result;

/// The built-in mirrors: host, port, upstream. Hosts and ports of the first five are the guide's.
const BUILT_IN: [(&str, u16, &str); 7] = [
    ("docker.io", 5000, "https://registry-1.docker.io"),
    ("k8s.gcr.io", 5001, "https://k8s.gcr.io"),
    ("quay.io", 5002, "https://quay.io"),
    ("gcr.io", 5003, "https://gcr.io"),
    ("ghcr.io", 5004, "https://ghcr.io"),
    ("registry.k8s.io", 5005, "https://registry.k8s.io"),
    ("factory.talos.dev", 5006, "https://factory.talos.dev"),
];
/// How many of them the guide has.
pub const GUIDE: usize = 5;
const IMAGE: &str = "registry:2";
/// What the guide runs quay.io on.
const OLD_IMAGE: &str = "registry:2.5";
/// What names begin with when nothing is said.
pub const PREFIX: &str = "registry-";

/// The hosts that are built in, in their order; the first five are the guide's.
pub fn hosts() -> impl Iterator<Item = &'static str> {
    BUILT_IN.into_iter().map(|(host, ..)| host)
}

/// Resolves the text of a file of settings.
///
/// # Errors
/// It says something that makes no sense; the error names the file, the line and the fix.
pub fn parse(file: Option<Utf8PathBuf>, text: &str, preset: Option<Preset>) -> Result<Config> {
    let source = Source { file: file.clone().unwrap_or_else(|| FILE.into()), text };
    let parsed: File = toml::from_str(text).map_err(|error| source.syntax(&error))?;
    let mut origins = origins(&source, &parsed);
    if preset.is_some() {
        origins.insert("preset".to_owned(), "--preset".to_owned());
    }
    let preset = preset.or(parsed.preset.as_ref().map(|preset| *preset.get_ref())).unwrap_or_default();
    let prefix = source.prefix(parsed.prefix.as_ref())?;
    let bind = source.bind(parsed.bind.as_ref())?;
    let offline = source.offline(parsed.offline.as_ref())?;
    let image = parsed.image.as_ref().map(|image| source.image(image)).transpose()?;
    let mut merge = Merge { source: &source, prefix: &prefix, image, slots: Vec::new(), origins };
    merge.start_from(preset);
    let mut tables: Vec<_> = parsed.mirrors.iter().collect();
    tables.sort_by_key(|(host, _)| host.span().start);
    for (host, table) in tables {
        merge.table(host, table)?;
    }
    let Merge { mut slots, mut origins, .. } = merge;
    let disabled = slots.iter().filter(|slot| !slot.enabled);
    let disabled = disabled.map(|slot| (slot.mirror.host.clone(), source.line(slot.table))).collect();
    slots.retain(|slot| slot.enabled);
    origins.retain(|key, _| {
        let Some(rest) = key.strip_prefix("mirrors.") else { return true };
        slots.iter().any(|slot| rest.strip_prefix(&slot.mirror.host).is_some_and(|rest| rest.starts_with('.')))
    });
    distinct(&source, &slots)?;
    not_for_everyone(&source, &slots, bind)?;
    let mirrors = slots.into_iter().map(|slot| slot.mirror).collect();
    let cluster_address = parsed.cluster.address.as_ref().map(|address| source.address(address)).transpose()?;
    let boot = source.boot(&parsed.boot)?;
    let variables = parsed.mirrors.values().filter_map(|table| Some(table.password_env.as_ref()?.get_ref().clone()));
    let password_variables = variables.collect();
    Ok(Config {
        file,
        preset,
        prefix,
        bind,
        offline,
        mirrors,
        cluster_address,
        boot,
        origins,
        disabled,
        password_variables,
    })
}

struct Slot {
    mirror: Mirror,
    enabled: bool,
    /// Where its port is given, or its table begins.
    at: usize,
    /// Where its table begins.
    table: usize,
}

/// The mirrors while they come together: those of the preset, then the tables of the file.
struct Merge<'a> {
    source: &'a Source<'a>,
    prefix: &'a str,
    image: Option<String>,
    slots: Vec<Slot>,
    origins: BTreeMap<String, String>,
}

impl Merge<'_> {
    fn start_from(&mut self, preset: Preset) {
        let count = if preset == Preset::Guide { GUIDE } else { BUILT_IN.len() };
        for (host, port, upstream) in BUILT_IN.into_iter().take(count) {
            self.add(host, port, upstream.to_owned(), 0);
            if preset == Preset::Guide && host == "quay.io" && self.image.is_none() {
                self.origins.insert("mirrors.quay.io.image".to_owned(), "preset guide".to_owned());
                self.slots.iter_mut().for_each(|slot| {
                    if slot.mirror.host == host {
                        OLD_IMAGE.clone_into(&mut slot.mirror.image);
                    }
                });
            }
        }
    }

    fn add(&mut self, host: &str, port: u16, upstream: String, at: usize) -> usize {
        let image = self.image.clone().unwrap_or_else(|| IMAGE.to_owned());
        if let Some(origin) = self.origins.get("image").cloned() {
            self.origins.insert(format!("mirrors.{host}.image"), origin);
        }
        let name = format!("{}{}", self.prefix, host.replace(':', "-"));
        let mirror = Mirror { host: host.to_owned(), name, image, upstream, port, credentials: None };
        self.slots.push(Slot { mirror, enabled: true, at, table: at });
        self.slots.len() - 1
    }

    fn table(&mut self, key: &Spanned<String>, table: &Table) -> Result<()> {
        let (host, at) = (key.get_ref(), key.span().start);
        if !is_host(host) {
            // What stands before an @ may be a password.
            let shown = if host.contains('@') { "that".to_owned() } else { format!("{host:?}") };
            let problem = format!("{shown} is not the host of a registry");
            let fix = "write the host as an image reference has it: [mirrors.\"ghcr.io\"]";
            return Err(self.source.error(at, problem, fix));
        }
        let position = match self.slots.iter().position(|slot| slot.mirror.host == *host) {
            Some(position) => position,
            None => {
                if table.enabled == Some(false) {
                    let problem = format!("{host:?} is no mirror that there is to disable");
                    return Err(self.source.error(at, problem, "leave the table out, or mend the host's name"));
                }
                let Some(port) = &table.port else {
                    let problem = format!("the new mirror {host:?} has no port");
                    return Err(self.source.error(
                        at,
                        problem,
                        "add `port = ` with one that is free, 5007 for instance",
                    ));
                };
                self.origins.insert(format!("mirrors.{host}.upstream"), self.source.line(at));
                let upstream = format!("https://{host}");
                if table.upstream.is_none() {
                    self.source.own_loopback(&upstream, at)?;
                }
                self.add(host, self.source.port(port)?, upstream, at)
            }
        };
        let mut note = |name: &str, at: usize| {
            self.origins.insert(format!("mirrors.{host}.{name}"), self.source.line(at));
        };
        let slot = &mut self.slots[position];
        (slot.at, slot.table) = (at, at);
        slot.enabled = table.enabled.unwrap_or(true);
        if let Some(port) = &table.port {
            slot.mirror.port = self.source.port(port)?;
            slot.at = port.span().start;
            note("port", slot.at);
        }
        if let Some(upstream) = &table.upstream {
            slot.mirror.upstream = self.source.upstream(upstream)?;
            note("upstream", upstream.span().start);
        }
        if let Some(image) = &table.image {
            slot.mirror.image = self.source.image(image)?;
            note("image", image.span().start);
        }
        let account = [("username", &table.username), ("password_env", &table.password_env)];
        for (name, value) in account.into_iter().chain([("password_file", &table.password_file)]) {
            if let Some(value) = value {
                note(name, value.span().start);
            }
        }
        slot.mirror.credentials = self.source.credentials(host, at, table)?;
        Ok(())
    }
}

fn origins(source: &Source, file: &File) -> BTreeMap<String, String> {
    let at = [
        ("preset", file.preset.as_ref().map(Spanned::span)),
        ("prefix", file.prefix.as_ref().map(Spanned::span)),
        ("image", file.image.as_ref().map(Spanned::span)),
        ("bind", file.bind.as_ref().map(Spanned::span)),
        ("offline", file.offline.as_ref().map(Spanned::span)),
        ("cluster.address", file.cluster.address.as_ref().map(Spanned::span)),
        ("boot.release", file.boot.release.as_ref().map(Spanned::span)),
        ("boot.factory", file.boot.factory.as_ref().map(Spanned::span)),
    ];
    at.into_iter().filter_map(|(key, span)| Some((key.to_owned(), source.line(span?.start)))).collect()
}

/// Whoever reaches a proxy may read through it what its account may.
fn not_for_everyone(source: &Source, slots: &[Slot], bind: Bind) -> Result<()> {
    let Some(slot) = slots.iter().find(|slot| bind == Bind::All && slot.mirror.credentials.is_some()) else {
        return Ok(());
    };
    let problem = format!(
        "{} has credentials, and bind is \"all\": everyone on the network could read what that account may",
        slot.mirror.host
    );
    Err(source.error(slot.at, problem, "add `bind = \"local\"`, or one address, at the top of the file"))
}

fn distinct(source: &Source, slots: &[Slot]) -> Result<()> {
    for (index, slot) in slots.iter().enumerate() {
        for earlier in &slots[..index] {
            let (one, other) = (&earlier.mirror, &slot.mirror);
            let at = slot.at.max(earlier.at);
            if one.port == other.port {
                let problem = format!("{} and {} are both on port {}", one.host, other.host, one.port);
                return Err(source.error(at, problem, "give one of them another port"));
            }
            if one.name == other.name {
                let problem = format!("{} and {} would both be named {}", one.host, other.host, one.name);
                return Err(source.error(at, problem, "leave one of them out"));
            }
        }
    }
    Ok(())
}
#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Credentials, Password};

    fn parse(text: &str) -> Result<Config> {
        super::parse(Some("cache.toml".into()), text, None)
    }

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert_eq!(error.code(), 2);
        assert!(error.fix().is_some());
        error.to_string()
    }

    #[test]
    fn without_a_file_there_are_seven() {
        let config = parse("").unwrap();
        let ports: Vec<u16> = config.mirrors.iter().map(|mirror| mirror.port).collect();
        assert_eq!(ports, [5000, 5001, 5002, 5003, 5004, 5005, 5006]);
        assert_eq!(config.mirrors[0].name, "registry-docker.io");
        assert!(config.mirrors.iter().all(|mirror| mirror.image == "registry:2"));
    }

    #[test]
    fn the_guide_has_its_five_and_its_old_image() {
        let config = parse("preset = \"guide\"").unwrap();
        let images: Vec<&str> = config.mirrors.iter().map(|mirror| mirror.image.as_str()).collect();
        assert_eq!(images, ["registry:2", "registry:2", "registry:2.5", "registry:2", "registry:2"]);
    }

    #[test]
    fn a_table_changes_or_adds_a_mirror() {
        let text = "[mirrors.\"z.example:8443\"]\nport = 6000\n[mirrors.\"docker.io\"]\nport = 6001\n\
                    upstream = \"http://10.0.0.1:5000/\"\n[mirrors.\"quay.io\"]\nenabled = false\n";
        let config = parse(text).unwrap();
        let docker = &config.mirrors[0];
        assert_eq!((docker.port, docker.upstream.as_str()), (6001, "http://10.0.0.1:5000"));
        assert!(!config.mirrors.iter().any(|mirror| mirror.host == "quay.io"));
        let new = config.mirrors.last().unwrap();
        assert_eq!((new.name.as_str(), new.upstream.as_str()), ("registry-z.example-8443", "https://z.example:8443"));
    }

    #[test]
    fn a_mistake_names_file_line_and_what_is_wrong() {
        for (text, line, part) in [
            ("preset = \"x\"", 1, "unknown variant"),
            ("\nport = 1", 2, "unknown field `port`"),
            ("\n[mirrors.\"docker.io\"]\nprot = 1", 3, "unknown field `prot`"),
            ("[mirrors.\"docker.io\"]\nport = 5001", 2, "both on port 5001"),
            ("[mirrors.\"docker.io\"]\nport = 0", 2, "0 is no port"),
            ("[mirrors.\"docker.io\"]\nport = 70000", 2, "70000 is no port"),
            ("[mirrors.\"docker.io\"]\nupstream = \"quay.io\"", 2, "no scheme"),
            ("[mirrors.\"docker.io\"]\nupstream = \"\"", 2, "no scheme"),
            ("image = \"a..b:1\"", 1, "no image reference"),
            ("[mirrors.\"docker.io\"]\nupstream = \"ftp://quay.io\"", 2, "no scheme"),
            ("[mirrors.\"docker.io\"]\nupstream = \"http://localhost:5000\"", 2, "own loopback"),
            ("\n[mirrors.\"localhost:5000\"]\nport = 5010", 2, "own loopback"),
            ("\n[mirrors]\nfoo = 1", 3, "an integer stands where a table, such as"),
            ("[mirrors.\"docker.io\"]\nport = \"5000\"", 2, "a string stands where a number belongs"),
            ("[mirrors.\"docker.io\"]\nport = 99999999999999999999", 2, "the number is too large"),
            (
                "[mirrors.\"docker.io\"]\nport = 9999999999999999999999999999999999999999999",
                2,
                "the number is too large",
            ),
            ("[mirrors.\"x.example\"]\nenabled = false", 1, "no mirror that there is to disable"),
            ("[mirrors.\"docker.io\"]\npassword = \"x\"", 2, "unknown field `password`"),
            ("\noffline = 1", 2, "neither"),
            ("[mirrors.\"docker.io\"]\nupstream = \"https://a/v2/\"", 2, "has a path"),
            ("[mirrors.\"docker.io\"]\nupstream = \"https://\"", 2, "names no host"),
            ("[mirrors.\"Docker_IO\"]\nport = 1", 1, "not the host of a registry"),
            ("[mirrors.\"new.example\"]", 1, "has no port"),
            ("image = \"-x\"", 1, "no image reference"),
            ("bind = \"everywhere\"", 1, "neither"),
            ("bind = \"224.0.0.1\"", 1, "a multicast address; no client can connect to it"),
            ("\nbind = \"255.255.255.255\"", 2, "the broadcast address; no client can connect to it"),
            ("bind = \"ff02::1\"", 1, "a multicast address"),
            ("bind = \"::ffff:239.1.2.3\"", 1, "a multicast address"),
            ("prefix = \"-\"", 1, "cannot begin"),
            ("\noffline = \"maybe\"", 2, "neither"),
            ("image = ", 1, ""),
        ] {
            let error = error(text);
            assert!(error.starts_with(&format!("cache.toml:{line}: ")) && error.contains(part), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_host_without_quotes_is_named_with_them() {
        for (text, line, quoted) in [
            ("\n[mirrors.docker.io]\nport = 1", 2, "[mirrors.\"docker.io\"]"),
            ("mirrors.docker.io.port = 5100", 1, "mirrors.\"docker.io\".port"),
            ("[mirrors]\nregistry.k8s.io.port = 1", 2, "\"registry.k8s.io\".port"),
            ("[mirrors]\n docker . io = { port = 1 }", 2, "\"docker.io\""),
            ("[mirrors.cache]\nport = 1\n[mirrors.docker.io]\nport = 1", 3, "[mirrors.\"docker.io\"]"),
        ] {
            let error = parse(text).unwrap_err();
            let told = format!("cache.toml:{line}: without quotes, the dots of a host divide it into tables");
            assert_eq!((error.to_string(), error.fix()), (told, Some(&*format!("write the host in quotes: {quoted}"))));
        }
        for text in ["[mirrors.cache]\nprot = 1", "mirrors.cache.prot = 1", "[mirrors]\ncache.prot = 1"] {
            assert!(error(text).contains("unknown field `prot`"), "{text}");
        }
    }

    #[test]
    fn a_password_in_the_wrong_place_is_refused_and_not_repeated() {
        for line in [
            "upstream = \"https://me:hunter2@a\"",
            "upstream = \"me:hunter2@a\"",
            "image = \"https://me:hunter2@a/b\"",
            "upstream = \"ftp://me:hunter2@a\"",
            "port = \"hunter2\"",
            "username = \"me\"\npassword_env = \"hunter2 \"",
            "password_env = [\"hunter2\"]",
            "password_env = 0x68756e74657232\nusername = \"hunter2\"",
            "enabled = \"hunter2\"",
            "upstream = \"https://a/?token=hunter2\"",
            "upstream = \"me:hunter2\"",
            "[mirrors.\"me:hunter2@quay.io\"]",
            "[cluster]\naddress = \"me:hunter2@cache\"",
            "[boot]\nrelease = \"https://me:hunter2@a\"",
        ] {
            let error = parse(&format!("bind = \"local\"\n[mirrors.\"docker.io\"]\n{line}")).unwrap_err();
            let shown = format!("{error} {:?}", error.fix());
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        for text in ["preset = \"hunter2\"", "preset = [\"hunter2\"]", "mirrors = \"hunter2\"", "cluster = \"hunter2\""]
        {
            let shown = error(text);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn an_upstream_that_is_a_containers_own_loopback_is_refused() {
        for host in [
            "localhost:5000",
            "LOCALHOST",
            "localhost.",
            "localhost.:5000",
            "registry.localhost",
            "127.0.0.1",
            "127.1",
            "127.9.9.9:80",
            "0.0.0.0:5000",
            "0",
            "[::]",
            "[::]:5000",
            "[::1]",
            "[::ffff:127.0.0.1]:5000",
            "[::ffff:0.0.0.0]",
        ] {
            let told = error(&format!("[mirrors.\"docker.io\"]\nupstream = \"http://{host}\""));
            assert!(told.contains("own loopback"), "{host}: {told}");
        }
        for host in ["127.example", "localhost.example", "notlocalhost", "10.0.0.1", "[fd00::1]", "0.example"] {
            parse(&format!("[mirrors.\"docker.io\"]\nupstream = \"http://{host}\"")).unwrap();
        }
    }

    #[test]
    fn what_is_to_be_written_instead_of_an_upstream_names_a_host() {
        for (upstream, written) in [
            ("", "write \"https://HOST\""),
            ("ftp://", "write \"https://HOST\""),
            ("https://", "write \"https://HOST\""),
            ("quay.io/v2/", "write \"https://quay.io\""),
            ("ftp://[fd00::1]:5000", "write \"https://[fd00::1]:5000\""),
            ("http://a/v2/", "write \"http://a\""),
        ] {
            let error = parse(&format!("[mirrors.\"docker.io\"]\nupstream = \"{upstream}\"")).unwrap_err();
            assert!(error.fix().is_some_and(|fix| fix.starts_with(written)), "{upstream:?}: {:?}", error.fix());
        }
    }

    #[test]
    fn an_upstream_is_read_as_addresses_are() {
        let of = |upstream: &str| {
            parse(&format!("[mirrors.\"docker.io\"]\nupstream = \"{upstream}\"")).unwrap().mirrors[0].upstream.clone()
        };
        assert_eq!(of("HTTPS://Registry.Example/"), "https://registry.example");
        assert_eq!(of("http://[fd00::1]:5000"), "http://[fd00::1]:5000");
    }

    #[test]
    fn an_account_needs_both_halves_and_a_proxy_that_not_everyone_reaches() {
        let table = |more: &str| format!("bind = \"local\"\n[mirrors.\"docker.io\"]\n{more}");
        let both = "username = \"me\"\npassword_env = \"TOKEN\"\n";
        let config = parse(&table(both)).unwrap();
        let expected = Credentials { username: "me".into(), password: Password::Env("TOKEN".into()) };
        assert_eq!(config.mirrors[0].credentials, Some(expected));
        for (more, part) in [
            ("username = \"me\"", "no password"),
            ("password_env = \"TOKEN\"", "no username"),
            ("username = \"\"\npassword_env = \"TOKEN\"", "empty username"),
            ("username = \"me\"\npassword_env = \"A\"\npassword_file = \"b\"", "both password_env and"),
        ] {
            assert!(error(&table(more)).contains(part), "{more}");
        }
        let secret = error(&table("username = \"me\"\npassword_env = \"hunter 2\""));
        assert!(secret.contains("not the name of a variable") && !secret.contains("hunter"), "{secret}");
        for bind in ["", "bind = \"0.0.0.0\"\n", "bind = \"::\"\n", "bind = \"::ffff:0.0.0.0\"\n"] {
            let all = error(&format!("{bind}[mirrors.\"docker.io\"]\n{both}"));
            assert!(all.contains("everyone on the network"), "{all}");
        }
    }

    #[test]
    fn the_variables_that_hold_passwords_are_known_for_disabled_mirrors_too() {
        let account = "username = \"me\"\npassword_env";
        let text = format!(
            "bind = \"local\"\n[mirrors.\"docker.io\"]\n{account} = \"HUB\"\n\
             [mirrors.\"quay.io\"]\nenabled = false\n{account} = \"QUAY\"\n"
        );
        assert_eq!(parse(&text).unwrap().password_variables, ["HUB", "QUAY"]);
    }

    #[test]
    fn a_password_file_is_looked_for_beside_the_settings() {
        let text = "bind = \"local\"\n[mirrors.\"docker.io\"]\nusername = \"me\"\npassword_file = \"token\"\n";
        let config = super::parse(Some("/etc/x/cache.toml".into()), text, None).unwrap();
        let password = config.mirrors[0].credentials.clone().map(|credentials| credentials.password);
        assert_eq!(password, Some(Password::File("/etc/x/token".into())));
    }

    #[test]
    fn clusters_find_their_mirrors_and_boot_files_where_the_file_says() {
        let text = "[cluster]\naddress = \"cache.example\"\n[boot]\nrelease = \"http://10.0.0.1/talos/\"\n";
        let config = parse(text).unwrap();
        assert_eq!(config.cluster_address, Some(crate::host::Host::Name("cache.example".into())));
        assert_eq!(
            (config.boot.release.as_str(), config.boot.factory.as_str()),
            ("http://10.0.0.1/talos", crate::boot::FACTORY)
        );
        for (text, part) in [
            ("[cluster]\naddress = \"http://a\"", "more than a host"),
            ("[cluster]\naddress = \"a:5000\"", "has a port"),
            ("[boot]\nrelease = \"ftp://a\"", "no plain http"),
            ("[boot]\nfactory = \"https://me:pw@a\"", "no plain http"),
        ] {
            assert!(error(text).contains(part), "{text}");
        }
    }

    #[test]
    fn each_value_knows_where_it_comes_from() {
        let text = "preset = \"guide\"\n[mirrors.\"gcr.io\"]\nport = 6000\n";
        let config = super::parse(Some("/a/cache.toml".into()), text, None).unwrap();
        let of = |config: &Config, key: &str| config.values().into_iter().find(|value| value[0] == key).unwrap();
        assert_eq!(of(&config, "preset"), ["preset", "guide", "cache.toml:1"]);
        assert_eq!(of(&config, "mirrors.gcr.io.port"), ["mirrors.gcr.io.port", "6000", "cache.toml:3"]);
        assert_eq!(of(&config, "mirrors.quay.io.image")[2], "preset guide");
        assert_eq!(of(&config, "bind"), ["bind", "all", "built in"]);
        let flag = super::parse(None, "image = \"registry:3\"", Some(Preset::Guide)).unwrap();
        assert_eq!(of(&flag, "preset")[2], "--preset");
        assert_eq!(of(&flag, "mirrors.quay.io.image")[1..], ["registry:3", "cache.toml:1"]);
    }
}
