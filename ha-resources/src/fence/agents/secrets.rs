//! Passwords of fence agents: which parameters hold one, where it is read from, and that nobody gets to see it.
//!
//! Leaves to [`super::read`] that none stands in a configuration file.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ha_core::driver::Failed;

/// Longer than any password.
const BYTES_MAX: u64 = 4096;

/// Whether a parameter of this name holds something that is not to be shown. The names are those of known agents (and the likes of them).
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let names_a_file = ["_script", "_file", "_path"].iter().any(|ending| name.ends_with(ending));
    let words = ["passw", "passphrase", "secret", "community", "token", "apikey", "api_key", "api-key", "access_key"];
    !names_a_file && words.iter().any(|word| name.contains(word))
}

/// The value in a file, without the end of its line.
pub(super) fn read(file: &Path) -> Result<String, Failed> {
    let shown = file.display();
    let wrong = |e: std::io::Error| Failed(format!("the secret in {shown} cannot be read: {e}"));
    let mut opened = std::fs::File::open(file).map_err(wrong)?;
    let mode = opened.metadata().map_err(wrong)?.mode();
    if mode & 0o007 != 0 {
        return Err(Failed(format!("the secret in {shown} can be read by everybody: chmod 600 {shown}")));
    }
    let mut text = String::new();
    opened.by_ref().take(BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    let one_line = !value.contains(['\n', '\r', '\0']);
    if value.is_empty() || !one_line || u64::try_from(value.len()).is_ok_and(|length| length > BYTES_MAX) {
        return Err(Failed(format!(
            "the secret in {shown} is not one: expected one line of at most {BYTES_MAX} bytes"
        )));
    }
    Ok(value.to_owned())
}

/// All secrets of a device, for one run of its agent.
#[derive(Default)]
pub(super) struct Secrets(Vec<(String, String)>);

impl Secrets {
    pub(super) fn read<'a>(files: impl Iterator<Item = (&'a String, &'a PathBuf)>) -> Result<Secrets, Failed> {
        files.map(|(name, file)| Ok((name.clone(), read(file)?))).collect::<Result<_, Failed>>().map(Secrets)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(String, String)> {
        self.0.iter()
    }

    /// A text of somebody who knew them, without them.
    pub(super) fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, value)| text.replace(value, &format!("<{name}>")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_names_of_known_agents_passwords_are_known() {
        for name in
            ["password", "passwd", "snmp_priv_passwd", "community", "token", "secret_key", "apikey", "access_key"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["password_script", "passwd_script", "token_file", "plug", "key", "identity_file", "username"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn a_secret_is_one_line_that_not_everybody_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let write = |text: &str, mode| {
            std::fs::write(&file, text).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            read(&file).map_err(|failed| failed.0)
        };
        assert_eq!(write("hunter 2\n", 0o600), Ok("hunter 2".to_owned()));
        assert_eq!(write("hunter 2", 0o640), Ok("hunter 2".to_owned()));
        assert!(write("hunter 2", 0o644).unwrap_err().contains("chmod 600"));
        for wrong in ["", "\n", "two\nlines\n", &"x".repeat(5000)] {
            let said = write(wrong, 0o600).unwrap_err();
            assert!(said.contains("expected one line") && !said.contains("two"), "{said}");
        }
        assert!(read(&folder.path().join("none")).unwrap_err().0.contains("cannot be read"));
    }

    #[test]
    fn what_an_agent_says_is_shown_without_the_secret() {
        let secrets = Secrets(vec![("password".to_owned(), "hunter2".to_owned())]);
        assert_eq!(secrets.hide("login as ha with hunter2 failed"), "login as ha with <password> failed");
    }
}
