//! The wall clock, read in one place.

use crate::model::time::UnixMillis;

/// Now.
#[must_use]
pub fn now() -> UnixMillis {
    UnixMillis(jiff::Timestamp::now().as_millisecond())
}
