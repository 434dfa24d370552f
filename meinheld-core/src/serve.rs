//! One request in its coroutine, from its head to the decision what becomes of its connection.
//!
//! Not here: how the head and the body came in (see driver.rs).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::Arc;

use crate::client::Client;
use crate::connection::{CloseReason, Connection, ConnectionId, Phase};
use crate::driver::Driver;
use crate::exchange::{Conclusion, Exchange, Expectation, RequestBody};
use crate::http::{Changes, RequestFacts};
use crate::input::Input;
use crate::service::{ConnectionInfo, Report, Service};
use crate::shared::Turn;
use crate::sys;

/// A request that can begin: its head is complete, and its body where that is to be collected.
pub(crate) struct Incoming {
    /// The head, and whatever follows it in the same input.
    pub(crate) bytes: Input,
    /// How much of `bytes` is used up once the head has been accepted.
    pub(crate) consume: usize,
    pub(crate) facts: RequestFacts,
    pub(crate) expectation: Expectation,
    pub(crate) body: RequestBody,
    /// How the head differs from the last one.
    pub(crate) changes: Option<Changes>,
}

impl Incoming {
    /// How many bytes have come behind the head.
    pub(crate) fn behind_head(&self) -> usize {
        self.bytes.unread().len() - self.consume
    }
}

impl<S: Service> Driver<S> {
    /// Begins a request in a coroutine, and runs it until it first waits or ends.
    pub(crate) fn start(self: &Rc<Self>, id: ConnectionId, incoming: Incoming) {
        let kind = incoming.facts.kind;
        self.incoming.set(Some((id, incoming)));
        if let Err(error) = self.scheduler.start_shared(&self.serving) {
            drop(self.incoming.take());
            if self.overloads.is_due(self.shared.now.get()) {
                self.service.report(&Report::NoCoroutine { error: &error });
            }
            // Its head is gone with the coroutine that was to answer it.
            self.refuse(id, 503, kind, b"", &"there is no coroutine for it");
        }
    }

    /// Goes on with a panic of the server's own code, if there was one in a coroutine.
    pub(crate) fn resume_panic(&self) {
        if let Some(panic) = self.panicked.take() {
            resume_unwind(panic);
        }
    }

    /// Serves the request that [`start`](Self::start) has left. What the application panics with is
    /// caught within. Any other panic is the server's own, and the loop is to hear of it: the connection
    /// would be held for ever, and nobody know.
    pub(crate) fn serve_incoming(&self) {
        let Some((id, incoming)) = self.incoming.take() else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.serve(id, incoming))) {
            self.panicked.set(Some(panic));
        }
    }

    fn serve(&self, id: ConnectionId, incoming: Incoming) {
        let known = self.shared.with(id, |connection| {
            connection.phase = Phase::Busy;
            connection.deadline = None;
            connection.scanned = 0;
            let (peer, local) = (connection.peer.address(), Arc::clone(&connection.local));
            (peer, local, connection.requests_ended)
        });
        let Some((peer, local, request)) = known else { return };
        let begun = self.shared.turn();
        let Incoming { bytes, consume, facts, expectation, body, changes } = incoming;
        let (body_bytes, number) = (body.length(), id.number());
        let connection = ConnectionInfo { peer: &peer, local: &local, body_bytes, number, changes };
        let client = Client::new(Rc::clone(&self.shared), id, request);
        let mut exchange = Exchange::new(client, facts, expectation, body);
        let served = catch_unwind(AssertUnwindSafe(|| {
            let request = self.accept(id, bytes, consume, &connection);
            self.service.call(request, &mut exchange);
        }));
        if served.is_err() {
            self.service.report(&Report::Panicked { peer: &peer });
            let _ = exchange.fail(500);
        }
        self.end(id, exchange, begun);
    }

    /// Ends the exchange of a request that has been answered, or has failed.
    #[inline(never)]
    fn end(&self, id: ConnectionId, mut exchange: Exchange, begun: Turn) {
        let looked = self.shared.hears(id, begun);
        // The request may have taken long, and what follows is timed from now on.
        let took_long = self.shared.set_now();
        let heard = looked && !took_long;
        if heard {
            exchange.end_promptly();
        }
        // A failure breaks the exchange, and `conclude` tells so.
        let _ = exchange.end();
        let conclusion = match exchange.conclude() {
            // It has had time to send what nobody has looked for.
            Conclusion::Close if !heard => Conclusion::Leave,
            other => other,
        };
        drop(exchange);
        let waiting = self.shared.with(id, Connection::end_request);
        if let Some(Some(waiting)) = waiting {
            for ticket in waiting.into_iter().flatten() {
                self.scheduler.interrupt(ticket);
            }
        }
        self.conclude(id, conclusion);
    }

    /// Has the service take what it needs of the head, and returns the rest of the input to the
    /// connection. Not inlined: its frame is gone when the request waits.
    #[inline(never)]
    fn accept(
        &self,
        id: ConnectionId,
        mut bytes: Input,
        consume: usize,
        connection: &ConnectionInfo<'_>,
    ) -> S::Request {
        // Should it panic, the connection has its input all the same: the body is there.
        let request = self.scheduler.without_parking(|| {
            catch_unwind(AssertUnwindSafe(|| {
                let repeats = self.repeats.borrow();
                let head = repeats.index().view(bytes.unread());
                self.scheduler.describe_running(&[head.method_and_target()]);
                self.service.accept(&head, connection)
            }))
        });
        bytes.consume(consume);
        if bytes.is_empty() {
            self.shared.buffers.borrow_mut().shrink(bytes);
        } else {
            self.shared.with(id, |connection| connection.input = bytes);
        }
        request.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn conclude(&self, id: ConnectionId, conclusion: Conclusion) {
        match conclusion {
            Conclusion::Keep { unread: 0 } => self.keep(id),
            Conclusion::Keep { .. } if self.shared.stopping.get() => {
                self.shared.linger(id, b"");
            }
            Conclusion::Keep { unread } => {
                self.shared.with(id, |connection| connection.phase = Phase::Discarding(unread));
                self.shared.arm_in(id, self.shared.config.linger_timeout);
                self.shared.queue(id);
            }
            Conclusion::Close => self.finish(id, CloseReason::Finished),
            Conclusion::Leave => self.leave(id, CloseReason::Finished),
            Conclusion::Linger => {
                self.shared.linger(id, b"");
                // The peer's end may be known already, and no event would tell of it again.
                self.shared.queue(id);
            }
            Conclusion::Broken => self.shared.close(id, CloseReason::SocketError),
        }
    }

    /// Waits for the next request on the connection, or takes it up if it is there already.
    pub(crate) fn keep(&self, id: ConnectionId) {
        if self.shared.stopping.get() {
            return self.leave(id, CloseReason::Stopping);
        }
        let deadline = self.shared.now.get().checked_add(self.shared.config.keep_alive_timeout);
        let kept = self.shared.with(id, |connection| {
            connection.phase = Phase::Head { since: self.shared.now.get() };
            let is_timed = deadline.is_some_and(|deadline| connection.expire_at(deadline));
            (is_timed, connection.has_unread(), connection.watched)
        });
        let Some((is_timed, unread, watched)) = kept else { return };
        if !is_timed {
            self.shared.arm_in(id, self.shared.config.keep_alive_timeout);
        }
        if unread {
            self.shared.queue(id);
        } else if !watched && self.shared.watch(id).is_err() {
            self.shared.close(id, CloseReason::SocketError);
        }
    }

    /// Closes the connection of a client that may go on sending; what has come since the last turn
    /// is known to the system alone.
    fn leave(&self, id: ConnectionId, reason: CloseReason) {
        self.shared.with(id, |connection| {
            connection.readable |= sys::has_input(connection.fd());
        });
        self.finish(id, reason);
    }

    /// Closes the connection. To do so with unread input would reset it, and destroy the response
    /// on its way (RFC 9112 section 9.6).
    fn finish(&self, id: ConnectionId, reason: CloseReason) {
        if self.shared.with(id, |connection| connection.has_unread()) == Some(true) {
            self.shared.linger(id, b"");
        } else {
            self.shared.close(id, reason);
        }
    }
}
