//! Tests the policy's promises, on made-up machines and in counted time.

use crate::pod::residency::policy::*;

const GB: u64 = 1 << 30;

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

fn memory(bytes: u64) -> Need {
    Need { memory: bytes, ..Need::default() }
}

fn on_gpu(bytes: u64, alone: bool) -> Need {
    Need { memory: 1, gpu: Some(bytes), alone, ..Need::default() }
}

fn machine(memory: u64, gpus: &[GpuCapacity]) -> Residency {
    Residency::new(Capacity { memory, gpus: gpus.to_vec() })
}

const SHARED: GpuCapacity = GpuCapacity { bytes: 10 * GB, exclusive: false };
const EXCLUSIVE: GpuCapacity = GpuCapacity { bytes: 10 * GB, exclusive: true };

impl Residency {
    fn wants(&mut self, id: ClaimId, need: Need, rank: Rank, now: u64) {
        self.request(id, need, rank, ms(0), ms(now)).unwrap();
    }

    /// The pod has loaded, and has had no work since `now`.
    fn idles(&mut self, id: ClaimId, now: u64) {
        let resident = self.residents.get_mut(&id).unwrap();
        (resident.loaded, resident.since, resident.work) = (Some(resident.loaded.unwrap_or(ms(now))), ms(now), 0);
    }

    fn works(&mut self, id: ClaimId, rank: Rank, now: u64) {
        self.idles(id, now);
        let resident = self.residents.get_mut(&id).unwrap();
        (resident.work, resident.worked) = (rank, rank);
    }

    fn does(&mut self, now: u64) -> Vec<Decision> {
        self.decide(ms(now)).0
    }
}

use Decision::{Leave, Load};

#[test]
fn the_least_recently_used_goes_first_and_a_pinned_one_never() {
    let mut residency = machine(4 * GB, &[]);
    let pinned = Need { pinned: true, ..memory(GB) };
    for (id, need) in [(1, pinned), (2, memory(GB)), (3, memory(GB)), (4, memory(GB))] {
        residency.wants(id, need, 2, 0);
        assert_eq!(residency.does(0), [Load(id, None)]);
    }
    // Used in the order 1, 3, 4, 2.
    [(1, 10), (3, 20), (4, 30), (2, 40)].into_iter().for_each(|(id, at)| residency.idles(id, at));
    residency.wants(5, memory(2 * GB), 2, 5_000);
    assert_eq!(residency.does(5_000), [Leave(3, 5), Leave(4, 5)]);
    assert!(residency.does(5_000).is_empty(), "nobody is asked twice, and nobody loads before they are gone");
    assert!(residency.release(3));
    assert!(residency.does(5_000).is_empty(), "one is not enough");
    assert!(residency.release(4));
    assert_eq!(residency.does(5_000), [Load(5, None)]);
}

#[test]
fn nobody_goes_for_one_that_has_no_work() {
    let mut residency = machine(2 * GB, &[]);
    residency.wants(1, memory(2 * GB), 1, 0);
    residency.does(0);
    residency.idles(1, 0);
    residency.wants(2, memory(GB), 0, 0);
    assert_eq!(residency.decide(ms(1_000_000)), (vec![], None));
    residency.wants(2, memory(GB), 1, 1_000_000);
    assert_eq!(residency.does(1_000_000), [Leave(1, 2)]);
}

#[test]
fn what_can_never_be_had_is_said_at_once() {
    let mut residency = machine(4 * GB, &[SHARED]);
    residency.wants(1, Need { pinned: true, ..memory(3 * GB) }, 1, 0);
    residency.does(0);
    let mut want = |need: Need| residency.request(2, need, 3, ms(0), ms(0)).unwrap_err();
    assert_eq!(want(memory(2 * GB)), TooMuch::Memory { wanted: 2 * GB, budget: 4 * GB, pinned: 3 * GB });
    assert_eq!(want(on_gpu(11 * GB, false)), TooMuch::Gpu { wanted: 11 * GB, budget: 10 * GB });
    assert_eq!(machine(GB, &[]).request(2, on_gpu(1, false), 3, ms(0), ms(0)).unwrap_err(), TooMuch::NoGpu);
}

#[test]
fn a_higher_class_has_its_place_at_the_next_end_of_an_ask_and_a_lower_one_after_its_patience() {
    let mut residency = machine(4 * GB, &[EXCLUSIVE]);
    residency.wants(1, on_gpu(GB, false), 1, 0);
    residency.does(0);
    residency.works(1, 1, 10);
    residency.wants(2, on_gpu(GB, false), 3, 20);
    assert_eq!(residency.does(20), [Leave(1, 2)]);
    // The bulk work goes on when there is memory again; the decision comes at once.
    residency.release(1);
    residency.wants(1, on_gpu(GB, false), 1, 30);
    assert_eq!(residency.does(30), [Load(2, Some(0))]);
    residency.works(2, 3, 40);
    // Interactive work without a pause: after eight holds it has to let the other pod in, for a whole hold.
    let (decisions, again) = residency.decide(ms(50));
    assert_eq!((decisions, again), (vec![], Some(ms(30 + 8 * HOLD_MIN_MS))));
    assert_eq!(residency.does(30 + 8 * HOLD_MIN_MS), [Leave(2, 1)]);
    residency.release(2);
    assert_eq!(residency.does(9_000), [Load(1, Some(0))]);
    residency.works(1, 1, 9_000);
    residency.wants(2, on_gpu(GB, false), 3, 9_010);
    assert_eq!(residency.decide(ms(9_010)), (vec![], Some(ms(9_000 + HOLD_MIN_MS))));
    assert_eq!(residency.does(9_000 + HOLD_MIN_MS), [Leave(1, 2)]);
}

#[test]
fn one_class_takes_turns_of_a_hold_and_a_gap_ends_a_turn() {
    let mut residency = machine(4 * GB, &[EXCLUSIVE]);
    residency.wants(1, on_gpu(GB, false), 1, 0);
    residency.does(0);
    residency.works(1, 1, 100);
    residency.wants(2, on_gpu(GB, false), 1, 200);
    assert_eq!(residency.decide(ms(200)), (vec![], Some(ms(100 + HOLD_MIN_MS))), "it has just come");
    residency.idles(1, 300);
    assert_eq!(residency.decide(ms(300)), (vec![], Some(ms(300 + GAP_MIN_MS))), "an instant without work is no end");
    residency.works(1, 1, 350);
    assert_eq!(residency.does(360), []);
    residency.idles(1, 400);
    assert_eq!(residency.does(400 + GAP_MIN_MS), [Leave(1, 2)]);
}

#[test]
fn a_device_for_oneself_is_shared_with_nobody_and_the_emptiest_is_taken() {
    let mut residency = machine(9 * GB, &[SHARED, SHARED]);
    residency.wants(1, on_gpu(2 * GB, false), 2, 0);
    assert_eq!(residency.does(0), [Load(1, Some(0))]);
    residency.wants(2, on_gpu(2 * GB, true), 2, 0);
    assert_eq!(residency.does(0), [Load(2, Some(1))], "it wants to be alone");
    residency.wants(3, on_gpu(2 * GB, false), 2, 0);
    assert_eq!(residency.does(0), [Load(3, Some(0))], "the other one is somebody's own");
    residency.idles(1, 0);
    residency.idles(2, 0);
    residency.works(3, 2, 0);
    residency.wants(4, on_gpu(9 * GB, false), 3, 10);
    assert_eq!(residency.does(10), [Leave(2, 4)], "one that has no work, rather than two");
}

#[test]
fn a_session_stays_and_a_group_has_one_at_a_time() {
    let mut residency = machine(9 * GB, &[]);
    let grouped = |kept: bool| Need { groups: vec!["npu".into()], kept, ..memory(1) };
    residency.wants(1, grouped(true), 1, 0);
    residency.does(0);
    residency.idles(1, 0);
    residency.wants(2, grouped(false), 3, 0);
    residency.wants(3, memory(1), 1, 0);
    assert_eq!(residency.decide(ms(1_000_000)), (vec![Load(3, None)], None), "others are not held up by it");
    residency.release(1);
    assert_eq!(residency.does(1_000_001), [Load(2, None)]);
}

#[test]
fn what_one_waits_for_is_not_given_to_a_smaller_one() {
    let mut residency = machine(4 * GB, &[]);
    for id in [1, 2] {
        residency.wants(id, memory(2 * GB), 1, 0);
    }
    residency.does(0);
    residency.idles(1, 0);
    residency.idles(2, 0);
    residency.wants(3, memory(4 * GB), 2, 5_000);
    assert_eq!(residency.does(5_000), [Leave(1, 3), Leave(2, 3)]);
    residency.release(1);
    residency.wants(4, memory(GB), 2, 5_001);
    assert_eq!(residency.does(5_001), [], "two are free, but reserved");
    residency.release(2);
    assert_eq!(residency.does(5_002), [Load(3, None)]);
}

#[test]
fn pods_of_one_recipe_do_not_take_each_others_place() {
    let mut residency = machine(GB, &[]);
    let of_recipe = |byte: &str| Need { recipe: Some(Digest::of(byte.as_bytes())), ..memory(GB) };
    residency.wants(1, of_recipe("a"), 1, 0);
    residency.does(0);
    residency.idles(1, 0);
    residency.wants(2, of_recipe("a"), 3, 5_000);
    assert_eq!(residency.decide(ms(5_000)), (vec![], None));
    residency.wants(3, of_recipe("b"), 1, 5_000);
    assert_eq!(residency.does(5_000), [Leave(1, 3)]);
}

/// One recipe of a made-up machine, with a series of asks.
struct Worker {
    id: ClaimId,
    rank: Rank,
    /// Remaining work, in milliseconds of a loaded model.
    left: u64,
    /// Length of one ask.
    ask: u64,
    /// From the end of an ask to the next one.
    pause: u64,
    state: At,
    done: u64,
    loads: u64,
    waited_max: u64,
    waits_since: Option<u64>,
    /// When its next ask comes.
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum At {
    Away,
    Loading(u64),
    Ask(u64),
    Pause(u64),
    Unloading(u64),
}

/// Runs workers on one exclusive device until `until`; asserts that no two of them are ever loaded at once.
fn simulate(workers: &mut [Worker], load: u64, until: u64) {
    let mut residency = machine(9 * GB, &[EXCLUSIVE]);
    for now in 0..until {
        for worker in workers.iter_mut() {
            let yields = residency.residents.get(&worker.id).is_some_and(|resident| resident.leaving);
            worker.state = match worker.state {
                At::Away if worker.left > 0 && now >= worker.next => {
                    residency.request(worker.id, on_gpu(GB, false), worker.rank, ms(load), ms(now)).unwrap();
                    worker.waits_since.get_or_insert(now);
                    At::Away
                }
                At::Loading(end) if now >= end => {
                    let resident = residency.residents.get_mut(&worker.id).unwrap();
                    (resident.loaded, resident.load_time) = (Some(ms(now)), ms(load));
                    residency.works(worker.id, worker.rank, now);
                    worker.waited_max = worker.waited_max.max(now - worker.waits_since.take().unwrap_or(now));
                    At::Ask(now + worker.ask)
                }
                At::Ask(end) if now >= end => {
                    worker.left = worker.left.saturating_sub(worker.ask);
                    worker.done += worker.ask;
                    residency.idles(worker.id, now);
                    worker.next = now + worker.pause;
                    At::Pause(worker.next)
                }
                At::Pause(_) if yields => At::Unloading(now + 5),
                At::Pause(end) if now >= end && worker.left > 0 => {
                    residency.works(worker.id, worker.rank, now);
                    At::Ask(now + worker.ask)
                }
                At::Unloading(end) if now >= end => {
                    residency.release(worker.id);
                    At::Away
                }
                other => other,
            };
        }
        for decision in residency.does(now) {
            if let Load(id, _) = decision {
                let worker = workers.iter_mut().find(|worker| worker.id == id).unwrap();
                (worker.state, worker.loads) = (At::Loading(now + load), worker.loads + 1);
            }
        }
        let there = workers.iter().filter(|worker| worker.state != At::Away).count();
        assert!(there <= 1, "two at once at {now}");
    }
}

fn worker(id: ClaimId, rank: Rank, ask: u64, pause: u64) -> Worker {
    Worker { id, rank, left: u64::MAX / 2, ask, pause, state: At::Away, done: 0, loads: 0, waited_max: 0, waits_since: None, next: 0 }
}

#[test]
fn two_rows_of_bulk_work_take_turns_and_little_time_goes_into_loading() {
    let mut workers = [worker(1, 1, 20, 3), worker(2, 1, 30, 2)];
    let (load, until) = (500, 120_000);
    simulate(&mut workers, load, until);
    let loading: u64 = workers.iter().map(|worker| worker.loads * load).sum();
    assert!(loading * 100 / until <= 25, "{loading} of {until} ms went into loading");
    let shares = workers.map(|worker| worker.done * 100 / until);
    assert!(shares.iter().all(|share| *share >= 30), "{shares:?}");
}

#[test]
fn bulk_work_keeps_a_share_under_an_unbroken_row_of_interactive_work_and_has_the_rest_without() {
    let (load, until) = (200, 200_000);
    let mut workers = [worker(1, 1, 50, 1), worker(2, 3, 50, 1)];
    simulate(&mut workers, load, until);
    let share = workers[0].done * 100 / until;
    assert!((5..20).contains(&share), "bulk had {share} %");
    assert!(workers[1].waited_max <= 1_000 + 2 * load + 200, "interactive work waited {} ms", workers[1].waited_max);

    // A caller with an ask every few seconds: each is answered soon, and bulk gets the rest.
    let mut workers = [worker(1, 1, 50, 1), worker(2, 3, 50, 5_000)];
    simulate(&mut workers, load, until);
    assert!(workers[0].done * 100 / until >= 50, "bulk had {} %", workers[0].done * 100 / until);
    assert!(workers[1].loads <= until / 5_000 + 1, "{} loads for {} asks", workers[1].loads, workers[1].done / 50);
}
