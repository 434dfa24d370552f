//! Waiting for any descriptor, in requests and in the tasks that they spawn.

#![allow(clippy::unwrap_used)] // what fails here fails the test

mod support;

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use meinheld_core::{Config, Exchange, Readiness, Request, WaitError, cancel_waits, wait_ready};
use meinheld_coro::{Interrupt, JoinHandle, Refusal, sleep, spawn, yield_now};
use support::{PATIENCE, SHORT, serve};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

use Readiness::{Either, Readable, Writable};

/// Runs `function` in a request of a server of its own, and checks that it leaves no task behind.
fn in_request(function: impl Fn(&Exchange) + Send + 'static) {
    let server = serve(Config::default(), move |_: Request, exchange: &mut Exchange| {
        function(exchange);
        exchange.respond(200, &[], b"passed").unwrap();
    });
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.response().text(), "passed", "{:?}", server.reports.lock().unwrap());
    server.settle(|now| now.tasks == 0);
}

/// Two connected sockets that do not block.
fn pair() -> (UnixStream, UnixStream) {
    let (here, there) = UnixStream::pair().unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_nonblocking(true).unwrap();
    (here, there)
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// Spawns a task that waits, and lets it begin to.
fn waiting(fd: i32, readiness: Readiness) -> JoinHandle<Result<(), WaitError>> {
    let task = spawn(move || wait_ready(&fd, readiness, Some(soon())));
    yield_now().unwrap();
    assert!(!task.is_finished());
    task
}

/// Writes until there is no room.
fn fill(mut stream: &UnixStream) {
    while stream.write(&[0; 16_384]).is_ok() {}
}

#[test]
fn a_task_parks_until_there_is_input_and_others_run_meanwhile() {
    in_request(|_| {
        let (mut here, mut there) = pair();
        let fd = here.as_raw_fd();
        for turn in 0..100 {
            let task = waiting(fd, Readable);
            there.write_all(&[turn]).unwrap();
            task.join().unwrap().unwrap();
            let mut byte = [0];
            here.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [turn]);
        }
        drop(there);
        wait_ready(&here, Readable, Some(soon())).expect("the end of input is input");
    });
}

#[test]
fn another_thread_of_the_program_makes_a_descriptor_ready() {
    let (here, there) = pair();
    let thread = std::thread::spawn(move || {
        there.set_nonblocking(false).unwrap();
        there.set_read_timeout(Some(PATIENCE)).unwrap();
        (&there).read_exact(&mut [0; 8]).unwrap();
    });
    in_request(move |_| {
        let task = waiting(here.as_raw_fd(), Readable);
        (&here).write_all(&[0; 8]).unwrap();
        task.join().unwrap().unwrap();
        assert_eq!((&here).read(&mut [0; 8]).unwrap(), 0);
    });
    thread.join().unwrap();
}

#[test]
fn a_task_parks_until_there_is_room() {
    in_request(|_| {
        let (here, mut there) = pair();
        wait_ready(&here, Writable, Some(soon())).unwrap();
        fill(&here);
        let task = waiting(here.as_raw_fd(), Writable);
        while there.read(&mut [0; 16_384]).is_ok() {}
        task.join().unwrap().unwrap();
    });
}

#[test]
fn one_task_reads_while_another_one_writes() {
    in_request(|_| {
        let (here, mut there) = pair();
        fill(&here);
        let fd = here.as_raw_fd();
        for _ in 0..3 {
            let (reader, writer) = (waiting(fd, Readable), waiting(fd, Writable));
            there.write_all(b"x").unwrap();
            reader.join().unwrap().unwrap();
            assert!(!writer.is_finished(), "input is no room");
            (&here).read_exact(&mut [0]).unwrap();
            while there.read(&mut [0; 16_384]).is_ok() {}
            writer.join().unwrap().unwrap();
            fill(&here);
        }
    });
}

#[test]
fn who_waits_for_either_is_woken_by_one_and_stands_in_the_way_of_both() {
    in_request(|_| {
        let (here, mut there) = pair();
        fill(&here);
        let fd = here.as_raw_fd();
        let task = waiting(fd, Either);
        for readiness in [Readable, Writable, Either] {
            let refused = wait_ready(&fd, readiness, Some(soon()));
            assert!(matches!(refused, Err(WaitError::Occupied(occupied)) if occupied == fd));
        }
        there.write_all(b"x").unwrap();
        task.join().unwrap().unwrap();
        wait_ready(&here, Either, Some(soon())).unwrap();
    });
}

#[test]
fn a_wait_ends_at_its_deadline_and_does_not_disturb_the_next() {
    in_request(|_| {
        let (here, mut there) = pair();
        for _ in 0..3 {
            let ended =
                wait_ready(&here, Readable, Some(Instant::now() + Duration::from_millis(2)));
            assert!(matches!(ended, Err(WaitError::Interrupted(Interrupt::TimedOut))));
        }
        there.write_all(b"x").unwrap();
        wait_ready(&here, Readable, Some(soon())).unwrap();
    });
}

#[test]
fn a_cancelled_task_ends_its_wait() {
    in_request(|_| {
        let (here, there) = pair();
        let task = waiting(here.as_raw_fd(), Readable);
        assert!(task.cancel());
        let ended = task.join().unwrap();
        assert!(matches!(ended, Err(WaitError::Interrupted(Interrupt::Cancelled))));
        drop(there);
        wait_ready(&here, Readable, Some(soon())).unwrap();
    });
}

#[test]
fn all_waits_for_a_descriptor_can_be_cancelled() {
    in_request(|_| {
        let (here, _there) = pair();
        fill(&here);
        let fd = here.as_raw_fd();
        assert_eq!(cancel_waits(&here), 0);
        let tasks = [waiting(fd, Readable), waiting(fd, Writable)];
        assert_eq!(cancel_waits(&here), 2);
        for task in tasks {
            assert!(matches!(task.join().unwrap(), Err(WaitError::Cancelled)));
        }
        let task = waiting(fd, Either);
        assert_eq!(cancel_waits(&here), 1);
        assert!(matches!(task.join().unwrap(), Err(WaitError::Cancelled)));
    });
}

/// Epoll says nothing of a descriptor that was closed, not even once its number is another file's.
#[test]
fn who_waited_for_a_closed_descriptor_is_told_when_its_number_is_waited_for_again() {
    in_request(|_| {
        for copied in [false, true] {
            let (here, _there) = pair();
            let fd = here.as_raw_fd();
            // With a copy the file lives on, and so does what epoll knows of it.
            let copy = copied.then(|| here.try_clone().unwrap());
            let task = waiting(fd, Readable);
            drop(here);
            let (again, mut there) = pair();
            assert!([again.as_raw_fd(), there.as_raw_fd()].contains(&fd), "numbers are reused");
            if there.as_raw_fd() == fd {
                (&again).write_all(b"x").unwrap();
            } else {
                there.write_all(b"x").unwrap();
            }
            wait_ready(&fd, Readable, Some(soon())).unwrap();
            assert!(matches!(task.join().unwrap(), Err(WaitError::Cancelled)));
            drop(copy);
        }
    });
}

#[test]
fn a_late_event_of_a_file_that_was_closed_misses_the_next_wait() {
    in_request(|_| {
        let (here, mut there) = pair();
        let fd = here.as_raw_fd();
        let copy = here.try_clone().unwrap();
        assert!(wait_ready(&here, Readable, Some(Instant::now())).is_err());
        let task = waiting(fd, Readable);
        drop(here);
        let (again, kept) = pair();
        let reused = [again.as_raw_fd(), kept.as_raw_fd()].contains(&fd);
        assert!(reused, "numbers are reused");
        let next = waiting(fd, Readable);
        // The former file, which is registered still, becomes ready.
        there.write_all(b"x").unwrap();
        sleep(Duration::from_millis(5)).unwrap();
        assert!(!next.is_finished());
        assert!(matches!(task.join().unwrap(), Err(WaitError::Cancelled)));
        assert_eq!(cancel_waits(&fd), 1);
        drop((next.join().unwrap(), copy));
    });
}

#[test]
fn a_regular_file_is_always_ready_and_a_closed_descriptor_never() {
    in_request(|_| {
        let file = OwnedFd::from(File::open("/proc/self/exe").unwrap());
        for readiness in [Readable, Writable, Either] {
            wait_ready(&file, readiness, None).unwrap();
        }
        let closed = {
            let (here, _there) = pair();
            here.as_raw_fd()
        };
        for fd in [closed, -1, i32::MAX] {
            match wait_ready(&fd, Readable, Some(soon())) {
                Err(WaitError::System(error)) => {
                    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
                }
                other => panic!("{fd}: {other:?}"),
            }
        }
    });
}

#[test]
fn a_request_can_wait_for_its_own_connection() {
    let server = serve(Config::default(), |_: Request, exchange: &mut Exchange| {
        let fd = exchange.client().fd().unwrap();
        wait_ready(&fd, Writable, None).unwrap();
        let silent = wait_ready(&fd, Readable, Some(Instant::now() + SHORT));
        assert!(matches!(silent, Err(WaitError::Interrupted(Interrupt::TimedOut))));
        exchange.respond(200, &[], b"").unwrap();
    });
    let mut client = server.connect();
    for _ in 0..3 {
        client.send(GET);
        assert_eq!(client.response().status, 200);
    }
}

#[test]
fn outside_of_a_task_waiting_is_refused() {
    let (here, _there) = pair();
    let refused = wait_ready(&here, Readable, None);
    assert!(matches!(refused, Err(WaitError::Interrupted(Interrupt::Refused(Refusal::NoTask)))));
    assert_eq!(cancel_waits(&here), 0);
}

#[test]
fn four_hundred_wait_for_a_descriptor_each() {
    in_request(|_| {
        let (heres, theres): (Vec<_>, Vec<_>) = (0..400).map(|_| pair()).unzip();
        let tasks: Vec<_> = heres.iter().map(|here| waiting(here.as_raw_fd(), Readable)).collect();
        for mut there in theres.iter().rev() {
            there.write_all(b"x").unwrap();
        }
        for task in tasks {
            task.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_stop_cancels_a_task_that_is_no_request_and_does_not_wait_for_it() {
    let (told, ended) = std::sync::mpsc::channel();
    let server = serve(Config::default(), move |_: Request, exchange: &mut Exchange| {
        let told = told.clone();
        let (here, there) = pair();
        spawn(move || {
            let kind = wait_ready(&here, Readable, None).map_err(|error| error.to_string());
            told.send(kind).unwrap();
            drop(there);
        });
        exchange.respond(200, &[], b"").unwrap();
    });
    let mut client = server.connect();
    client.send(GET);
    assert_eq!(client.response().status, 200);
    server.handle.stop(None);
    assert_eq!(server.join().cancelled, 1);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Err("the task was cancelled".to_owned()));
}

#[test]
fn errors_say_what_to_do() {
    let occupied = WaitError::Occupied(7).to_string();
    assert!(occupied.starts_with("another task waits for descriptor 7 already"), "{occupied}");
    let closed = WaitError::System(ErrorKind::NotFound.into());
    assert!(std::error::Error::source(&closed).is_some());
}
