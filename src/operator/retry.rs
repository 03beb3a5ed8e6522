//! What went wrong with the API server, and when it is tried again.
//!
//! Owns the kinds of errors, closed, and the pauses between attempts. Pure: chance comes in as a number.

use std::fmt;
use std::time::Duration;

/// Why a reconcile ended early; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server did not answer when it was asked, or refused.
    #[error("reading the resource: {0}")]
    Read(kube::Error),
    /// It did not take a write.
    #[error("writing status: {0}")]
    Write(kube::Error),
    /// The API server took too long.
    #[error("the API server did not answer in time")]
    Timeout,
}

/// What kind of error it is, as the metric names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Somebody else wrote in between.
    Conflict,
    /// We may not do it.
    Forbidden,
    /// The resource, or its definition, is gone.
    NotFound,
    /// The API server does not take what we write.
    Invalid,
    /// It is too busy, or has trouble of its own.
    Server,
    /// It did not answer.
    Unreachable,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Conflict, Self::Forbidden, Self::NotFound, Self::Invalid, Self::Server, Self::Unreachable];

    /// Whether it stays until somebody changes something: then no lock is held meanwhile.
    #[must_use]
    pub fn needs_somebody(self) -> bool {
        match self {
            Self::Forbidden | Self::NotFound | Self::Invalid => true,
            Self::Conflict | Self::Server | Self::Unreachable => false,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl ReconcileError {
    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        let (Self::Read(kube::Error::Api(status)) | Self::Write(kube::Error::Api(status))) = self else {
            // No answer, or one that is none of the API server's.
            return ErrorKind::Unreachable;
        };
        match status.code {
            409 => ErrorKind::Conflict,
            401 | 403 => ErrorKind::Forbidden,
            404 => ErrorKind::NotFound,
            400 | 422 => ErrorKind::Invalid,
            _ => ErrorKind::Server,
        }
    }
}

impl ReconcileError {
    /// Whether only a write that is taken shows that it is over.
    #[must_use]
    pub fn is_of_writing(&self) -> bool {
        match self {
            Self::Write(_) => true,
            Self::Read(_) | Self::Timeout => false,
        }
    }
}

/// The first pause after an error.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(120);

/// The pause after this many errors in a row, from 1 on; `chance`, from 0 to 1, spreads those who failed together over
/// half of it.
#[must_use]
pub fn pause(attempt: u32, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    doubled.min(LONGEST).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_at_two_minutes() {
        let seconds = |attempt| pause(attempt, 1.0).as_secs();
        assert_eq!([1, 2, 3, 7, 8, 9, 60, u32::MAX].map(seconds), [1, 2, 4, 64, 120, 120, 120, 120]);
        assert_eq!(pause(3, 0.0), Duration::from_secs(2));
    }

    #[test]
    fn what_only_a_person_mends_is_told_from_what_passes() {
        let kind = |code| {
            let status = kube::core::Status { code, ..kube::core::Status::default() };
            ReconcileError::Write(kube::Error::Api(Box::new(status))).kind()
        };
        for (code, expected, needs_somebody) in [
            (403, ErrorKind::Forbidden, true),
            (404, ErrorKind::NotFound, true),
            (422, ErrorKind::Invalid, true),
            (409, ErrorKind::Conflict, false),
            (429, ErrorKind::Server, false),
            (503, ErrorKind::Server, false),
        ] {
            assert_eq!((kind(code), kind(code).needs_somebody()), (expected, needs_somebody), "{code}");
        }
        assert_eq!(ReconcileError::Timeout.kind(), ErrorKind::Unreachable);
    }
}
