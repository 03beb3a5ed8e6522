//! Who works on what in this process.
//!
//! Owns one place per resource: its worker, and when the next attempt is due. Places of resources that
//! no longer exist are cleared, which stops their work.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::operator::worker::{Report, Worker};

/// The generation and the request that an attempt was made for.
pub type Asked = (i64, Option<String>);

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
    /// Looks at, or changes, one resource's place.
    pub fn at<T>(&self, uid: &str, look: impl FnOnce(&mut Place) -> T) -> T {
        look(self.places().entry(uid.to_owned()).or_default())
    }

    /// The attempt ended; another is due after `pause`.
    pub fn rest(&self, uid: &str, pause: Duration) {
        self.at(uid, |place| {
            place.worker = None;
            place.rest_until = Some(Instant::now() + pause);
        });
    }

    /// Stops the work of every resource that is not among the living; gives their UIDs.
    pub fn keep_only(&self, living: &HashSet<String>) -> Vec<String> {
        let mut gone = Vec::new();
        self.places().retain(|uid, place| {
            let keep = living.contains(uid);
            if !keep {
                if let Some(worker) = &place.worker {
                    worker.stop();
                }
                gone.push(uid.clone());
            }
            keep
        });
        gone
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
