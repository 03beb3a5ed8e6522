//! Whether key names may appear in status.
//!
//! Owns one trap: YAML 1.1, which kubectl reads, takes an unquoted `On` or `Off` for a boolean.
//! So the field accepts both forms and means the same.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Whether key names may appear in status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub enum Samples {
    /// Up to ten examples of each kind are named.
    #[default]
    On,
    /// No key names at all.
    Off,
}

impl Samples {
    /// Whether key names may appear.
    #[must_use]
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// The forms in which the value arrives.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Boolean(bool),
    Word(String),
}

impl TryFrom<Written> for Samples {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Boolean(true) => Ok(Self::On),
            Written::Boolean(false) => Ok(Self::Off),
            Written::Word(word) => match word.as_str() {
                "On" => Ok(Self::On),
                "Off" => Ok(Self::Off),
                other => Err(format!("unknown variant `{other}`, expected `On` or `Off`")),
            },
        }
    }
}

impl JsonSchema for Samples {
    fn schema_name() -> Cow<'static, str> {
        "Samples".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A structural schema may leave out the type only where unknown fields are preserved; the
        // enum still admits nothing but these four.
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "enum": ["On", "Off", true, false],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_the_booleans_that_yaml_makes_of_them_mean_the_same() {
        let read = |json: &str| serde_json::from_str::<Samples>(json).ok();
        assert_eq!(read("\"On\""), Some(Samples::On));
        assert_eq!(read("true"), Some(Samples::On));
        assert_eq!(read("\"Off\""), Some(Samples::Off));
        assert_eq!(read("false"), Some(Samples::Off));
        assert_eq!(read("\"off\""), None);
        assert_eq!(serde_json::to_string(&Samples::Off).unwrap(), "\"Off\"");
    }
}
