//! The record of refusals forgets a user.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Takes the refusals that name a user out of the record, and overwrites them with zeros. Nobody else has the
/// record open.
///
/// # Errors
///
/// Returns the error of the operating system. Some days may be done then.
pub(crate) fn forget_user(dir: &Path, user: &str) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let before = fs::read(&path)?;
        let kept: Vec<&[u8]> = before
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| !names(line, user))
            .collect();
        let kept = kept.concat();
        if kept.len() < before.len() {
            // In place: another file would leave the bytes of this one on the disk.
            let mut file = File::options().write(true).open(&path)?;
            file.write_all(&kept)?;
            file.write_all(&vec![0; before.len() - kept.len()])?;
            file.sync_all()?;
            file.set_len(kept.len() as u64)?;
            file.sync_all()?;
        }
    }
    Ok(())
}

/// Whether a line of the record has the name of a user anywhere. A word too much is forgotten rather than the
/// name kept.
fn names(line: &[u8], user: &str) -> bool {
    let line = String::from_utf8_lossy(line);
    line.match_indices(user).any(|(at, name)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let behind = line.get(at + name.len()..).and_then(|text| text.chars().next());
        [before, behind].iter().flatten().all(|next| !next.is_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_with_the_name_go_and_the_others_stay() {
        let dir = tempfile::TempDir::new().unwrap();
        let lines = [
            r#"{"caller":"bob/main","pool":"ann/main"}"#,
            r#"{"caller":"bobby/main","detail":"a package"}"#,
            r#"{"caller":"ann/main","detail":"bob's pool is empty: ask bob."}"#,
            r#"{"caller":"ann/bo"}"#,
        ];
        let path = dir.path().join("2026-11-30.jsonl");
        fs::write(&path, format!("{}\n{{\"torn\":\"bob", lines.join("\n"))).unwrap();
        forget_user(dir.path(), "bob").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n{}\n", lines[1], lines[3]));
        forget_user(&dir.path().join("none"), "bob").unwrap();
    }
}
