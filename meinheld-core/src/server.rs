//! The server: one thread, one loop, and the handle by which others stop it.
//!
//! One turn of the loop:
//!
//! ```text
//!   poll without waiting ── nothing to do? ──▶ give up the host's lock and wait
//!        │                                          │
//!        ▼                                          ▼
//!   events: accept, receive and begin requests, wake those that wait
//!   timers: refuse or close what took too long; wake what was to wake
//!   ready:  run each request that can go on, once
//!   rest:   connections with more input, host's turn, stopping
//! ```

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use meinheld_coro::{OverflowReports, Scheduler, Shutdown, Suspended};

use crate::accept::{Accepted, Listeners};
use crate::address::Address;
use crate::config::Config;
use crate::connection::{CloseReason, Token};
use crate::descriptors::with_running;
use crate::driver::Driver;
use crate::listener::Listener;
use crate::service::{Report, Service};
use crate::shared::Shared;
use crate::sys::{self, Bell, Event, Events, Interest, SignalPipe};

/// How many events are taken at a time.
const EVENTS_MAX: usize = 512;

/// How many pending connections are gone on with in one turn.
const PENDING_MAX: usize = 256;

/// How many time-outs are handled in one turn.
const EXPIRED_MAX: usize = 256;

/// How many times what waits to be accepted is accepted at the end, in batches.
const LAST_BATCHES_MAX: usize = 64;

/// How long requests in flight may take to end after SIGINT or SIGTERM.
const TERMINATION_GRACE: Duration = Duration::from_secs(30);

/// An HTTP/1.1 server that runs each request in a coroutine of its own, all on one thread.
pub struct Server<S: Service> {
    driver: Rc<Driver<S>>,
    listeners: RefCell<Listeners>,
    bell: Arc<Bell>,
    requested: Arc<StopRequest>,
    signals: RefCell<Option<Signals>>,
    stop: Cell<Stop>,
}

/// Stops a server from anywhere: any thread, any request.
#[derive(Clone)]
pub struct Handle {
    bell: Arc<Bell>,
    requested: Arc<StopRequest>,
    forked: Arc<AtomicBool>,
}

#[derive(Default)]
struct StopRequest {
    pending: AtomicBool,
    /// Whether suspended requests are to end as soon as the server stops.
    end_suspended: AtomicBool,
    grace: Mutex<Option<Duration>>,
}

struct Signals {
    pipe: SignalPipe,
    /// Whether they stop the server, or only wake the host.
    stop: bool,
}

#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Not stopping.
    Serving,
    /// No new requests; those in flight have until the deadline.
    Draining(Option<Instant>),
}

/// How a server's run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Requests that were cancelled since the time they were given was over, and tasks that were no
    /// requests.
    pub cancelled: usize,
    /// Of those, how many could not be ended and were leaked.
    pub abandoned: usize,
}

/// Raises this process's soft limit on open descriptors to the hard one, and tells that limit: about
/// as many connections can be open at once.
///
/// # Errors
/// What the system says.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    sys::raise_descriptor_limit()
}

/// The hard limit on open descriptors: about as many connections can be open at once.
///
/// # Errors
/// What the system says.
pub fn descriptor_limit() -> io::Result<u64> {
    sys::descriptor_limit()
}

impl Handle {
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
    /// Makes a server that listens nowhere yet.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn new(config: Config, service: S) -> io::Result<Server<S>> {
        let bell = Arc::new(Bell::new()?);
        let scheduler = Scheduler::new(meinheld_coro::Config {
            stack_bytes: config.stack_bytes,
            stack_setting: config.stack_setting,
            coroutines_max: config.coroutines_max,
            locals: service.locals(),
            waker: Some(Waker::from(Arc::clone(&bell))),
            ..meinheld_coro::Config::default()
        });
        let shared = Shared::new(config)?;
        shared.epoll.add(bell.fd(), Token::Bell.into(), Interest::Level)?;
        Ok(Server {
            driver: Driver::new(shared, service, scheduler),
            listeners: RefCell::default(),
            bell,
            requested: Arc::default(),
            signals: RefCell::new(None),
            stop: Cell::new(Stop::Serving),
        })
    }

    /// Adds a listener.
    pub fn listen(&self, listener: Listener) {
        self.listeners.borrow_mut().push(listener);
    }

    /// The addresses that the server listens on.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.borrow().iter().map(|listener| listener.address().clone()).collect()
    }

    /// A handle to stop the server by.
    pub fn handle(&self) -> Handle {
        Handle {
            bell: Arc::clone(&self.bell),
            requested: Arc::clone(&self.requested),
            forked: Arc::clone(&self.driver.shared.forked),
        }
    }

    /// The application.
    pub fn service(&self) -> &S {
        &self.driver.service
    }

    /// The scheduler that the requests run on.
    pub fn scheduler(&self) -> &Scheduler {
        &self.driver.scheduler
    }

    /// How many connections are open.
    pub fn connection_count(&self) -> usize {
        self.driver.shared.connections.borrow().len()
    }

    /// How many connections have been closed for this reason.
    pub fn closed_count(&self, reason: CloseReason) -> u64 {
        self.driver.shared.closed.borrow()[reason as usize]
    }

    /// The suspended requests, longest first.
    pub fn suspended(&self) -> Vec<Suspended> {
        self.driver.scheduler.suspended()
    }

    /// Has SIGINT and SIGTERM stop the server gracefully, within 30 s; the second one at once.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub fn stop_on_termination(&self) -> io::Result<()> {
        let pipe = SignalPipe::new()?;
        pipe.catch_termination()?;
        self.watch_signals(pipe, true)
    }

    /// Has every byte written to `pipe` wake the loop, for a host that handles signals itself, in
    /// [`Service::turn`].
    ///
    /// # Errors
    /// When epoll refuses the pipe.
    pub fn wake_on(&self, pipe: SignalPipe) -> io::Result<()> {
        self.watch_signals(pipe, false)
    }

    fn watch_signals(&self, pipe: SignalPipe, stop: bool) -> io::Result<()> {
        let epoll = &self.driver.shared.epoll;
        epoll.add(pipe.reader(), Token::Signals.into(), Interest::Level)?;
        *self.signals.borrow_mut() = Some(Signals { pipe, stop });
        Ok(())
    }

    /// Serves until it is stopped. Tasks that are no requests, those spawned by a request or on the
    /// [`scheduler`](Self::scheduler), do not keep it from stopping: they are cancelled in the end.
    ///
    /// # Errors
    /// When the listeners cannot be watched, or waiting for events fails.
    ///
    /// # Panics
    /// With what the server's own code, or the service outside of a call, panics with: none can be
    /// sure of what it left behind. What panics in a call is that request's 500.
    pub fn run(&self) -> io::Result<Stopped> {
        let driver = &self.driver;
        let _overflows = OverflowReports::install()?;
        with_running(&driver.shared, || driver.scheduler.within(|| self.serve()))
    }

    fn serve(&self) -> io::Result<Stopped> {
        self.listeners.borrow_mut().watch(&self.driver.shared)?;
        let mut events = Events::with_capacity(EVENTS_MAX);
        let ended = loop {
            if let Err(error) = self.turn(&mut events) {
                self.driver.service.report(&Report::PollFailed { error: &error });
                break Err(error);
            }
            if self.is_done() {
                break Ok(());
            }
        };
        let Shutdown { ended: cancelled, abandoned } = self.shut_down();
        ended.map(|()| Stopped { cancelled: cancelled + abandoned, abandoned })
    }

    fn turn(&self, events: &mut Events) -> io::Result<()> {
        let driver = &self.driver;
        self.poll(events)?;
        driver.shared.begin_turn();
        for index in 0..events.len() {
            if let Some(event) = events.event(index) {
                self.dispatch(event);
            }
        }
        self.expire();
        self.listeners.borrow_mut().resume(&driver.shared);
        driver.scheduler.advance(driver.shared.now.get());
        driver.scheduler.run_ready();
        driver.shared.flush_all();
        self.advance_pending();
        driver.resume_panic();
        if driver.service.turn() == ControlFlow::Break(()) {
            self.begin_stop(Some(Duration::ZERO));
        }
        self.take_stop_request();
        Ok(())
    }

    /// Handles what took too long. What is left over keeps the next turn from waiting.
    fn expire(&self) {
        for _ in 0..EXPIRED_MAX {
            match self.driver.shared.pop_expired() {
                Some(id) => self.driver.expire(id),
                None => return,
            }
        }
    }

    /// Polls; waits if there is nothing to do at all.
    fn poll(&self, events: &mut Events) -> io::Result<()> {
        let shared = &self.driver.shared;
        shared.epoll.wait(events, Some(Duration::ZERO))?;
        let idle =
            events.len() == 0 && !self.driver.scheduler.has_ready() && shared.queued_count() == 0;
        if !idle {
            return Ok(());
        }
        let timeout = self.next_deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let mut result = Ok(());
        self.driver.service.blocked(&mut || result = shared.epoll.wait(events, timeout));
        result
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stop = match self.stop.get() {
            Stop::Serving => None,
            Stop::Draining(deadline) => deadline,
        };
        let timer = self.driver.shared.timers.borrow().next_deadline();
        let paused = self.listeners.borrow().paused_until();
        let host = self.driver.service.next_turn();
        let scheduled = self.driver.scheduler.next_deadline();
        [stop, timer, paused, host, scheduled].into_iter().flatten().min()
    }

    fn dispatch(&self, event: Event) {
        match Token::from(event.token) {
            Token::Connection(id) => self.driver.handle_event(id, event),
            Token::Listener(index) => drop(self.accept(index)),
            Token::Bell => self.bell.silence(),
            Token::Signals => self.take_signals(),
            Token::Descriptors => self.driver.shared.descriptors.borrow_mut().handle_events(),
        }
    }

    /// Accepts a batch; tells whether there may be more.
    fn accept(&self, index: u32) -> bool {
        let accepted = self.listeners.borrow_mut().accept(&self.driver.shared, index);
        let (connected, more) = match accepted {
            Accepted::Connections(connected) => {
                let more = !connected.is_empty();
                (connected, more)
            }
            Accepted::Paused(connected, error) => {
                if let Some(error) = error {
                    self.driver.service.report(&Report::AcceptFailed { error: &error });
                }
                (connected, false)
            }
        };
        for id in connected {
            self.driver.advance(id);
        }
        more
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

    /// Goes on with connections that have input which no event will tell of: pipelined requests,
    /// mostly. Each has one go, so that none keeps the others waiting.
    fn advance_pending(&self) {
        for _ in 0..self.driver.shared.queued_count().min(PENDING_MAX) {
            if let Some(id) = self.driver.shared.next_queued() {
                self.driver.advance(id);
            }
        }
    }

    fn take_signals(&self) {
        let (numbers, stop) = match &*self.signals.borrow() {
            Some(signals) => (signals.pipe.take(), signals.stop),
            None => return,
        };
        for _ in numbers {
            if stop {
                let stopping = matches!(self.stop.get(), Stop::Draining(_));
                let grace = if stopping { Duration::ZERO } else { TERMINATION_GRACE };
                self.begin_stop(Some(grace));
            }
        }
    }

    fn take_stop_request(&self) {
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

    /// Stops listening, closes what is idle, and gives the rest `grace` to end.
    fn begin_stop(&self, grace: Option<Duration>) {
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

    fn is_done(&self) -> bool {
        match self.stop.get() {
            Stop::Serving => false,
            Stop::Draining(deadline) => {
                self.connection_count() == 0
                    || deadline.is_some_and(|deadline| deadline <= Instant::now())
            }
        }
    }

    /// Cancels the requests that are left, and closes every connection.
    fn shut_down(&self) -> Shutdown {
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
