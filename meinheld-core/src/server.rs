//! The server: one thread, one loop.
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
//!
//! Not here: how it stops (see stopping.rs).

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;
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
use crate::stopping::{Handle, Stop, StopRequest};
use crate::sys::{self, Bell, Event, Events, Interest, SignalPipe};

/// How many events are taken at a time.
const EVENTS_MAX: usize = 512;

/// How many pending connections are gone on with in one turn.
const PENDING_MAX: usize = 256;

/// How many time-outs are handled in one turn.
const EXPIRED_MAX: usize = 256;

/// An HTTP/1.1 server that runs each request in a coroutine of its own, all on one thread.
pub struct Server<S: Service> {
    pub(crate) driver: Rc<Driver<S>>,
    pub(crate) listeners: RefCell<Listeners>,
    bell: Arc<Bell>,
    pub(crate) requested: Arc<StopRequest>,
    signals: RefCell<Option<Signals>>,
    pub(crate) stop: Cell<Stop>,
}

struct Signals {
    pipe: SignalPipe,
    /// Whether they stop the server, or only wake the host.
    stop: bool,
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
        self.listeners.borrow_mut().push(listener, &self.driver.shared);
    }

    /// The addresses that the server listens on.
    pub fn addresses(&self) -> Vec<Address> {
        self.listeners.borrow().iter().map(|listener| listener.address().clone()).collect()
    }

    /// A handle to stop the server by.
    pub fn handle(&self) -> Handle {
        let (bell, requested) = (Arc::clone(&self.bell), Arc::clone(&self.requested));
        Handle::new(bell, requested, Arc::clone(&self.driver.shared.forked))
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
    pub(crate) fn accept(&self, index: u32) -> bool {
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
        for _ in numbers.into_iter().filter(|_| stop) {
            self.stop_by_signal();
        }
    }
}
