//! Who works on what in this process.
//!
//! Owns one place per resource that exists: its worker, and when the next attempt is due. A resource that is gone
//! loses its place, which stops its work; none can be begun for it any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::conditions::Reason;
use crate::operator::retry::ErrorKind;
use crate::operator::worker::{Report, Worker};

/// The generation and the request that an attempt was made for.
pub type Asked = (i64, Option<String>);

/// Errors of reconciles in a row.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    kind: ErrorKind,
    count: u32,
    is_of_writing: bool,
}

/// One resource's place.
#[derive(Default)]
pub struct Place {
    /// The worker, while one runs.
    pub worker: Option<Arc<Worker>>,
    /// When the next attempt is due, if the last one ended.
    pub rest_until: Option<Instant>,
    /// What the last attempt was made for.
    pub tried: Option<Asked>,
    /// When progress was last written.
    pub progress_written: Option<Instant>,
    /// The last reconcile's error, until it is known to be over.
    pub failed: Option<Failed>,
    /// The generation of the spec that this replica could not follow and told of.
    pub refused: Option<i64>,
    /// Reason and message of the last `Ready` that this replica wrote.
    pub said: Option<(String, String)>,
    /// What this replica last kept to itself.
    pub kept: Option<Reason>,
    /// The version in which the resource was last read, and when it was first read in this version.
    pub read: Option<(String, Instant)>,
}

impl Place {
    /// Whether the worker ended: by its own word, or without one (its channel is closed then).
    #[must_use]
    pub fn is_over(&self) -> bool {
        let Some(worker) = &self.worker else { return false };
        let is_closed = worker.report.has_changed().is_err();
        match &*worker.report.borrow() {
            Report::Ended => true,
            // What kept it from the lock is still to be told.
            Report::Barred(_) => false,
            Report::Opening | Report::Held(_) | Report::Working(..) | Report::Finished(..) | Report::Stopped(..) => {
                is_closed
            }
        }
    }

    /// What the worker reported last.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        self.worker.as_ref().map(|worker| worker.report.borrow().clone())
    }
}

/// All places.
#[derive(Default)]
pub struct Desk(Mutex<HashMap<String, Place>>);

impl Desk {
    /// A resource exists: from now on it has a place.
    pub fn admit(&self, uid: &str) {
        self.places().entry(uid.to_owned()).or_default();
    }

    /// A resource is gone: its work is stopped.
    pub fn dismiss(&self, uid: &str) {
        if let Some(Place { worker: Some(worker), .. }) = self.places().remove(uid) {
            worker.stop();
        }
    }

    /// Looks at, or changes, one resource's place. One that is gone has an empty place, and nothing stays there.
    pub fn at<T>(&self, uid: &str, look: impl FnOnce(&mut Place) -> T) -> T {
        match self.places().get_mut(uid) {
            Some(place) => look(place),
            None => look(&mut Place::default()),
        }
    }

    /// Starts a worker, unless the resource is gone.
    pub fn begin(&self, uid: &str, asked: Asked, start: impl FnOnce() -> Worker) {
        // Under the lock, so that whoever dismisses the resource finds the worker.
        if let Some(place) = self.places().get_mut(uid) {
            place.worker = Some(Arc::new(start()));
            place.rest_until = None;
            place.tried = Some(asked);
            place.progress_written = None;
        }
    }

    /// The attempt ended; another is due after `pause`.
    pub fn rest(&self, uid: &str, pause: Duration) {
        self.at(uid, |place| {
            place.worker = None;
            place.rest_until = Some(Instant::now() + pause);
        });
    }

    /// A reconcile failed; returns whether the one before did not fail in this way, and how many failed in a row.
    pub fn failed(&self, uid: &str, kind: ErrorKind, is_of_writing: bool) -> (bool, u32) {
        self.at(uid, |place| {
            let before = place.failed.take();
            let is_of_writing = is_of_writing || before.is_some_and(|before| before.is_of_writing);
            let count = before.as_ref().map_or(1, |before| before.count.saturating_add(1));
            let is_news = before.is_none_or(|before| before.kind != kind);
            place.failed = Some(Failed { kind, count, is_of_writing });
            (is_news, count)
        })
    }

    /// The API server answered, so reading is no trouble any more. Returns whether it was.
    pub fn answered(&self, uid: &str) -> bool {
        self.at(uid, |place| place.failed.take_if(|failed| !failed.is_of_writing).is_some())
    }

    /// Whether a worker is there.
    pub fn has_worker(&self, uid: &str) -> bool {
        self.at(uid, |place| place.worker.is_some())
    }

    /// Whether a worker is at a step, rather than waiting for one.
    pub fn is_at_work(&self, uid: &str) -> bool {
        self.at(uid, |place| matches!(place.report(), Some(Report::Working(..))))
    }

    /// The API server took a write: whatever was wrong is over. Returns whether something was.
    pub fn written(&self, uid: &str) -> bool {
        self.at(uid, |place| place.failed.take().is_some())
    }

    /// The lock is given back, and another attempt is due after `pause`.
    pub fn give_up(&self, uid: &str, pause: Duration) {
        self.at(uid, |place| {
            if let Some(worker) = place.worker.take() {
                worker.stop();
            }
            place.rest_until = Some(Instant::now() + pause);
        });
    }

    /// How long this process has seen a resource in this version, by its own clock.
    pub fn unchanged_for(&self, uid: &str, version: &str) -> Duration {
        self.at(uid, |place| {
            let now = Instant::now();
            match &place.read {
                Some((read, since)) if read == version => now.duration_since(*since),
                Some(_) | None => {
                    place.read = Some((version.to_owned(), now));
                    Duration::ZERO
                }
            }
        })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
