//! Boot files from a release and a factory on loopback that fail as real ones do.
#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/origin.rs"]
mod origin;
#[path = "support/site.rs"]
mod site;
mod support;

use origin::{Fault, Origin, Request};
use semver::Version;
use site::{BUNDLE, Direct, IMAGE, Site, SmallDisk, bytes};
use support::digest;
use xshell::{Shell, cmd};
use xtask::boot::{self, Image, SCHEMATIC};
use xtask::error::Error;
use xtask::exec::{Interrupt, ReadOnly};
use xtask::fetch::refused;
use xtask::term::Term;

fn asked(origin: &Origin) -> Vec<(String, Option<usize>)> {
    let name = |request: Request| (request.path.rsplit('/').next().unwrap().to_owned(), request.from);
    origin.requests().into_iter().map(name).collect()
}

fn request(name: &str, from: Option<usize>) -> (String, Option<usize>) {
    (name.to_owned(), from)
}

#[test]
fn the_kernel_and_the_initramfs_come_once() {
    let site = Site::new();
    site.whole();
    assert_eq!(asked(&site.origin), [request("vmlinuz-amd64", None), request("initramfs-amd64.xz", None)]);
    site.whole();
    assert_eq!(asked(&site.origin), []);
}

#[test]
fn other_bytes_than_were_published_are_never_kept() {
    let site = Site::new();
    site.release("vmlinuz-amd64", &bytes(200_001));
    let error = site.kernel().unwrap_err().to_string();
    for part in [&format!("{}/v1.9.6/vmlinuz-amd64: ", site.origin.address()), "\n  fix: "] {
        assert!(error.contains(part), "{error}");
    }
    for bytes in [bytes(200_000), bytes(200_001)] {
        assert!(error.contains(digest(&bytes).trim_start_matches("sha256:")), "{error}");
    }
    assert_eq!(asked(&site.origin), [request("vmlinuz-amd64", None)]);
    assert_eq!(site.names(), [""; 0]);
}

#[test]
fn a_transfer_that_is_cut_goes_on_where_it_was() {
    let site = Site::new();
    site.origin.faults("vmlinuz-amd64", &[Fault::Cut(70_000), Fault::Status(503), Fault::Cut(30_000)]);
    site.whole();
    let from = |from| request("vmlinuz-amd64", from);
    let expected = [from(None), from(Some(70_000)), from(Some(70_000)), from(Some(100_000))];
    assert_eq!(asked(&site.origin)[..4], expected);
}

#[test]
fn the_next_run_goes_on_from_what_has_come() {
    let site = Site::new();
    let dead = [Fault::Cut(50_000), Fault::Cut(0), Fault::Cut(0), Fault::Cut(0)];
    site.origin.faults("vmlinuz-amd64", &dead);
    let error = site.kernel().unwrap_err().to_string();
    assert!(error.contains("cannot be fetched; the next run goes on from the 48.83 KiB in "), "{error}");
    assert!(error.contains("\n  | curl: (18) "), "{error}");
    asked(&site.origin);
    site.whole();
    assert_eq!(asked(&site.origin)[0], request("vmlinuz-amd64", Some(50_000)));
}

#[test]
fn a_part_that_is_spoiled_is_fetched_once_more_from_the_start() {
    let site = Site::new();
    std::fs::create_dir_all(site.folder.join("v1.9.6")).unwrap();
    std::fs::write(site.kept("vmlinuz-amd64.part"), "not what belongs there").unwrap();
    site.whole();
    assert_eq!(asked(&site.origin)[..2], [request("vmlinuz-amd64", Some(22)), request("vmlinuz-amd64", None)]);
}

#[test]
fn a_part_that_is_whole_already_needs_its_name_only() {
    let site = Site::new();
    std::fs::create_dir_all(site.folder.join("v1.9.6")).unwrap();
    std::fs::write(site.kept("vmlinuz-amd64.part"), bytes(200_000)).unwrap();
    site.whole();
    assert_eq!(asked(&site.origin)[0], request("vmlinuz-amd64", Some(200_000)));
}

#[test]
fn a_server_that_knows_no_ranges_is_asked_for_all() {
    let site = Site::new();
    site.origin.without_ranges();
    site.origin.faults("vmlinuz-amd64", &[Fault::Cut(70_000)]);
    site.whole();
    let from = |from| request("vmlinuz-amd64", from);
    assert_eq!(asked(&site.origin)[..3], [from(None), from(Some(70_000)), from(None)]);
}

#[test]
fn a_release_that_does_not_exist_is_named() {
    let mut site = Site::new();
    site.version = Version::new(1, 99, 0);
    let error = site.kernel().unwrap_err().to_string();
    let address = site.origin.address();
    let expected =
        format!("{address}/v1.99.0/vmlinuz-amd64: there is no such file; Talos v1.99.0 was asked for\n  fix: ");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_site_without_digests_serves_all_the_same() {
    let site = Site::new();
    site.sums(&[]);
    site.whole();
}

#[test]
fn no_network_says_what_to_fetch_elsewhere_and_where_to_put_it() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut site = Site::new();
    site.sources.release = format!("http://127.0.0.1:{port}");
    let error = site.kernel().unwrap_err().to_string();
    assert!(error.contains("cannot be fetched\n  | curl: (7) "), "{error}");
    for item in site.wish().kernel_items() {
        assert!(error.contains(&format!("{} as {}", item.address, item.path)), "{error}");
        std::fs::write(item.path, "by hand").unwrap();
    }
    site.kernel().unwrap();
}

#[test]
fn a_full_disk_is_called_one_and_keeps_what_has_come() {
    let site = Site::new();
    let disk = SmallDisk::mount(&site.folder);
    let full = site.kept("vmlinuz-amd64.part");
    if disk.is_none() {
        // Nobody but root may mount: the device that is always full has to do.
        std::fs::create_dir_all(site.folder.join("v1.9.6")).unwrap();
        std::os::unix::fs::symlink("/dev/full", &full).unwrap();
    }
    let error = site.kernel().unwrap_err().to_string();
    assert!(error.starts_with(&format!("{full}: its disk is full")), "{error}");
    assert!(error.contains("\n  | curl: (23) "), "{error}");
    if let Some(disk) = &disk {
        let (sh, folder) = (Shell::new().unwrap(), disk.0);
        let size = full.metadata().unwrap().len();
        assert!(size > 0, "{error}");
        cmd!(sh, "mount -o remount,size=4m {folder}").quiet().run().unwrap();
        asked(&site.origin);
        site.whole();
        assert_eq!(asked(&site.origin)[0].1, usize::try_from(size).ok());
    }
}

#[test]
fn an_interrupt_keeps_what_has_come() {
    let site = Site::new();
    site.origin.faults("vmlinuz-amd64", &[Fault::Stall(60_000)]);
    let runner = Direct::new(Interrupt::install().unwrap());
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            site.origin.wait_until_stalled();
            let (sh, pid) = (Shell::new().unwrap(), std::process::id().to_string());
            cmd!(sh, "kill -INT {pid}").quiet().run().unwrap();
        });
        boot::kernel(&runner, Term::silent(), &site.wish()).unwrap_err()
    });
    site.origin.release();
    assert_eq!(error.code(), 130);
    assert!(error.to_string().starts_with("interrupted: the next run goes on from the "), "{error}");
    // A curl that is ended has not written quite all that it had.
    let size = usize::try_from(site.kept("vmlinuz-amd64.part").metadata().unwrap().len()).unwrap();
    assert!((1..=60_000).contains(&size), "{size}");
    asked(&site.origin);
    site.whole();
    assert_eq!(asked(&site.origin)[0], request("vmlinuz-amd64", Some(size)));
}

#[test]
fn two_runs_at_once_fetch_each_file_once() {
    let site = Site::new();
    std::thread::scope(|scope| {
        let runs = [scope.spawn(|| site.kernel()), scope.spawn(|| site.kernel())];
        for run in runs {
            run.join().unwrap().unwrap();
        }
    });
    site.whole();
    assert_eq!(asked(&site.origin), [request("vmlinuz-amd64", None), request("initramfs-amd64.xz", None)]);
}

#[test]
fn a_dry_run_fetches_nothing() {
    let site = Site::new();
    let real = Direct::new(Interrupt::default());
    let error = boot::kernel(&ReadOnly(&real), Term::silent(), &site.wish()).unwrap_err();
    assert!(matches!(error, Error::Command { .. }), "{error}");
    assert_eq!(asked(&site.origin), []);
}

#[test]
fn the_iso_is_put_where_talosctl_looks_and_comes_once() {
    let site = Site::new();
    site.iso().unwrap();
    assert!(site.place() == bytes(400_000));
    site.iso().unwrap();
    assert_eq!(asked(&site.origin), [request("metal-amd64.iso", None)]);
    std::fs::remove_dir_all(&site.home).unwrap();
    site.iso().unwrap();
    assert!(site.place() == bytes(400_000));
    assert_eq!(asked(&site.origin), []);
}

#[test]
fn an_iso_that_talosctl_left_half_done_is_replaced() {
    let site = Site::new();
    let place = site.wish().iso_place(&IMAGE);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(&place, &bytes(400_000)[..1000]).unwrap();
    site.iso().unwrap();
    assert!(site.place() == bytes(400_000));
    assert_eq!(place.parent().unwrap().read_dir_utf8().unwrap().count(), 1);
}

#[test]
fn an_iso_is_never_put_together_from_two() {
    let site = Site::new();
    site.origin.faults("metal-amd64.iso", &[Fault::Cut(50_000), Fault::Status(403)]);
    site.iso().unwrap_err();
    let path = format!("/image/{SCHEMATIC}/v1.9.6/metal-amd64.iso");
    let rebuilt: Vec<u8> = bytes(400_000).into_iter().rev().collect();
    site.origin.put(&path, &rebuilt);
    site.iso().unwrap();
    assert!(site.place() == rebuilt);
}

#[test]
fn an_iso_goes_on_only_where_the_server_can_tell_it_from_another() {
    for tags in [true, false] {
        let site = Site::new();
        if !tags {
            site.origin.without_tags();
        }
        site.origin.faults("metal-amd64.iso", &[Fault::Cut(50_000), Fault::Status(403)]);
        let error = site.iso().unwrap_err().to_string();
        assert_eq!(error.contains("the next run goes on"), tags, "{error}");
        asked(&site.origin);
        site.iso().unwrap();
        assert!(site.place() == bytes(400_000));
        assert_eq!(asked(&site.origin), [request("metal-amd64.iso", tags.then_some(50_000))]);
    }
}

#[test]
fn a_schematic_is_no_path() {
    let image = Image { schematic: "../x", told: None };
    let site = Site::new();
    let error = boot::iso(&Direct::new(Interrupt::default()), Term::silent(), &site.wish(), &image).unwrap_err();
    assert_eq!(error.code(), 2);
}

const PLUGINS: [&str; 4] = ["bridge", "firewall", "static", "tc-redirect-tap"];

#[test]
fn the_plugins_are_unpacked_where_one_is_missing() {
    let site = Site::new();
    site.bundle(&PLUGINS);
    let bin = site.home.join("cni/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("bridge"), "").unwrap();
    std::fs::write(bin.join("loopback"), "another's").unwrap();
    site.cni().unwrap();
    for name in PLUGINS {
        let (sh, plugin) = (Shell::new().unwrap(), bin.join(name));
        assert_eq!(cmd!(sh, "{plugin}").quiet().read().unwrap(), name);
    }
    assert_eq!(std::fs::read_to_string(bin.join("loopback")).unwrap(), "another's");
    assert_eq!(bin.parent().unwrap().read_dir_utf8().unwrap().count(), 1);
    site.cni().unwrap();
    assert_eq!(asked(&site.origin), [request(BUNDLE, None)]);
}

#[test]
fn plugins_that_are_there_ask_for_nothing() {
    let site = Site::new();
    let bin = site.home.join("cni/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in PLUGINS {
        std::fs::write(bin.join(name), "a program").unwrap();
    }
    site.cni().unwrap();
    assert_eq!(asked(&site.origin), []);
}

#[test]
fn a_bundle_that_lacks_a_plugin_puts_none() {
    let site = Site::new();
    site.bundle(&["bridge", "firewall", "static"]);
    let error = site.cni().unwrap_err().to_string();
    assert!(error.contains("/v1.9.6/talosctl-cni-bundle-amd64.tar.gz: there is no tc-redirect-tap in it"), "{error}");
    assert_eq!(site.wish().cni_missing().len(), 4);
}

#[test]
fn a_folder_of_another_user_says_whose_it_has_to_be() {
    let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let error = refused("/home/u/.talos/cache/x.iso".into(), "/home/u/.talos".into(), denied).to_string();
    assert!(error.starts_with("/home/u/.talos/cache/x.iso: this user may not write there"), "{error}");
    assert!(error.ends_with("\n  fix: sudo chown -R \"$(id -u)\" /home/u/.talos"), "{error}");
}
