//! Findings that a person may accept by name, so that the step which they block goes on.
//!
//! Owns the closed list of such findings and its one parser. Refuses every other code: what those tell of has to be
//! mended, by nobody's word does it become safe.

use std::collections::BTreeSet;

use crate::model::finding::{Finding, FindingCode};
use crate::model::phase::Step;

/// The findings that may be accepted, and the step that each of them blocks until then.
const ACCEPTABLE: [(FindingCode, Step); 4] = [
    (FindingCode::BracedTenant, Step::Apply),
    (FindingCode::LostExpiry, Step::Apply),
    (FindingCode::SourcesGone, Step::Apply),
    (FindingCode::NotOnDisk, Step::Cleanup),
];

/// A name that no acceptable finding has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no finding that can be accepted; these can: {}", acceptable_names())]
pub struct NotAcceptable {
    name: String,
}

fn acceptable_names() -> String {
    ACCEPTABLE.iter().map(|(code, _)| code.to_string()).collect::<Vec<_>>().join(", ")
}

/// How to accept a finding, to stand behind "or" at the end of its message.
#[must_use]
pub fn how_to_accept(code: FindingCode) -> String {
    format!("accept it by name (--accept-finding {code}, in a resource spec.acceptFindings: [{code}])")
}

/// Findings that a person accepted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AcceptedFindings(BTreeSet<FindingCode>);

impl AcceptedFindings {
    /// Reads the names that a person gave.
    ///
    /// # Errors
    /// [`NotAcceptable`] with the first name that is not on the list.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, NotAcceptable> {
        let code = |name: &str| {
            let found = ACCEPTABLE.iter().map(|(code, _)| *code).find(|code| code.to_string() == name);
            found.ok_or_else(|| NotAcceptable { name: name.to_owned() })
        };
        names.into_iter().map(code).collect::<Result<_, _>>().map(Self)
    }

    /// The same, with one that a person accepted when asked.
    #[must_use]
    pub fn with(mut self, code: FindingCode) -> Self {
        self.0.insert(code);
        self
    }

    /// Whether this finding was accepted.
    #[must_use]
    pub fn contains(&self, code: FindingCode) -> bool {
        self.0.contains(&code)
    }

    /// Marks what was accepted among findings: it stays among them, as what blocks nothing.
    pub fn mark(&self, findings: &mut [Finding]) {
        for finding in findings {
            finding.accepted = self.contains(finding.code);
        }
    }

    /// Returns the names of those that block `step`, as its hash covers them; `None` without any.
    #[must_use]
    pub fn names_for(&self, step: Step) -> Option<String> {
        let mut names: Vec<String> = ACCEPTABLE
            .iter()
            .filter(|(code, blocked)| *blocked == step && self.contains(*code))
            .map(|(code, _)| code.to_string())
            .collect();
        // Not in the list's order: another place in it must not change a hash.
        names.sort();
        (!names.is_empty()).then(|| names.join(","))
    }
}

impl FromIterator<Self> for AcceptedFindings {
    fn from_iter<I: IntoIterator<Item = Self>>(parts: I) -> Self {
        Self(parts.into_iter().flat_map(|part| part.0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_on_the_list_are_read() {
        let accepted = AcceptedFindings::parse(["BracedTenant", "BracedTenant"]).expect("an acceptable name");
        assert!(accepted.contains(FindingCode::BracedTenant) && !accepted.contains(FindingCode::Memory));

        for name in ["Memory", "bracedtenant", "", "BracedTenant,BracedTenant"] {
            let refused = AcceptedFindings::parse([name]).expect_err(name).to_string();
            assert!(refused.contains(&format!("{name:?}")) && refused.contains("BracedTenant"), "{refused}");
        }
    }

    #[test]
    fn each_step_hears_of_its_own() {
        let accepted = AcceptedFindings::parse(["BracedTenant"]).expect("an acceptable name");
        assert_eq!(accepted.names_for(Step::Apply).as_deref(), Some("BracedTenant"));
        assert_eq!(accepted.names_for(Step::Cleanup), None);
        let both = AcceptedFindings::parse(["NotOnDisk", "BracedTenant"]).expect("acceptable names");
        assert_eq!(both.names_for(Step::Cleanup).as_deref(), Some("NotOnDisk"));
        assert_eq!(AcceptedFindings::default().names_for(Step::Apply), None);
    }
}
