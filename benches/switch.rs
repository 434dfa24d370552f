//! What a coroutine costs: switches, short tasks, channels, timers, and many parked at once.
//!
//! The event loop's side is measured too, as a server would turn it: resume, then `run_ready`.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use meinheld_coro::{Config, Continuation, Scheduler, Timers, channel};

criterion_group!(benches, switches, tasks, channels, timers, many_parked);
criterion_main!(benches);

fn switches(criterion: &mut Criterion) {
    criterion.bench_function("suspend and resume", |bencher| {
        let scheduler = Scheduler::new(Config::default());
        let parked = park(&scheduler, 1);
        bencher.iter(|| turn(&scheduler, &parked));
    });
}

fn tasks(criterion: &mut Criterion) {
    let scheduler = Scheduler::new(Config::default());
    criterion.bench_function("start and finish", |bencher| {
        bencher.iter(|| scheduler.start(|| ()).expect("one coroutine is enough"));
    });
    criterion.bench_function("spawn, finish and join", |bencher| {
        bencher.iter(|| scheduler.block_on(|| black_box(1)).expect("the task returns"));
    });
}

fn channels(criterion: &mut Criterion) {
    criterion.bench_function("channel: send, wake, receive", |bencher| {
        let scheduler = Scheduler::new(Config::default());
        let (sender, receiver) = channel::unbounded();
        scheduler.spawn(move || while receiver.receive().is_ok() {});
        scheduler.run_ready();
        bencher.iter(|| {
            sender.try_send(1_u64).expect("the receiver lives");
            scheduler.run_ready()
        });
    });
}

fn timers(criterion: &mut Criterion) {
    let start = Instant::now();
    let mut timers = Timers::default();
    for key in 0..10_000_u64 {
        timers.arm(start + Duration::from_millis(key), key);
    }
    criterion.bench_function("arm and cancel a timer among 10,000", |bencher| {
        let arm = || start + Duration::from_millis(black_box(5_000));
        bencher.iter_batched(
            arm,
            |deadline| {
                let timer = timers.arm(deadline, 0);
                timers.cancel(timer)
            },
            BatchSize::SmallInput,
        );
    });
}

fn many_parked(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wake each of the parked");
    for count in [100, 1_000, 10_000] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(count.to_string(), |bencher| {
            let scheduler = Scheduler::new(Config::default());
            let parked = park(&scheduler, count);
            bencher.iter(|| turn(&scheduler, &parked));
        });
    }
}

/// Starts tasks that suspend, again each time they are resumed.
fn park(scheduler: &Scheduler, count: u64) -> Vec<Continuation<u64>> {
    let parked = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..count {
        let parked = Rc::clone(&parked);
        let task = move || {
            let here = Continuation::current().expect("this is a task");
            parked.borrow_mut().push(here.clone());
            while here.suspend(None).is_ok() {}
        };
        scheduler.start(task).expect("there are coroutines enough");
    }
    parked.take()
}

/// One turn of an event loop in which every task is resumed.
fn turn(scheduler: &Scheduler, parked: &[Continuation<u64>]) -> usize {
    for continuation in parked {
        continuation.resume(black_box(1)).expect("the task is suspended");
    }
    scheduler.run_ready()
}
