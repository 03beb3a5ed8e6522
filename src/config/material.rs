//! Passwords and certificates that flags name by their files.
//!
//! Owns reading them. A file that can't be what it is named for is refused here, where the flag is
//! known, and not later, when a server refuses us.

use secrecy::SecretString;

use super::error::ConfigurationError;
use super::files::Folders;
use super::setting::Setting;

/// The password in a file; editors and `echo` end it with a line end that is not part of it.
pub(super) fn password(file: &str, folders: &Folders) -> Result<SecretString, ConfigurationError> {
    let text = text(Setting::PasswordFile, file, folders)?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(wrong(Setting::PasswordFile, file, "password", "write it there, or leave the flag out"));
    }
    Ok(SecretString::from(password))
}

/// The certificates in a file.
pub(super) fn certificates(flag: Setting, file: &str, folders: &Folders) -> Result<Vec<u8>, ConfigurationError> {
    let text = text(flag, file, folders)?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(wrong(flag, file, "certificate in PEM form", "name a file with -----BEGIN CERTIFICATE-----"));
    }
    Ok(text.into_bytes())
}

/// The private key in a file.
pub(super) fn private_key(file: &str, folders: &Folders) -> Result<SecretString, ConfigurationError> {
    let text = text(Setting::TlsKeyFile, file, folders)?;
    if !text.contains("PRIVATE KEY-----") || text.contains("ENCRYPTED PRIVATE KEY-----") {
        let remedy = "name a file with -----BEGIN PRIVATE KEY-----, not encrypted";
        return Err(wrong(Setting::TlsKeyFile, file, "private key in PEM form", remedy));
    }
    Ok(SecretString::from(text))
}

fn text(flag: Setting, file: &str, folders: &Folders) -> Result<String, ConfigurationError> {
    let bytes = folders.read(file).map_err(|cause| ConfigurationError::Unreadable {
        file: format!("{} {file}", flag.flag()),
        cause,
        remedy: "Make it readable, or name another file",
    })?;
    String::from_utf8(bytes).map_err(|_| wrong(flag, file, "UTF-8 text", "name a text file"))
}

fn wrong(flag: Setting, file: &str, wanted: &'static str, remedy: &'static str) -> ConfigurationError {
    ConfigurationError::WrongContent { flag: flag.flag(), file: file.to_owned(), wanted, remedy }
}
