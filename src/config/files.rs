//! The one file that settings are read from.
//!
//! Owns the order of search and reading. Refuses to pass over a file that is there but can't be read:
//! what it would have said is not known.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::ConfigurationError;
use super::layers::{Given, Layers, Values};
use super::provenance::Source;
use super::setting::Setting;
use super::{dotenv, yaml};

/// Where settings are looked for without being told: Outpost's own order.
const SEARCHED: [&str; 8] = [
    ".env",
    ".outpost.yaml",
    "config/outpost.yaml",
    "config/outpost/config.yaml",
    "config/outpost/.env",
    "/config/outpost.yaml",
    "/config/outpost/config.yaml",
    "/config/outpost/.env",
];

/// Where paths begin. Messages name files as they were given, whatever these are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Where relative paths begin.
    pub current: PathBuf,
    /// Where absolute paths begin.
    pub root: PathBuf,
}

impl Default for Folders {
    /// The folder that the process is in, and `/`.
    fn default() -> Self {
        Self { current: PathBuf::new(), root: PathBuf::from("/") }
    }
}

impl Folders {
    /// The content of a file.
    pub(super) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.locate(path))
    }

    fn locate(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        path.strip_prefix("/").map_or_else(|_| self.current.join(path), |below| self.root.join(below))
    }
}

/// A file's settings.
pub(super) struct SettingsFile {
    name: String,
    values: Values,
}

impl SettingsFile {
    /// The file that flags or environment name, else the first found.
    pub(super) fn find(named: &Layers, folders: &Folders) -> Result<Option<Self>, ConfigurationError> {
        if let Some(Given { text, source }) = named.given(Setting::File) {
            let said = format!("{} {text}", source.place());
            return Self::read(text, said, folders).map(Some);
        }
        for name in SEARCHED {
            if is_there(name, folders)? {
                return Self::read(name, name.to_owned(), folders).map(Some);
            }
        }
        Ok(None)
    }

    fn read(name: &str, said: String, folders: &Folders) -> Result<Self, ConfigurationError> {
        let text = folders.read(name).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
        });
        let text = text.map_err(|cause| unreadable(said, cause))?;
        let text = text.trim_start_matches('\u{feff}');
        let values = if is_dotenv(name) { dotenv::read(name, text)? } else { yaml::read(name, text)? };
        Ok(Self { name: name.to_owned(), values })
    }

    /// Its name, as it was given or is searched for.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Puts its settings below those there are.
    pub(super) fn put_below(self, layers: &mut Layers) {
        let Self { name: file, values } = self;
        let place = if is_dotenv(&file) { Setting::variable_in_file } else { Setting::yaml };
        layers.push(values, move |setting| {
            place(setting).map_or(Source::Default, |place| Source::File { file: file.clone(), place })
        });
    }
}

/// By the ending, as Outpost does.
fn is_dotenv(name: &str) -> bool {
    name.to_ascii_lowercase().ends_with(".env")
}

/// Whether there is such a file. A folder is none: some tools keep one named `.env`.
fn is_there(name: &str, folders: &Folders) -> Result<bool, ConfigurationError> {
    match fs::metadata(folders.locate(name)) {
        Ok(metadata) => Ok(!metadata.is_dir()),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(unreadable(name.to_owned(), error)),
    }
}

fn unreadable(file: String, cause: io::Error) -> ConfigurationError {
    let remedy = "Make it readable, or name another file with --config";
    ConfigurationError::Unreadable { file, cause, remedy }
}
