//! Where the file of a SQLite store is.

use std::path::Path;

use super::Findings;

pub fn examine(url: &str, findings: &mut Findings) {
    let path = url.strip_prefix("sqlite:").unwrap_or(url).trim_start_matches("//");
    let path = Path::new(path.split('?').next().unwrap_or_default());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if is_remote(folder.unwrap_or(Path::new("."))) {
        findings.danger(
            format_args!(
                "`{}` is on a network file system, on which SQLite cannot exclude other hosts",
                path.display()
            ),
            "put the file on a local disk; hosts share locks through a server",
        );
    }
}

#[cfg(target_os = "linux")]
fn is_remote(folder: &Path) -> bool {
    use nix::sys::statfs::{self, statfs};
    let Ok(found) = statfs(folder) else { return false };
    // CIFS and SMB2 have no names there.
    let remote = [
        statfs::NFS_SUPER_MAGIC,
        statfs::SMB_SUPER_MAGIC,
        statfs::FsType(0xff53_4d42),
        statfs::FsType(0xfe53_4d42),
    ];
    remote.contains(&found.filesystem_type())
}

#[cfg(not(target_os = "linux"))]
fn is_remote(_: &Path) -> bool {
    false
}
