//! How a server stops: who asks for it, what it gives time to, and its end.
//!
//! ```text
//!                stop, a signal, the host's Break              nothing is left,
//!   Serving ────────────────────────────────────▶ Draining ─────────────────────▶ shut down
//!                                                  │  ▲       or the time is over
//!                                                  └──┘ again: the time that is left is another one
//! ```
//!
//! Not here: the loop that turns meanwhile (see server.rs).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use meinheld_coro::Shutdown;

use crate::connection::CloseReason;
use crate::server::Server;
use crate::service::Service;
use crate::sys::{self, Bell};

/// How many times what waits to be accepted is accepted at the end, in batches.
const LAST_BATCHES_MAX: usize = 64;

/// How long requests in flight may take to end after SIGINT or SIGTERM.
const TERMINATION_GRACE: Duration = Duration::from_secs(30);

/// Stops a server from anywhere: any thread, any request.
#[derive(Clone)]
pub struct Handle {
    bell: Arc<Bell>,
    requested: Arc<StopRequest>,
    forked: Arc<AtomicBool>,
}

/// What handles have asked for.
#[derive(Default)]
pub(crate) struct StopRequest {
    pending: AtomicBool,
    /// Whether suspended requests are to end as soon as the server stops.
    end_suspended: AtomicBool,
    grace: Mutex<Option<Duration>>,
}

/// How far a server has come on its way to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stop {
    /// Not stopping.
    Serving,
    /// No new requests; those in flight have until the deadline.
    Draining(Option<Instant>),
}

impl Handle {
    pub(crate) fn new(
        bell: Arc<Bell>,
        requested: Arc<StopRequest>,
        forked: Arc<AtomicBool>,
    ) -> Handle {
        Handle { bell, requested, forked }
    }

    /// Stops the server: it stops listening, closes what is idle, lets requests in flight finish,
    /// for `grace` at the most (`None`: without limit), and cancels what is left then. A second call
    /// replaces the time that is left.
    pub fn stop(&self, grace: Option<Duration>) {
        *self.requested.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
        self.requested.pending.store(true, Ordering::Release);
        self.bell.ring();
    }

    /// Has the loop go round once, and so call [`Service::turn`], even if nothing else happens.
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// Tells that this process has forked: the child may hold the connections, too, so that closing one
    /// tells its peer nothing. From now on they are shut down as well.
    pub fn note_fork(&self) {
        self.forked.store(true, Ordering::Relaxed);
    }

    /// Has the requests that are suspended when the server stops, or suspend after that, cancelled at
    /// once: those that watch their client (see [`Client::watch`](crate::Client::watch)).
    pub fn end_suspended(&self) {
        self.requested.end_suspended.store(true, Ordering::Release);
        self.bell.ring();
    }
}

impl<S: Service> Server<S> {
    /// Does what handles have asked for.
    pub(crate) fn take_stop_request(&self) {
        if self.requested.pending.swap(false, Ordering::Acquire) {
            let grace = *self.requested.grace.lock().unwrap_or_else(PoisonError::into_inner);
            self.begin_stop(grace);
        }
        let stopping = self.driver.shared.stopping.get();
        if stopping && self.requested.end_suspended.load(Ordering::Acquire) {
            let suspended = self.driver.shared.connections.borrow().suspended_tasks();
            for task in suspended {
                self.driver.scheduler.cancel(task);
            }
        }
    }

    /// Stops as SIGINT and SIGTERM ask to; the second one at once.
    pub(crate) fn stop_by_signal(&self) {
        let stopping = matches!(self.stop.get(), Stop::Draining(_));
        let grace = if stopping { Duration::ZERO } else { TERMINATION_GRACE };
        self.begin_stop(Some(grace));
    }

    /// Stops listening, closes what is idle, and gives the rest `grace` to end.
    pub(crate) fn begin_stop(&self, grace: Option<Duration>) {
        let shared = &self.driver.shared;
        let deadline = grace.and_then(|grace| shared.now.get().checked_add(grace));
        self.stop.set(Stop::Draining(deadline));
        if !shared.stopping.replace(true) {
            if grace != Some(Duration::ZERO) {
                self.accept_last();
            }
            self.listeners.borrow_mut().close(shared);
            match shared.config.stop_idle_timeout {
                timeout if timeout.is_zero() || grace == Some(Duration::ZERO) => self.close_idle(),
                timeout => self.hurry_idle(timeout),
            }
            self.hurry_heads();
            self.tell_upgraded();
        }
    }

    /// Accepts those who wait in the queues of the listeners that are ours alone, which would be reset
    /// with them. An inherited one stays open elsewhere: whoever is served from it next finds them.
    fn accept_last(&self) {
        let ours = self.listeners.borrow().own_indices();
        for index in ours {
            for _ in 0..LAST_BATCHES_MAX {
                if !self.accept(index) {
                    break;
                }
            }
        }
    }

    /// Gives the heads that have come in part little time: they are no requests yet, and a client that
    /// does not go on must not keep the server from stopping.
    fn hurry_heads(&self) {
        let shared = &self.driver.shared;
        let partial = shared.connections.borrow().partial_ids();
        for id in partial {
            shared.arm_within(id, shared.config.linger_timeout);
        }
    }

    /// Gives the connections on which nothing is asked this time to ask: a client may have sent its
    /// request already, or be about to, and would lose it (RFC 9112 section 9.6).
    fn hurry_idle(&self, timeout: Duration) {
        let shared = &self.driver.shared;
        let idle = shared.connections.borrow().idle_ids();
        for id in idle {
            shared.arm_within(id, timeout);
        }
    }

    /// Has those look up who wait for input in another protocol than HTTP, which has no next request
    /// to end with: see [`Upgraded::is_stopping`](crate::Upgraded::is_stopping).
    fn tell_upgraded(&self) {
        let readers = self.driver.shared.connections.borrow().upgraded_readers();
        for ticket in readers {
            self.driver.scheduler.interrupt(ticket);
        }
    }

    /// Closes the connections on which nothing is asked. What has come since the last turn is known
    /// to the system alone, and is still to be answered.
    fn close_idle(&self) {
        let shared = &self.driver.shared;
        let idle = shared.connections.borrow().idle_ids();
        for id in idle {
            if shared.with(id, |connection| sys::has_input(connection.fd())) == Some(true) {
                shared.queue(id);
            } else {
                shared.close(id, CloseReason::Stopping);
            }
        }
    }

    /// Whether the loop may end.
    pub(crate) fn is_done(&self) -> bool {
        match self.stop.get() {
            Stop::Serving => false,
            Stop::Draining(deadline) => {
                self.connection_count() == 0
                    || deadline.is_some_and(|deadline| deadline <= Instant::now())
            }
        }
    }

    /// Cancels the requests that are left, and closes every connection.
    pub(crate) fn shut_down(&self) -> Shutdown {
        self.begin_stop(Some(Duration::ZERO));
        let shutdown = self.driver.scheduler.shutdown();
        self.driver.resume_panic();
        let left = self.driver.shared.connections.borrow().ids();
        for id in left {
            self.driver.shared.close(id, CloseReason::Stopping);
        }
        shutdown
    }
}
