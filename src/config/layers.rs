//! The sources on top of each other.
//!
//! Owns the precedence, and the rule that an empty text is none. Refuses to know what a text means.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};

use super::error::{ConfigurationError, ValueProblem};
use super::provenance::Source;
use super::setting::Setting;

/// The texts of one source. All are kept as secrets, since one is.
#[derive(Debug, Clone, Default)]
pub(super) struct Values(BTreeMap<Setting, SecretString>);

impl<T: AsRef<str>> FromIterator<(Setting, T)> for Values {
    /// The last text of a setting counts; an empty one is none, wherever it stands.
    fn from_iter<I: IntoIterator<Item = (Setting, T)>>(texts: I) -> Self {
        let texts = texts.into_iter().map(|(setting, text)| (setting, SecretString::from(text.as_ref())));
        let last: BTreeMap<_, _> = texts.collect();
        Self(last.into_iter().filter(|(_, text)| !text.expose_secret().is_empty()).collect())
    }
}

/// One source: its texts, and what a text's place in it is called.
type Layer = (Values, Box<dyn Fn(Setting) -> Source>);

/// All sources, the highest first.
#[derive(Default)]
pub(super) struct Layers(Vec<Layer>);

/// A text and where it was given.
pub(super) struct Given<'a> {
    pub(super) text: &'a str,
    pub(super) source: Source,
}

impl Layers {
    /// Puts a source below those there are.
    pub(super) fn push(&mut self, values: Values, place: impl Fn(Setting) -> Source + 'static) {
        self.0.push((values, Box::new(place)));
    }

    /// The text of the highest source that has one.
    pub(super) fn given(&self, setting: Setting) -> Option<Given<'_>> {
        self.0.iter().find_map(|(values, place)| {
            let text = values.0.get(&setting)?.expose_secret();
            Some(Given { text, source: place(setting) })
        })
    }

    /// The source that decides a setting.
    pub(super) fn source(&self, setting: Setting) -> Source {
        self.given(setting).map_or(Source::Default, |given| given.source)
    }

    /// What the highest text means. Lower ones are not looked at, so a wrong one does no harm there.
    pub(super) fn value<T>(
        &self,
        setting: Setting,
        meaning: impl Fn(&str) -> Result<T, ValueProblem>,
    ) -> Result<Option<T>, ConfigurationError> {
        let Some(Given { text, source }) = self.given(setting) else { return Ok(None) };
        meaning(text).map(Some).map_err(|problem| ConfigurationError::Value { given: source, problem })
    }
}
