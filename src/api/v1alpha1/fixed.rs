//! The rules that keep a fixed field as it was when the resource was created.
//!
//! Owns their one form. They stand on `spec`, not on the field: a rule on an optional field does
//! not run when the field is added or removed, and ratcheting never skips a rule that compares
//! with the old object.

use kube::core::Rule;

/// What to do for another Redis.
pub(super) const OTHER_REDIS: &str = "delete this RedisMigration and create one for the other Redis";
/// What to do for another deployment.
pub(super) const OTHER_DEPLOYMENT: &str = "delete this RedisMigration and create one for the other deployment";
/// What to do for another migration.
pub(super) const OTHER_MIGRATION: &str = "create another RedisMigration for the other migration";
/// What to do for other parameters.
pub(super) const OTHER_PARAMETERS: &str = "delete this RedisMigration and create one with the other parameters";

/// The rule that `path` (below `spec`) can't be set, changed or removed after creation.
pub(super) fn fixed(path: &str, instead: &str) -> Rule {
    let (now, before) = (present("self", path), present("oldSelf", path));
    Rule::new(format!("{now} == {before} && (!{now} || self.{path} == oldSelf.{path})"))
        .message(format!("spec.{path} can't change after creation: {instead}; nothing in Redis is touched").as_str())
        .field_path(format!(".{path}"))
}

/// The expression that every part of `path` exists under `root`.
fn present(root: &str, path: &str) -> String {
    let mut expression = root.to_owned();
    let parts: Vec<String> = path
        .split('.')
        .map(|part| {
            expression = format!("{expression}.{part}");
            format!("has({expression})")
        })
        .collect();
    format!("({})", parts.join(" && "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_compares_presence_before_value() {
        assert_eq!(
            fixed("redis.host", "x").rule,
            "(has(self.redis) && has(self.redis.host)) == (has(oldSelf.redis) && has(oldSelf.redis.host)) && \
             (!(has(self.redis) && has(self.redis.host)) || self.redis.host == oldSelf.redis.host)"
        );
    }
}
