//! The environment's texts.
//!
//! Owns which variables are read. Refuses to know the process: the lookup is handed in.

use std::ffi::OsString;

use super::error::ConfigurationError;
use super::layers::Values;
use super::setting::Setting;

/// What the environment says.
#[derive(Debug, Clone, Default)]
pub struct Environment(Values);

impl Environment {
    /// Looks up every variable that is a setting; `std::env::var_os` is the process' own lookup.
    ///
    /// # Errors
    /// A value that is not UTF-8 text.
    pub fn read(lookup: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, ConfigurationError> {
        let given = Setting::ALL.into_iter().filter_map(|setting| {
            let variable = setting.variable()?;
            let text = lookup(variable)?.into_string().map_err(|_| ConfigurationError::NotText { variable });
            Some(text.map(|text| (setting, text)))
        });
        given.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn values(&self) -> Values {
        self.0.clone()
    }
}
