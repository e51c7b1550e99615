//! Simulates the schedule with pods and callers in virtual time, and measures what callers would see.
//!
//! `tests.rs` tests single steps; a wait, a share, or a retry that succeeds is a property of the whole.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use crate::pod::pool::schedule::{
    tests::{ms, operation},
    *,
};

/// Random numbers that are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, range: Range<u64>) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        range.start + (self.0 >> 33) % (range.end - range.start)
    }
}

/// Callers of one kind.
#[derive(Clone)]
struct Kind {
    class: Priority,
    count: usize,
    /// Time before the first call, and from an outcome to the caller's next call, in microseconds.
    think_us: Range<u64>,
    /// Each caller calls only once.
    once: bool,
    group: Option<Group>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A caller calls; `told`: it comes back at the time that a measured pace gave it.
    Call { caller: usize, told: bool },
    /// A unit ended that began at `begun`.
    Done { callers: Vec<usize>, begun: Duration },
    /// A batch has waited enough.
    Wake,
}

#[derive(Debug)]
struct Served {
    class: Priority,
    arrived: Duration,
    begun: Duration,
}

impl Served {
    fn wait(&self) -> Duration {
        self.begun - self.arrived
    }
}

#[derive(Default)]
struct Seen {
    served: Vec<Served>,
    units: usize,
    /// Total time of the units.
    busy: Duration,
    /// When the last unit began.
    last: Duration,
    expired: usize,
    /// Callers that came back at the time that a measured pace gave them: how many, and how many then got in.
    came_back: usize,
    got_in: usize,
}

impl Seen {
    fn of(&self, class: Priority) -> impl Iterator<Item = &Served> {
        self.served.iter().filter(move |served| served.class == class)
    }

    /// The 99th percentile of that class's waits.
    fn p99(&self, class: Priority) -> Duration {
        let mut waits: Vec<_> = self.of(class).map(Served::wait).collect();
        waits.sort();
        waits[waits.len() * 99 / 100]
    }
}

struct World {
    pods: usize,
    queue_max: usize,
    kinds: Vec<Kind>,
    service_us: Range<u64>,
    until: Duration,
}

impl World {
    fn run(&self) -> Seen {
        let callers: Vec<&Kind> = self.kinds.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.count)).collect();
        let (mut schedule, mut seen, mut dice) = (Schedule::new(self.queue_max), Seen::default(), Dice(7));
        let (mut free, mut measured) = (self.pods, false);
        let mut events = BinaryHeap::new();
        for (caller, kind) in callers.iter().enumerate() {
            let at = Duration::from_micros(dice.roll(kind.think_us.clone()));
            events.push(Reverse((at, Event::Call { caller, told: false })));
        }
        while let Some(Reverse((now, event))) = events.pop()
            && now < self.until
        {
            match event {
                Event::Call { caller, told } => {
                    let kind = callers[caller];
                    let ask = Waiting { priority: kind.class, arrived: now, deadline: now + ms(60_000), group: kind.group.clone() };
                    seen.came_back += usize::from(told);
                    match schedule.push(caller, ask) {
                        Ok(_) => seen.got_in += usize::from(told),
                        Err(no) => {
                            events.push(Reverse((now + no.retry_after, Event::Call { caller, told: measured })));
                        }
                    }
                }
                Event::Done { callers: unit, begun } => {
                    free += 1;
                    let served =
                        crate::pod::pool::schedule::Served { operation: operation(1, 0, 0), service: now - begun, items: unit.len() };
                    schedule.done(now, &served);
                    measured = true;
                    for caller in unit.into_iter().filter(|caller| !callers[*caller].once) {
                        let at = now + Duration::from_micros(dice.roll(callers[caller].think_us.clone()));
                        events.push(Reverse((at, Event::Call { caller, told: false })));
                    }
                }
                Event::Wake => {}
            }
            seen.expired += schedule.shed(now).len();
            while free > 0 {
                match schedule.take(now) {
                    Take::Nothing => break,
                    Take::NotBefore(at) => {
                        assert!(at > now);
                        events.push(Reverse((at, Event::Wake)));
                        break;
                    }
                    Take::Unit(unit) => {
                        free -= 1;
                        seen.units += 1;
                        seen.last = now;
                        seen.served.extend(unit.iter().map(|(_, ask, _)| Served { class: ask.priority, arrived: ask.arrived, begun: now }));
                        let callers = unit.into_iter().map(|(.., caller)| caller).collect();
                        let service = Duration::from_micros(dice.roll(self.service_us.clone()));
                        seen.busy += service;
                        events.push(Reverse((now + service, Event::Done { callers, begun: now })));
                    }
                }
            }
        }
        seen
    }
}

fn kind(class: Priority, count: usize, think_us: Range<u64>) -> Kind {
    Kind { class, count, think_us, once: false, group: None }
}

#[test]
fn interactive_work_waits_for_one_ask_at_most_while_bulk_saturates_the_pool() {
    // As many interactive callers as pods: with more, they would wait for each other.
    for pods in [1, 4] {
        let kinds = vec![kind(Priority::Bulk, 200, 0..1), kind(Priority::Interactive, pods, 10_000..100_000)];
        let world = World { pods, queue_max: 1_024, kinds, service_us: 5_000..20_000, until: ms(60_000) };
        let seen = world.run();
        let (interactive, bulk) = (seen.of(Priority::Interactive).count(), seen.of(Priority::Bulk).count());
        assert!(interactive > 500, "{interactive}");
        assert!(seen.p99(Priority::Interactive) <= ms(20), "{pods} pods: {:?}", seen.p99(Priority::Interactive));
        // The pods are never free: a unit takes 12.5 ms on average.
        let all = (pods * 60_000) as f64 / 12.5;
        assert!(seen.units as f64 > all * 0.97, "{} of {all}", seen.units);
        assert_eq!((bulk + interactive, seen.expired), (seen.units, 0));
    }
}

#[test]
fn lower_classes_keep_their_share_under_a_full_load_of_interactive_work() {
    let kinds = vec![kind(Priority::Interactive, 100, 0..1), kind(Priority::Normal, 50, 0..1), kind(Priority::Bulk, 50, 0..1)];
    let world = World { pods: 2, queue_max: 1_024, kinds, service_us: 5_000..20_000, until: ms(60_000) };
    let seen = world.run();
    for class in [Priority::Normal, Priority::Bulk] {
        let share = seen.of(class).count() as f64 / seen.units as f64;
        assert!((0.08..0.12).contains(&share), "{class:?} has {share} of the pods");
    }
    let share = seen.of(Priority::Interactive).count() as f64 / seen.units as f64;
    assert!((0.77..0.82).contains(&share), "{share}");
}

#[test]
fn a_lone_ask_never_waits() {
    for group in [None, Some(Group { operation: operation(32, 0, 0), cost: 1, cohort: 0 })] {
        for class in Priority::ALL {
            let kinds = vec![Kind { group: group.clone(), ..kind(class, 1, 0..3_000) }];
            let seen = World { pods: 1, queue_max: 8, kinds, service_us: 1_000..9_000, until: ms(10_000) }.run();
            assert!(seen.served.len() > 1_000);
            assert!(seen.served.iter().all(|served| served.wait().is_zero()));
        }
    }
}

#[test]
fn a_bounded_wait_fills_batches_and_stays_bounded() {
    let batched = |wait_ms| {
        let group = Some(Group { operation: operation(16, wait_ms, 0), cost: 1, cohort: 0 });
        let kinds = vec![Kind { group, ..kind(Priority::Normal, 16, 20_000..40_000) }];
        World { pods: 4, queue_max: 64, kinds, service_us: 1_000..2_000, until: ms(30_000) }.run()
    };
    let (greedy, patient) = (batched(0), batched(10));
    let mean = |seen: &Seen| seen.served.len() as f64 / seen.units as f64;
    assert!(mean(&greedy) < 1.5 && mean(&patient) > 3.0, "{} {}", mean(&greedy), mean(&patient));
    assert!(greedy.served.iter().all(|served| served.wait() <= ms(2)));
    assert!(patient.served.iter().all(|served| served.wait() <= ms(12)));
    assert!(patient.served.iter().any(|served| served.wait() >= ms(10)));
}

#[test]
fn batches_fill_up_under_load_without_any_wait() {
    let group = Some(Group { operation: operation(32, 0, 0), cost: 1, cohort: 0 });
    let kinds = vec![Kind { group, ..kind(Priority::Normal, 64, 0..1) }];
    let seen = World { pods: 1, queue_max: 1_024, kinds, service_us: 10_000..11_000, until: ms(20_000) }.run();
    let mean = seen.served.len() as f64 / seen.units as f64;
    assert!(mean > 28.0, "{mean}");
}

#[test]
fn who_comes_back_when_told_to_gets_in() {
    let batch = || Some(Group { operation: operation(16, 0, 0), cost: 1, cohort: 0 });
    for (what, pods, service_us, count, group) in [
        ("one slow pod", 1, 90_000..110_000, 300, None),
        ("uneven service", 4, 5_000..100_000, 1_000, None),
        ("many pods", 16, 20_000..30_000, 4_000, None),
        ("batches", 2, 50_000..60_000, 3_000, batch()),
    ] {
        // A burst of many times what the queue holds.
        let kinds = vec![Kind { group, once: true, ..kind(Priority::Normal, count, 0..1) }];
        let seen = World { pods, queue_max: 64, kinds, service_us, until: ms(600_000) }.run();
        assert_eq!((seen.served.len(), seen.expired), (count, 0), "{what}");
        assert!(seen.came_back > 100, "{what}: only {} came back", seen.came_back);
        let share = seen.got_in as f64 / seen.came_back as f64;
        // And no caller is kept away so long that the pods run dry, apart from the second in which nothing is
        // measured.
        let ideal = seen.busy / pods as u32;
        assert!(share > 0.9, "{what}: {} of {} got in; {:?} of {ideal:?}", seen.got_in, seen.came_back, seen.last);
        assert!(seen.last < ideal.mul_f64(1.2) + ms(2_000), "{what}: it took {:?}, the work {ideal:?}", seen.last);
    }
}
