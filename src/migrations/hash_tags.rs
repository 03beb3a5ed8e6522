//! `001_hash_tags`: stub to be written.
use super::*;
/// 001
#[derive(Debug)]
pub struct HashTags;
impl Migration for HashTags {
    fn name(&self) -> &'static str {
        "001_hash_tags"
    }
    fn version(&self) -> u32 {
        1
    }
    fn description(&self) -> &'static str {
        "x"
    }
    fn is_applicable(&self, _: &Scope) -> Applicability {
        Applicability::Applicable
    }
    fn prefixes(&self, _: &Scope) -> Vec<Vec<u8>> {
        vec![]
    }
    fn map(&self, _: &Scope, _: &RedisKey, _: &Answers) -> Mapping {
        Mapping::NotOurs
    }
}
