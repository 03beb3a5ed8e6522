//! Whether key names may appear in status.
//!
//! Owns one trap: YAML 1.1, which kubectl reads, takes an unquoted `On` or `Off` for a boolean.
//! So the field accepts both forms and means the same.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Whether key names may appear in status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Written")]
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
    Word(Word),
}

#[derive(Deserialize)]
enum Word {
    On,
    Off,
}

impl From<Written> for Samples {
    fn from(written: Written) -> Self {
        match written {
            Written::Boolean(true) | Written::Word(Word::On) => Self::On,
            Written::Boolean(false) | Written::Word(Word::Off) => Self::Off,
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
