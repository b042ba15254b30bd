//! The UEFI firmware of virtual machines: whether they need any, and whether it is where talosctl looks for it.

use camino::{Utf8Path, Utf8PathBuf};

use crate::boot;
use crate::talosctl::Version;
use crate::talosctl::extra::{switched, values};

/// What an architecture starts from: one file of each list, each in any of the folders.
struct Flash {
    folders: &'static [&'static str],
    code: &'static [&'static str],
    vars: &'static [&'static str],
    /// The first series of which it is certain that it wants a file of variables as well.
    vars_from: (u64, u64),
}

/// Source: Talos, `pkg/provision/providers/qemu/arch.go` of several releases; a file is in the list that is in the list
/// of any of them, since a check that is too strict would refuse what works.
const AMD64: Flash = Flash {
    folders: &["ovmf", "OVMF", "qemu", "ovmf/x64"],
    code: &[
        "OVMF_CODE_4M.secboot.fd",
        "OVMF_CODE.secboot.4m.fd",
        "OVMF_CODE.secboot.fd",
        "OVMF.secboot.fd",
        "edk2-x86_64-secure-code.fd",
        "ovmf-x86_64-ms-4m-code.bin",
        "OVMF_CODE_4M.fd",
        "OVMF_CODE.4m.fd",
        "OVMF_CODE.fd",
        "OVMF.fd",
        "ovmf-x86_64-4m-code.bin",
    ],
    vars: &["OVMF_VARS_4M.fd", "OVMF_VARS.4m.fd", "OVMF_VARS.fd", "ovmf-x86_64-4m-vars.bin"],
    vars_from: (1, 5),
};
const ARM64: Flash = Flash {
    folders: &["AAVMF", "qemu-efi-aarch64", "OVMF", "edk2/aarch64", "edk2/experimental"],
    code: &[
        "AAVMF_CODE.secboot.fd",
        "QEMU_EFI.secboot.testonly.fd",
        "AAVMF_CODE.fd",
        "QEMU_EFI.fd",
        "OVMF.stateless.fd",
        "edk2-aarch64-code.fd",
    ],
    vars: &["AAVMF_VARS.fd", "QEMU_VARS.fd", "edk2-arm-vars.fd"],
    vars_from: (1, 12),
};

/// What is missing of the firmware of virtual machines; `None` where all is there, or none is needed.
///
/// `arch` is Talos's name of their architecture, `there` whether a file is there.
pub fn missing(version: &Version, arch: &str, extra: &[String], there: impl Fn(&Utf8Path) -> bool) -> Option<String> {
    if !needed(version, arch, extra) {
        return None;
    }
    let flash = if arch == "arm64" { &ARM64 } else { &AMD64 };
    let own = flash.folders.iter().map(|folder| Utf8Path::new("/usr/share").join(folder));
    let named = values(extra, "extra-uefi-search-paths").flat_map(|folders| folders.split(',')).map(Utf8PathBuf::from);
    let folders: Vec<Utf8PathBuf> = own.chain(named).collect();
    let has = |names: &[&str]| folders.iter().any(|folder| names.iter().any(|name| there(&folder.join(name))));
    if !has(flash.code) {
        return Some(format!("there is no UEFI firmware for {arch} where talosctl looks for it"));
    }
    if version.at_least(flash.vars_from) && !has(flash.vars) {
        let (first, last) = (flash.vars.first()?, flash.vars.last()?);
        return Some(format!("there is UEFI firmware for {arch}, and no file of its variables ({first} to {last})"));
    }
    None
}

/// Whether this machine has what virtual machines of its own architecture need, whatever the release.
pub fn is_there() -> bool {
    let newest = Version::parse("v1.12.0");
    let arch = boot::arch(std::env::consts::ARCH).unwrap_or("amd64");
    newest.is_some_and(|newest| missing(&newest, arch, &[], Utf8Path::exists).is_none())
}

/// arm64 always boots by UEFI; amd64 unless that is switched off, which is the default up to 0.14 and cannot be done from
/// 1.12 on.
fn needed(version: &Version, arch: &str, extra: &[String]) -> bool {
    let default = version.at_least((1, 0));
    arch == "arm64" || version.at_least((1, 12)) || switched(extra, "with-uefi").unwrap_or(default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lacks(tag: &str, arch: &str, extra: &str, files: &[&str]) -> Option<String> {
        let extra: Vec<String> = extra.split_whitespace().map(str::to_owned).collect();
        missing(&Version::parse(tag).unwrap(), arch, &extra, |file| files.contains(&file.as_str()))
    }

    #[test]
    fn machines_without_uefi_need_no_firmware() {
        for (tag, arch, extra, needed) in [
            ("v0.14.3", "amd64", "", false),
            ("v0.14.3", "amd64", "--with-uefi", true),
            ("v1.0.6", "amd64", "", true),
            ("v1.11.6", "amd64", "--with-uefi=false", false),
            ("v1.11.6", "amd64", "--with-uefi=true", true),
            ("v1.12.0", "amd64", "--with-uefi=false", true),
            ("v0.14.3", "arm64", "", true),
            ("v1.9.6", "arm64", "--with-uefi=false", true),
        ] {
            assert_eq!(lacks(tag, arch, extra, &[]).is_some(), needed, "{tag} {arch} {extra}");
        }
    }

    #[test]
    fn firmware_is_found_under_every_distributions_names() {
        for (arch, files) in [
            ("amd64", ["/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"]),
            ("amd64", ["/usr/share/qemu/ovmf-x86_64-4m-code.bin", "/usr/share/qemu/ovmf-x86_64-4m-vars.bin"]),
            ("amd64", ["/usr/share/ovmf/x64/OVMF_CODE.4m.fd", "/usr/share/ovmf/x64/OVMF_VARS.4m.fd"]),
            // The two need not be in one folder.
            ("amd64", ["/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_VARS.fd"]),
            ("arm64", ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"]),
        ] {
            assert_eq!(lacks("v1.12.0", arch, "", &files), None, "{files:?}");
            assert!(lacks("v1.12.0", arch, "", &files[..1]).unwrap().contains("no file of its variables"));
            assert!(lacks("v1.12.0", arch, "", &files[1..]).unwrap().contains("there is no UEFI firmware"));
        }
        let other = ["/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"];
        assert!(lacks("v1.11.6", "amd64", "", &other).is_some());
        // Old releases knew no file of variables.
        assert_eq!(lacks("v1.0.6", "amd64", "", &["/usr/share/ovmf/OVMF.fd"]), None);
    }

    #[test]
    fn folders_of_the_users_own_are_searched_too() {
        let files = ["/b/OVMF_CODE.fd", "/c/OVMF_VARS.fd"];
        assert!(lacks("v1.11.6", "amd64", "", &files).is_some());
        for extra in ["--extra-uefi-search-paths=/a,/b,/c", "--extra-uefi-search-paths /b --extra-uefi-search-paths /c"]
        {
            assert_eq!(lacks("v1.11.6", "amd64", extra, &files), None, "{extra}");
        }
    }
}
