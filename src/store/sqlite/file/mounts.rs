//! Whether a path is a mount point: whether another part of the file tree begins there.

use std::io;
use std::path::Path;

/// Whether something is mounted at exactly that path. The path must be resolved: absolute, without links.
///
/// # Errors
///
/// Those of the system if there is no such path, or if the system gives no answer.
#[cfg(target_os = "linux")]
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found)
            if found
                .stx_attributes_mask
                .contains(StatxAttributes::MOUNT_ROOT) =>
        {
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(rustix::io::Errno::NOENT) => Err(io::ErrorKind::NotFound.into()),
        // Kernels before 5.8 do not report mount points that way, and some sandboxes refuse the call.
        Ok(_) | Err(_) => std::fs::read("/proc/self/mountinfo").map(|table| lists(&table, path)),
    }
}

/// Outside Linux, a mount point is found by its device number. This misses a single mounted file, which few other systems
/// allow.
#[cfg(all(unix, not(target_os = "linux")))]
pub(crate) fn is_mount_point(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::symlink_metadata(path)?;
    let folder = std::fs::metadata(path.parent().unwrap_or(path))?;
    Ok(metadata.dev() != folder.dev())
}

#[cfg(not(unix))]
pub(crate) fn is_mount_point(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

/// Whether a table of mounts, in the format of `/proc/self/mountinfo` (proc(5)), has that path as a mount point.
#[cfg(target_os = "linux")]
fn lists(table: &[u8], path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    table
        .split(|&byte| byte == b'\n')
        // The fifth field is the mount point.
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .any(|point| unescape(point) == path.as_os_str().as_bytes())
}

/// The table writes a blank, a tab, a line break and a backslash as a backslash and three octal digits.
#[cfg(target_os = "linux")]
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        match after {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = tail;
            }
            _ => {
                plain.push(first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_found_in_the_kernel_s_table() {
        let table = b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            63 43 254:0 /h/a.db /data/app.db rw - ext4 /dev/vda rw\n\
            64 43 254:0 /h/b.db /data/my\\040own\\134.db rw - ext4 /dev/vda rw\n";
        for (path, expected) in [
            ("/", true),
            ("/data/app.db", true),
            ("/data/my own\\.db", true),
            ("/h/a.db", false),
            ("/data", false),
            ("/data/app.d", false),
        ] {
            assert_eq!(lists(table, Path::new(path)), expected, "{path}");
        }
    }

    /// Both ways to ask agree, on what every Linux system has mounted.
    #[test]
    fn the_kernel_and_its_table_agree() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        for (path, expected) in [
            (Path::new("/proc"), true),
            (Path::new("/proc/self"), false),
            (dir.path(), false),
            (&file, false),
        ] {
            assert_eq!(is_mount_point(path).unwrap(), expected, "{path:?}");
            assert_eq!(lists(&table, path), expected, "{path:?}");
        }
        let missing = is_mount_point(&dir.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
